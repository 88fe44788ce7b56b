"""What the resources share: build a request, send it, decode the answer."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Struct, field

from asyncruns.abc import ByteStream, Dialect, Transport
from asyncruns.dialects.errors import bad_answer
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response, join_path, request_id
from asyncruns.limits import Limits
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.pages import PageCall as PageCall
from asyncruns.streams.opening import accepting, events_of, object_of
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.wire import Page, Run, decode

T = TypeVar("T")

FILE_SEARCH_CONTENT: Final = "step_details.tool_calls[*].file_search.results[*].content"
"""The only documented value of `include`."""


VERSIONED_PATHS: Final = ("/threads", "/assistants")
"""Where the paths begin whose requests name a version of the API in a header."""


class Server(Struct, frozen=True):
    """What a resource needs to know.

    Attributes:
        transport: Sends, with retries.
        dialect: Says what an error answer means.
        limits: What is checked before sending; None checks nothing.
        once: Sends each request once, for what has a patience of its own; None for `transport`.
        open_watches: The watches that go on over the client.
    """

    transport: Transport
    dialect: Dialect[Run] = ThreadRunDialect()
    limits: Limits | None = None
    once: Transport | None = None
    open_watches: OpenWatches = field(default_factory=OpenWatches)


class Resource:
    """Some operations of the API."""

    _tools_limit: ClassVar[str | None] = "run_tools"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._raw = False

    @property
    def with_raw_response(self) -> RawCalls:
        """The same methods, giving a `RawResponse`: status, headers, bytes, and `parse()` for the object."""
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
        """Check what was given, and build the request.

        Raises:
            InvalidRequestError: Something in it can't be sent.
        """
        limits = self._server.limits
        if body:
            # What can be iterated over only once is, before it is checked.
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
        """Send a request that asks for a stream, and return the stream.

        If the server answers with the object itself, the stream has one event, which holds that.

        Raises:
            APIStatusError: The server refused.
            APIResponseValidationError: It answered with something else; what was asked for may be done.
        """
        if self._raw:
            raise InvalidRequestError("with_raw_response gives whole answers; leave it out for stream=True")
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
        """Give the exception that an error answer stands for."""
        return self._server.dialect.refusal(request, response).cause

    def _list(self, item: type[T], *segments: str, query: Mapping[str, Any], options: CallOptions) -> PageCall[T]:
        page: type[Page[T]] = Page[item]  # type: ignore[valid-type]  # a page of what is asked for
        extra = options.get("extra_query") or {}

        async def fetch(after: str | None) -> Page[T]:
            asked = options.copy()
            if after is not None:  # the cursor, over whatever said where to begin
                asked["extra_query"] = {**extra, "after": after}
            return await self._ask(page, "GET", *segments, query=query, options=asked)

        if self._raw:  # only for `await`: there is nothing to iterate over
            return cast("PageCall[T]", fetch(None))
        path = "/".join(map(str, segments))
        return PageCall(fetch, backwards={**query, **extra}.get("before") is not None, path=f"/{path}")


def decoded(request: Request, response: Response, type_: type[T]) -> T:
    """Give the object of a good answer.

    Raises:
        APIResponseValidationError: The body is not one.
    """
    try:
        return decode(response.body, type_)
    except msgspec.DecodeError as error:
        raise bad_answer(request, response, error) from error


class RawResponse(Generic[T]):
    """An answer as it came.

    Attributes:
        status: The HTTP status (also as `status_code`).
        headers: Finds names in lower case.
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
        """The HTTP status, by the name that users of the official client know."""
        return self.status

    @property
    def request_id(self) -> str:
        """What names this exchange to the server's operators, or ""."""
        return request_id(self.headers)

    def parse(self) -> T:
        """Give the object.

        Raises:
            APIResponseValidationError: The body is not one.
        """
        return decoded(self._request, self._response, self._type)

    def __repr__(self) -> str:
        return f"<RawResponse {self.status} of {self._request.method} {self._request.path}, {len(self.content)} bytes>"


class RawCalls:
    """The methods of a resource, each giving a `RawResponse` of what it else gives; a list gives its page.

    What lies below the resource (`client.threads.with_raw_response.runs`) is raw as well. What waits for a run, or
    streams it with a handler, has no one answer (`watch`, `poll`, ...), so it is not among them.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = copy.copy(resource)
        self._resource._raw = True

    def __getattr__(self, name: str) -> Callable[..., Awaitable[RawResponse[Any]]]:
        # Names with an underscore are asked for by `copy` and `pickle`, before there is a resource.
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
_NOT_RAW: Final = frozenset({*_WAITING, "with_raw_response"})
