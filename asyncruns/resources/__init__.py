"""The operations of the API, named as in the official client. Most of them only build, send and decode.

Public: the names in `__all__`; the resources themselves are reached through a client: `client.threads.runs`.
"""

from asyncruns.resources.adoption import NONCE_KEY
from asyncruns.resources.base import FILE_SEARCH_CONTENT, PageCall, RawCalls, RawResponse
from asyncruns.resources.options import CallOptions
from asyncruns.resources.thread_lock import OnBusy

__all__ = ["FILE_SEARCH_CONTENT", "NONCE_KEY", "CallOptions", "OnBusy", "PageCall", "RawCalls", "RawResponse"]
