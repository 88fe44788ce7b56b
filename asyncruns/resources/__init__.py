"""The operations of the API, by the names that users of the official client know. Thin: build, send, decode.

Public: the names of `__all__`; the resources themselves are what a client has: `client.threads.runs`.
"""

from asyncruns.resources.adoption import NONCE_KEY
from asyncruns.resources.base import FILE_SEARCH_CONTENT, PageCall, RawCalls, RawResponse
from asyncruns.resources.options import CallOptions
from asyncruns.resources.thread_lock import OnBusy

__all__ = ["FILE_SEARCH_CONTENT", "NONCE_KEY", "CallOptions", "OnBusy", "PageCall", "RawCalls", "RawResponse"]
