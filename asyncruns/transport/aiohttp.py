"""The transport over aiohttp: the only module that knows it."""

from __future__ import annotations

import asyncio
import math
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asyncruns._private import arrived
from asyncruns._version import __version__
from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import (
    SHOWN_BODY_CHARACTERS,
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigurationError,
)
from asyncruns.http import Query, Request, Response, query_of, request_id
from asyncruns.sse import BodyKind, body_kind
from asyncruns.transport.auth import Auth, Headers, NoAuth, checked_headers
from asyncruns.transport.connections import Broken, Sessions, let_the_loop_notice, send_untyped
from asyncruns.transport.outages import tls_where_plain, what_to_set
from asyncruns.transport.redaction import Redactor
from asyncruns.transport.urls import check_base_url, checked_proxy

Answer = TypeVar("Answer", bound=Response | ByteStream)

CONNECT_TIMEOUT_S: Final = 10.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # a page of 100 messages of 256,000 characters fits in
BREAKS_BEFORE_PROBE: Final = 2  # in a row, with no answer ever, before it is asked whether the port speaks TLS
_LONGEST_START_BYTES: Final = 64 * 1024  # of white space, which some servers send while they work
_SHORTEST_TIMEOUT_S: Final = 0.001  # aiohttp takes 0 for "for ever"

# The connection was never made, so the request did not leave.
_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,  # the proxy refused to connect
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class AiohttpTransport(Transport):
    """Send requests with aiohttp, each once, and never along a redirect.

    Args:
        base_url: Scheme, host and path prefix. What is needed of every request beside goes into `headers` and `query`.
        auth: Signs requests; refreshed once when the server answers 401 or 403.
        headers: Sent with every request.
        version_headers: Sent with the requests whose path begins with one of `versioned_paths`; `headers` count over
            them.
        versioned_paths: Below the base URL, each with its first slash.
        query: Sent with every request, before the request's own, which count over those of the same name.
        request_timeout: Seconds for one request as a whole; None is for ever.
        session: A session to borrow; it is never closed here.
        proxy: The URL of an HTTP proxy.
        trust_env: Whether `HTTPS_PROXY` and the like count. Not with a borrowed session, which has its own setting.
        ssl: As aiohttp takes it: an `SSLContext`, or False for no checks.
        max_body: How many bytes of an answer are read, decompressed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        headers: Headers | None = None,
        version_headers: Headers | None = None,
        versioned_paths: tuple[str, ...] = (),
        query: Mapping[str, str] | None = None,
        request_timeout: float | None = 30.0,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: ssl_module.SSLContext | aiohttp.Fingerprint | bool = True,
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        self.base_url: str = check_base_url(base_url)
        self._auth = NoAuth() if auth is None else auth
        given = checked_headers(headers or {})
        self._own_headers = {"Accept": "application/json", "User-Agent": f"asyncruns/{__version__}", **given}
        self._version_headers = version_headers or {}
        self._versioned_paths = versioned_paths
        self._query: Query = query_of((query or {}).items())
        if request_timeout is not None and not request_timeout > 0:
            raise ConfigurationError("request_timeout must be more than 0 seconds, or None for ever")
        self._timeout = _timeout(request_timeout)
        self._sessions: Sessions = Sessions(
            session, closes_each=_closes(self._own_headers.items()), trust_env=trust_env, timeout=self._timeout
        )
        self._trust = self._sessions.trust
        self._proxy = checked_proxy(proxy)
        may_be_tls = session is None and self._proxy is None and not trust_env and self.base_url.startswith("http:")
        self._breaks_before_probe = BREAKS_BEFORE_PROBE if may_be_tls else math.inf
        self._tls_where_plain: str | None = None
        self._ssl = ssl
        self._max_body = max_body
        self._redactor: Redactor = Redactor(self._auth, chain(given.items(), self._query), self._proxy)
        self._signed: tuple[Headers, tuple[CIMultiDict[str], CIMultiDict[str]]] | None = None

    async def send(self, request: Request) -> Response:
        return await self._signed_by(request, self._send_signed)

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._signed_by(request, self._stream_signed)

    async def _signed_by(self, request: Request, send: Callable[[Request, Headers], Awaitable[Answer]]) -> Answer:
        signature = self._auth.ready()
        if signature is None:
            signature = await self._refresh(request)
        response = await send(request, signature or {})
        if response.status in (401, 403):
            # The server did nothing, so any request may be sent again.
            fresh = await self._refresh(request, rejected=signature)
            if fresh is not None:
                response = await send(request, fresh)
        return response

    async def _refresh(self, request: Request, rejected: Headers | None = None) -> Headers | None:
        seconds = self._timeout.total if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._auth.refresh(rejected)
        except TimeoutError as error:
            raise APITimeoutError(
                f"The credential gave no token in {seconds} s; nothing was sent",
                sent=False,
                method=request.method,
                path=request.path,
            ) from error

    async def _send_signed(self, request: Request, signature: Headers) -> Response:
        timeout = self._timeout if request.timeout is None else _timeout(request.timeout)
        began = asyncio.get_running_loop().time()
        try:
            answer = await self._begin(request, signature, timeout)
            return await self._whole(request, answer)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            cause = error.error if isinstance(error, Broken) else error
            raise await self._lost(request, cause, began) from self._redactor.showable(cause, request)

    async def _stream_signed(self, request: Request, signature: Headers) -> Response | ByteStream:
        timeout = self._timeout if request.timeout is None else _timeout(request.timeout)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout.total):
                answer = await self._begin(request, signature, _timeout(None))
                start = b"" if answer.status >= 300 else await self._start_of(answer)
                if answer.status >= 300 or (answer.content_type in _NO_STREAMS and not _is_events(start)):
                    return await self._whole(request, answer, start)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            cause = error.error if isinstance(error, Broken) else error
            raise await self._lost(request, cause, began) from self._redactor.showable(cause, request)
        return _AiohttpStream(self, request, answer, timeout.total, start)

    async def _start_of(self, answer: aiohttp.ClientResponse) -> bytes:
        """Return the first bytes of what is no stream by its content type: some servers send events as JSON."""
        start = b""
        try:
            while answer.content_type in _NO_STREAMS and body_kind(start) is None and len(start) < _LONGEST_START_BYTES:
                if not (chunk := await answer.content.readany()):
                    break
                start += chunk
        except BaseException:
            answer.close()
            raise
        return start

    async def _begin(
        self, request: Request, signature: Headers, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send, and give the answer when its headers are there."""
        loop = asyncio.get_running_loop()
        if request.method != "GET":
            await let_the_loop_notice()
        closes = _closes(request.headers) if request.headers else False
        session, middlewares = self._sessions.choose(request.method, closes=closes)
        headers = self._headers(request, signature)
        options: dict[str, Any] = {}
        if middlewares is not None:
            is_untyped = request.body is None and "Content-Type" not in headers
            options["middlewares"] = (send_untyped, *middlewares) if is_untyped else middlewares
        if request.body is None and request.method != "GET":
            options["skip_auto_headers"] = ("Content-Type",)  # which aiohttp says is octet-stream
        if self._proxy is not None:
            options["proxy"] = self._proxy
        if self._ssl is not True:
            options["ssl"] = self._ssl
        try:
            answer = await session.request(
                request.method,
                self._url(request),
                headers=headers,
                data=request.body,
                timeout=timeout,
                allow_redirects=False,
                raise_for_status=False,  # a borrowed session may have it set
                **options,
            )
        except aiohttp.ClientError:  # some are ValueErrors as well
            raise
        except ValueError as error:  # such as two sources of credentials
            raise ConfigurationError(
                f"The request could not be made: {self._redactor.text(str(error), request)}. Check session=, proxy= "
                "and, with trust_env=True, .netrc"
            ) from self._redactor.showable(error, request)
        self._trust.answered(loop.time())
        return answer

    async def _whole(self, request: Request, answer: aiohttp.ClientResponse, start: bytes = b"") -> Response:
        try:
            body = await self._read(request, answer, start)
        except BaseException:
            answer.close()
            raise
        if answer.status < 300:
            redact = partial(self._redactor.body, request=request)
            return Response(answer.status, answer.headers, body, redact=redact, base_url=self.base_url)
        headers = CIMultiDict((name, self._redactor.text(value, request)) for name, value in answer.headers.items())
        redacted = self._redactor.body(body, request)
        return Response(answer.status, CIMultiDictProxy(headers), redacted, base_url=self.base_url)

    async def _read(self, request: Request, answer: aiohttp.ClientResponse, start: bytes) -> bytes:
        """Read a body up to the limit; one without end would fill the memory otherwise."""
        chunks = [start] if start else []
        size = len(start)
        while chunk := await answer.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body:
                raise APIResponseValidationError(
                    f"{request.method} {request.path} answered {answer.status} with more than {self._max_body} bytes, "
                    "which are not read further. Does the base URL end where the API begins? For a list, ask for a "
                    "smaller limit=",
                    status=answer.status,
                    body=self._redactor.body(chunks[0][:SHOWN_BODY_CHARACTERS], request),
                    request_id=request_id(answer.headers),
                    method=request.method,
                    path=request.path,
                )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _url(self, request: Request) -> URL:
        # Encoded already: yarl would read an id's %2F, or a dot segment, as part of the path.
        url = URL(self.base_url + request.path, encoded=True)
        pairs = self._query
        if request.query:
            own = {name for name, _ in request.query}
            pairs = tuple(pair for pair in pairs if pair[0] not in own) + request.query
        return url.with_query(pairs) if pairs else url

    def _headers(self, request: Request, signature: Headers) -> CIMultiDict[str]:
        if self._signed is None or self._signed[0] is not signature:
            plain = {**self._own_headers, **signature}
            self._signed = signature, (CIMultiDict(plain), CIMultiDict({**self._version_headers, **plain}))
        signed = self._signed[1][request.path.startswith(self._versioned_paths)]
        has_type = "Content-Type" in signed
        if request.body is None and not request.headers and not has_type:
            return signed
        headers = signed.copy()
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        elif has_type:
            del headers["Content-Type"]  # some gateways then fail to read the body that is not there
        headers.update(request.headers)
        return headers

    async def _lost(self, request: Request, error: BaseException, began: float) -> APIConnectionError:
        """Note that no answer came, and make the error that says so."""
        to_set = what_to_set(error, has_answered=self._trust.has_answered)
        sent = to_set is None and not isinstance(error, _NOT_SENT)
        if sent:
            now = asyncio.get_running_loop().time()
            self._trust.lost(began, now, broke=not isinstance(error, TimeoutError))
        return self._no_answer(request, error, to_set or await self._probed(), sent=sent)

    async def _probed(self) -> str | None:
        """Return what to set when the port speaks TLS and is asked without."""
        if self._trust.has_answered:
            return None
        if self._trust.broken_in_a_row == self._breaks_before_probe:
            self._tls_where_plain = await tls_where_plain(URL(self.base_url))
        return self._tls_where_plain

    def _no_answer(
        self, request: Request, error: BaseException, to_set: str | None, *, sent: bool
    ) -> APIConnectionError:
        what = f"{request.method} {request.path} at {self.base_url}"
        if to_set is not None:
            detail = self._redactor.text(f"{type(error).__name__}: {error}", request)
            message = f"No answer to {what} ({detail}). {to_set}"
            return APIConnectionError(message, sent=False, passes=False, method=request.method, path=request.path)
        if isinstance(error, asyncio.TimeoutError):
            when = "No answer in time" if sent else "No connection in time"
            return APITimeoutError(
                f"{when}: {what}. {_SENT if sent else _NOTHING_SENT}",
                sent=sent,
                method=request.method,
                path=request.path,
            )
        detail = self._redactor.text(f"{type(error).__name__}: {error}", request)
        return APIConnectionError(
            f"No answer to {what} ({detail}). {_SENT if sent else _NOTHING_SENT}",
            sent=sent,
            method=request.method,
            path=request.path,
        )

    def _broken(self, request: Request, error: BaseException, silent_s: float | None) -> APIConnectionError:
        what = f"The stream of {request.method} {request.path} at {self.base_url}"
        if isinstance(error, asyncio.TimeoutError):
            message = f"{what} fell silent: no byte in {silent_s} s"
            return APITimeoutError(message, sent=True, method=request.method, path=request.path)
        detail = self._redactor.text(f"{type(error).__name__}: {error}", request)
        message = f"{what} broke off ({detail})"
        return APIConnectionError(message, sent=True, method=request.method, path=request.path)

    async def aclose(self) -> None:
        await self._sessions.aclose()

    def __repr__(self) -> str:
        return f"<AiohttpTransport {self.base_url} {self._auth!r}>"


class _AiohttpStream(ByteStream):
    """Reads a body as it comes.

    The silence is counted while somebody waits for bytes, and only then: a slow reader loses nothing. aiohttp's own
    read timeout would throw away what has come already; and a timer is not made for each read, but goes on.
    """

    def __init__(
        self,
        owner: AiohttpTransport,
        request: Request,
        answer: aiohttp.ClientResponse,
        silence_s: float | None,
        start: bytes = b"",
    ) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.redact = partial(owner._redactor.body, request=request)
        self._owner = owner
        self._request = request
        self._answer = answer
        self._silence_s = silence_s
        self._start = start  # was read to know what the body is
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        if self._is_over:
            return b""
        if self._start:
            start, self._start = self._start, b""
            return start
        content = self._answer.content
        # Also what came before the connection broke: aiohttp's public methods would raise, and throw it away.
        if came := arrived(content):
            return came
        try:
            self._waiting_since = self._loop.time()
            if self._timer is None and self._silence_s is not None:
                self._timer = self._loop.call_later(self._silence_s, self._poll)
            found = await content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            await self.aclose()
            raise self._owner._broken(self._request, error, self._silence_s) from self._owner._redactor.showable(
                error, self._request
            )
        finally:
            self._waiting_since = None
        if not found:
            await self.aclose()
        return found

    def _poll(self) -> None:
        """End a wait that has lasted too long, or poll again when it would have."""
        self._timer = None
        if self._waiting_since is None or self._silence_s is None:
            return
        left = self._waiting_since + self._silence_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._poll)
        else:
            self._answer.content.set_exception(TimeoutError())

    async def aclose(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer.close()


_NO_STREAMS: Final = ("application/json", "text/html")  # mostly; some servers send events as text
_SENT: Final = "The server may have acted on it."
_NOTHING_SENT: Final = "Nothing was sent: check the host, the port and the network."


def _closes(headers: Iterable[tuple[str, str]]) -> bool:
    """Tell whether headers say that the connection is closed after the answer."""
    return any(name.lower() == "connection" and value.strip().lower() == "close" for name, value in headers)


def _is_events(start: bytes) -> bool:
    return body_kind(start) is BodyKind.EVENTS


def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    total = None if seconds is None or seconds == math.inf else max(seconds, _SHORTEST_TIMEOUT_S)
    return aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_TIMEOUT_S)
