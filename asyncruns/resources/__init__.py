"""The operations of the API, by the names that users of the official client know. Thin: build, send, decode."""

from asyncruns.resources.base import FILE_SEARCH_CONTENT, PageCall, RawCalls, RawResponse
from asyncruns.resources.options import CallOptions

__all__ = ["FILE_SEARCH_CONTENT", "CallOptions", "PageCall", "RawCalls", "RawResponse"]
