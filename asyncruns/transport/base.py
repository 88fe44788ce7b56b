"""What both HTTP transports share: settings, signing, URLs and headers, and how an answer becomes a `Response`."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asyncruns._version import __version__
from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import APITimeoutError, ConfigurationError, InvalidRequestError
from asyncruns.http import Query, Request, Response, query_of
from asyncruns.transport.auth import Auth, Headers, NoAuth, checked_headers
from asyncruns.transport.failures import Failures
from asyncruns.transport.redaction import Redactor
from asyncruns.transport.trust import Trust
from asyncruns.transport.urls import check_base_url, checked_proxy

Answer = TypeVar("Answer", bound=Response | ByteStream)

CONNECT_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 100
# Longer than the pauses between polls, up to 60 s (aiohttp's default of 15 s is not). Shorter than the 75 s after which
# nginx closes an idle connection: a request that is sent at that moment is lost.
KEEPALIVE_S: Final = 65.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # a page of 100 messages of 256,000 characters fits
_UNSIGNED: Final[Headers] = {}
_SHORTEST_TIMEOUT_S: Final = 0.001  # 0 means no timeout in aiohttp


class HTTPTransport(Transport):
    """Sends requests over HTTP, each once, and never follows a redirect. A subclass makes the connections.

    Args:
        base_url: Scheme, host and path prefix.
        auth: Signs requests; refreshed once when the server answers 401 or 403.
        headers: Sent with every request.
        version_headers: Sent with requests whose path begins with one of `versioned_paths`. `headers` of the same name
            take precedence.
        versioned_paths: Relative to the base URL, each with its first slash.
        query: Parameters sent with every request, before those of the request, which replace those of the same name.
        request_timeout: Seconds for one request as a whole; None for no limit.
        proxy: The URL of an HTTP proxy.
        is_direct: Whether requests go directly to the server: no borrowed session and no proxy is involved.
        max_body: Maximum number of bytes of a body, decompressed.
        trust: What is known of the server's connections; transports to the same server may share it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None,
        headers: Headers | None,
        version_headers: Headers | None,
        versioned_paths: tuple[str, ...],
        query: Mapping[str, str] | None,
        request_timeout: float | None,
        proxy: str | None,
        is_direct: bool,
        max_body: int,
        trust: Trust | None,
    ) -> None:
        self.base_url: str = check_base_url(base_url)
        self._auth = NoAuth() if auth is None else auth
        given = checked_headers(headers or {})
        self._own_headers = {"Accept": "application/json", "User-Agent": f"asyncruns/{__version__}", **given}
        self._version_headers = version_headers or {}
        self._versioned_paths = versioned_paths
        self._query: Query = query_of((query or {}).items())
        if request_timeout is not None and not request_timeout > 0:
            raise ConfigurationError("request_timeout must be more than 0 seconds, or None for no limit")
        self._timeout_s = request_timeout
        self._proxy = checked_proxy(proxy)
        self._max_body = max_body
        self._trust: Trust = Trust() if trust is None else trust
        self._redactor: Redactor = Redactor(self._auth, chain(given.items(), self._query), self._proxy)
        may_be_tls = is_direct and self.base_url.startswith("http:")
        self._failures: Failures = Failures(self.base_url, self._redactor, self._trust, may_be_tls=may_be_tls)
        # The last signature, and the headers signed with it: without and with those of the version.
        self._signed: tuple[Headers, tuple[CIMultiDict[str], CIMultiDict[str]]] | None = None

    async def send(self, request: Request) -> Response:
        return await self._signed_by(request, self._send_signed)

    @abstractmethod
    async def _send_signed(self, request: Request, signature: Headers) -> Response:
        """Send a request with the headers that sign it."""

    async def _signed_by(self, request: Request, send: Callable[[Request, Headers], Awaitable[Answer]]) -> Answer:
        signature = self._auth.ready()
        if signature is None:
            signature = await self._refresh(request)
        response = await send(request, _UNSIGNED if signature is None else signature)
        if response.status in (401, 403):
            # The server refused the request, so any method may be sent again.
            fresh = await self._refresh(request, rejected=signature)
            if fresh is not None:
                response = await send(request, fresh)
        return response

    async def _refresh(self, request: Request, rejected: Headers | None = None) -> Headers | None:
        seconds = self._timeout_s if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._auth.refresh(rejected)
        except TimeoutError as error:
            raise APITimeoutError(
                f"No token could be fetched within {seconds} s; nothing was sent",
                sent=False,
                method=request.method,
                path=request.path,
            ) from error

    def _seconds(self, request: Request) -> float | None:
        """Return the timeout of a request as a whole, in seconds, or None for no limit."""
        seconds = self._timeout_s if request.timeout is None else request.timeout
        return None if seconds is None or seconds == math.inf else max(seconds, _SHORTEST_TIMEOUT_S)

    def _response(self, request: Request, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Response:
        """Return the response. The headers and body of an error may be shown, so credentials are removed from them."""
        if status < 300:
            redact = partial(self._redactor.body, request=request)
            return Response(status, headers, body, redact=redact, base_url=self.base_url)
        shown = CIMultiDict((name, self._redactor.text(value, request)) for name, value in headers.items())
        redacted = self._redactor.body(body, request)
        return Response(status, CIMultiDictProxy(shown), redacted, base_url=self.base_url)

    def redacted(self, data: bytes, request: Request) -> bytes:
        """Return bytes without credentials: neither those of this client nor those of the request."""
        return self._redactor.body(data, request)

    def _url(self, request: Request) -> URL:
        if not request.path.isprintable() or " " in request.path or request.path[:1] != "/":
            raise InvalidRequestError(f"The path {request.path!r} can't be sent: begin it with a slash and quote it")
        # Already encoded: otherwise yarl would take an id's %2F, or a dot segment, for part of the path.
        url = URL(self.base_url + request.path, encoded=True)
        pairs = self._query
        if request.query:
            own = {name for name, _ in request.query}
            pairs = tuple(pair for pair in pairs if pair[0] not in own) + request.query
        return url.with_query(pairs) if pairs else url

    def _headers(self, request: Request, signature: Headers) -> CIMultiDict[str]:
        """Return the headers of a request.

        Requests without headers and a body of their own share one object, which must not be changed.
        """
        if self._signed is None or self._signed[0] is not signature:
            plain = _merged(self._own_headers, signature)  # the signature takes precedence
            self._signed = signature, (plain, _merged(self._version_headers, plain))
        signed = self._signed[1][request.path.startswith(self._versioned_paths)]
        has_type = "Content-Type" in signed
        if request.body is None and request.upload is None and not request.headers and not has_type:
            return signed
        headers = signed.copy()
        if request.upload is not None:
            headers["Content-Type"] = request.upload.content_type
        elif request.body is not None:
            headers["Content-Type"] = "application/json"
        elif has_type:
            del headers["Content-Type"]  # without a body, some gateways would try to parse one
        headers.update(request.headers)
        return headers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url} {self._auth!r}>"


def _merged(*all_headers: Headers) -> CIMultiDict[str]:
    """Return the headers of all mappings, with case-insensitive names; the last one of each name counts."""
    merged: CIMultiDict[str] = CIMultiDict()
    for headers in all_headers:
        for name, value in headers.items():
            merged[name] = value
    return merged


def closes(headers: Iterable[tuple[str, str]]) -> bool:
    """Return whether headers contain `Connection: close`."""
    return any(name.lower() == "connection" and value.strip().lower() == "close" for name, value in headers)
