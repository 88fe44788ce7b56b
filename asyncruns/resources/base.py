"""The base class of the resources: builds a request, sends it, and decodes the answer.

It never retries: that is left to the transport.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from asyncruns.abc import ByteStream, Dialect, Transport
from asyncruns.dialects.errors import bad_answer
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response, join_path, request_id
from asyncruns.limits import Limits
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.pages import PageCall as PageCall
from asyncruns.streams.opening import accepting, events_of, object_of
from asyncruns.transport.retry import RetryTransport
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.wire import Page, decode

T = TypeVar("T")

FILE_SEARCH_CONTENT: Final = "step_details.tool_calls[*].file_search.results[*].content"
"""The only documented value of `include` for run steps.

https://platform.openai.com/docs/api-reference/run-steps
"""


VERSIONED_PATHS: Final = ("/threads", "/assistants")
"""Prefixes of the paths whose requests carry the API's version in the header `OpenAI-Beta`."""


class Server(Struct, frozen=True):
    """What a resource needs to know about the server.

    Attributes:
        transport: Sends requests, with retries.
        dialect: Turns error answers into exceptions.
        limits: The limits that are checked before sending; None checks nothing.
        once: Sends each request once, for callers that retry by themselves; None to use `transport`.
        max_retries: How often `transport` repeats a request.
        open_watches: The client's watches that are in progress.
    """

    transport: Transport
    dialect: Dialect[Any] = ThreadRunDialect()
    limits: Limits | None = None
    once: Transport | None = None
    open_watches: OpenWatches = field(default_factory=OpenWatches)
    max_retries: int = 0

    def through(self, once: Transport) -> Server:
        """Return the same server, to which all requests are sent through another transport.

        Args:
            once: That transport; it sends each request once.
        """
        return replace(self, transport=RetryTransport(once, max_retries=self.max_retries), once=once)


class Resource:
    """A group of operations of the API."""

    _tools_limit: ClassVar[str | None] = "run_tools"
    """The field of `Limits` that bounds the number of tools; None for no check."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._raw = False

    @property
    def with_raw_response(self) -> RawCalls:
        """The same methods, returning a `RawResponse`: status, headers, bytes, and `parse()` for the object."""
        return RawCalls(self)

    async def _ask(
        self,
        type_: type[T],
        method: str,
        *segments: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        options: CallOptions | None = None,
    ) -> T:
        """Build the request, send it, and decode the answer."""
        return await self._send(self._request(method, *segments, query=query, body=body, options=options), type_)

    def _request(
        self,
        method: str,
        *segments: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        options: CallOptions | None = None,
    ) -> Request:
        """Check the parameters, and build the request.

        Raises:
            InvalidRequestError: A parameter can't be sent.
        """
        limits = self._server.limits
        if body:
            # Checking would exhaust an iterator, and nothing would be left to send.
            body = {name: list(value) if isinstance(value, Iterator) else value for name, value in body.items()}
        if limits is not None and (body or query):
            tools = None if self._tools_limit is None else getattr(limits, self._tools_limit)
            limits.check({**(query or {}), **(body or {})}, tools=tools)
        return make_request(method, join_path(*segments), query, body, options)

    async def _send(self, request: Request, type_: type[T]) -> T:
        """Send a request, and decode the answer."""
        response = await self._server.transport.send(request)
        if not 200 <= response.status < 300:
            raise self._error(request, response)
        if self._raw:
            return cast("T", RawResponse(request, response, type_))
        return decoded(request, response, type_)

    async def _open_stream(self, request: Request) -> ByteStream:
        """Send a request for a stream, and return the body of the answer.

        If the server answers with the object itself, the stream will have one event, which contains the object.

        Raises:
            APIStatusError: The server refused the request.
            APIResponseValidationError: It answered with something else; the request may have taken effect.
            InvalidRequestError: The call is a raw one, and raw calls do not stream.
        """
        if self._raw:
            raise InvalidRequestError("with_raw_response returns whole answers; leave it out for stream=True")
        answer = await self._server.transport.stream(accepting(request))
        if isinstance(answer, ByteStream):
            return answer
        if answer.status >= 300:
            raise self._error(request, answer)
        body = events_of(answer) or object_of(answer)
        if body is None:
            raise bad_answer(request, answer, ValueError("no stream of events"))
        return body

    def _error(self, request: Request, response: Response) -> Exception:
        """Return the exception for an error answer."""
        return self._server.dialect.refusal(request, response).cause

    def _list(
        self, item: type[T], *segments: str, query: Mapping[str, Any], options: CallOptions, suffix: str = ""
    ) -> PageCall[T]:
        """Return a list.

        Args:
            item: The type of its items.
            *segments: Its path.
            query: The query of the first page.
            options: The options of the call.
            suffix: What the parameters `after` and `before` end with at this server.
        """
        page: type[Page[T]] = Page[item]  # type: ignore[valid-type]  # a type made at run time
        extra = options.get("extra_query") or {}

        async def fetch(after: str | None) -> Page[T]:
            page_options = options.copy()
            if after is not None:  # the cursor replaces an `after` of the caller, which was for the first page
                page_options["extra_query"] = {**extra, f"after{suffix}": after}
            return await self._ask(page, "GET", *segments, query=query, options=page_options)

        if self._raw:  # `await` returns a RawResponse, which has no items to iterate over
            return cast("PageCall[T]", fetch(None))
        path = "/".join(map(str, segments))
        return PageCall(fetch, backwards={**query, **extra}.get(f"before{suffix}") is not None, path=f"/{path}")


def decoded(request: Request, response: Response, type_: type[T]) -> T:
    """Return the object in the body of a successful answer.

    Raises:
        APIResponseValidationError: The body can't be decoded as `type_`.
    """
    try:
        return decode(response.body, type_)
    except msgspec.DecodeError as error:
        raise bad_answer(request, response, error) from error


class RawResponse(Generic[T]):
    """An answer as it was received.

    Attributes:
        status: The HTTP status (also as `status_code`).
        headers: The headers; look them up by their names in lower case.
        content: The body, complete and decompressed.
    """

    def __init__(self, request: Request, response: Response, type_: type[T]) -> None:
        self._request = request
        self._response = response
        self._type = type_
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content: bytes = response.body

    @property
    def status_code(self) -> int:
        """The HTTP status, under the official client's name."""
        return self.status

    @property
    def request_id(self) -> str:
        """The id by which the server's operators can find the exchange, or ""."""
        return request_id(self.headers)

    def parse(self) -> T:
        """Return the object in the body.

        Raises:
            APIResponseValidationError: The body can't be decoded.
        """
        return decoded(self._request, self._response, self._type)

    def __repr__(self) -> str:
        return f"<RawResponse {self.status} of {self._request.method} {self._request.path}, {len(self.content)} bytes>"


class RawCalls:
    """The methods of a resource, returning a `RawResponse` in place of the object; a list returns that of one page.

    Resources below this one (`client.threads.with_raw_response.runs`) are raw as well. Methods that watch a run or
    stream it with a handler (`watch`, `poll`, `stream`, ...), or read a file (`content`), involve more than one answer,
    so they are missing.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = copy.copy(resource)  # the resource itself must not become raw
        self._resource._raw = True

    def __getattr__(self, name: str) -> Callable[..., Awaitable[RawResponse[Any]]]:
        # `copy` and `pickle` read names with an underscore before `_resource` is set: that would recurse for ever.
        found: Any = None if name.startswith("_") or name in _NOT_RAW else getattr(self._resource, name, None)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {name!r}", name=name, obj=self)
        return cast(
            "Callable[..., Awaitable[RawResponse[Any]]]",
            found.with_raw_response if isinstance(found, Resource) else found,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self._resource).__name__}>"


_WAITING: Final = (
    "watch",
    "run",
    "continued",
    "poll",
    "create_and_poll",
    "submit_tool_outputs_and_poll",
    "create_and_process",
    "create_and_run_poll",
    "stream",
    "create_and_stream",
    "submit_tool_outputs_stream",
    "create_and_run_stream",
)
_NOT_RAW: Final = frozenset({*_WAITING, "content", "results", "with_raw_response"})
