"""The client of one server: it owns the transport, offers the resources, and starts watches.

Public: `Client`.
"""

from asyncruns.client.client import Client

__all__ = ["Client"]
