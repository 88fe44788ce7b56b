"""The transport over aiohttp, the only module that sends requests with it.

It must send each request once: `aiohttp_sessions` keeps aiohttp from repeating one.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import aiohttp

from asyncruns._private import arrived
from asyncruns.abc import ByteStream
from asyncruns.errors import APIConnectionError, ConfigurationError
from asyncruns.http import Request, Response, Upload
from asyncruns.sse import BodyKind, body_kind
from asyncruns.transport.aiohttp_sessions import (
    Broken,
    ClientClosed,
    Sessions,
    check_cancelled,
    let_the_loop_notice,
    send_untyped,
)
from asyncruns.transport.aiohttp_upload import UploadPayload
from asyncruns.transport.auth import Auth, Headers
from asyncruns.transport.base import CONNECT_TIMEOUT_S, MAX_BODY_BYTES, HTTPTransport, closes
from asyncruns.transport.failures import Failures
from asyncruns.transport.redaction import Redactor
from asyncruns.transport.trust import Trust

# How much of a body is read to find out its kind: some servers send white space while they work.
_LONGEST_START_BYTES: Final = 64 * 1024

# How much of an upload the buffers of both systems may hold when its last piece was accepted. Sending that may take as
# long as sending as much has taken before.
_BUFFERED_BYTES: Final = 16 * 1024 * 1024

# The connection was never made, so the request did not leave.
_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,  # the proxy refused to connect
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    ClientClosed,
)


class AiohttpTransport(HTTPTransport):
    """Sends requests with aiohttp, each once, and never follows a redirect.

    Args:
        base_url: This and the parameters that are not listed here: see `HTTPTransport`.
        session: A session to borrow; it is never closed here.
        trust_env: Whether `HTTPS_PROXY` and similar variables count. A borrowed session has its own setting instead.
        ssl: As in aiohttp: True for the usual checks, False for none, an `SSLContext` or a `Fingerprint`.
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
        trust: Trust | None = None,
    ) -> None:
        super().__init__(
            base_url,
            auth=auth,
            headers=headers,
            version_headers=version_headers,
            versioned_paths=versioned_paths,
            query=query,
            request_timeout=request_timeout,
            proxy=proxy,
            is_direct=session is None and not proxy and not trust_env,
            max_body=max_body,
            trust=trust,
        )
        self._sessions: Sessions = Sessions(
            session,
            self._trust,
            closes_each=closes(self._own_headers.items()),
            trust_env=trust_env,
            timeout=_timeout(request_timeout),
        )
        self._ssl = ssl

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._signed_by(request, self._stream_signed)

    async def download(self, request: Request) -> Response | ByteStream:
        return await self._signed_by(request, self._download_signed)

    async def _send_signed(self, request: Request, signature: Headers) -> Response:
        if request.upload is not None:
            return await self._upload_signed(request, request.upload, signature)
        began = asyncio.get_running_loop().time()
        try:
            answer = await self._begin(request, signature, _timeout(self._seconds(request)))
            return await self._whole(request, answer)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise await self._lost(request, error, began) from self._shown_cause(request, error)

    async def _upload_signed(self, request: Request, upload: Upload, signature: Headers) -> Response:
        seconds = self._seconds(request)
        loop = asyncio.get_running_loop()
        began = loop.time()

        def moved(sent: int) -> None:  # the time for the next piece, or for the answer, begins
            if seconds is not None and not limit.expired():
                now = loop.time()
                buffered_for = (now - began) * min(1.0, _BUFFERED_BYTES / max(sent, 1))
                limit.reschedule(now + seconds + buffered_for)

        payload = UploadPayload(upload, moved)
        try:
            async with asyncio.timeout(seconds) as limit:
                try:
                    answer = await self._begin(request, signature, _timeout(None), payload)
                    return await self._whole(request, answer)
                finally:
                    await payload.stop()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if payload.failure is not None:
                raise payload.failure from payload.failure.__cause__
            lost = await self._lost(request, error, began, whole=payload.is_sent)
            raise lost from self._shown_cause(request, error)

    async def _stream_signed(self, request: Request, signature: Headers) -> Response | ByteStream:
        seconds = self._seconds(request)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                # No timeout for aiohttp: `seconds` bounds the opening only, and the stream may last longer.
                answer = await self._begin(request, signature, _timeout(None))
                start = b"" if answer.status >= 300 else await self._start_of(answer)
                # An error, or a plain JSON answer from a server that does not stream, is returned whole.
                if answer.status >= 300 or (answer.content_type in _NO_STREAMS and not _is_events(start)):
                    return await self._whole(request, answer, start)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise await self._lost(request, error, began) from self._shown_cause(request, error)
        return _AiohttpStream(request, answer, seconds, self._failures, self._redactor, start)

    async def _download_signed(self, request: Request, signature: Headers) -> Response | ByteStream:
        seconds = self._seconds(request)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._begin(request, signature, _timeout(None))
                if answer.status >= 300:
                    return await self._whole(request, answer)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise await self._lost(request, error, began) from self._shown_cause(request, error)
        return _AiohttpStream(request, answer, seconds, self._failures, self._redactor)

    async def _lost(
        self, request: Request, error: BaseException, began: float, *, whole: bool = True
    ) -> APIConnectionError:
        cause = error.error if isinstance(error, Broken) else error
        return await self._failures.lost(request, cause, began, left=not isinstance(cause, _NOT_SENT), whole=whole)

    def _shown_cause(self, request: Request, error: BaseException) -> BaseException | None:
        return self._redactor.showable(error.error if isinstance(error, Broken) else error, request)

    async def _start_of(self, answer: aiohttp.ClientResponse) -> bytes:
        """Return enough of a body to know its kind, if its content type is not that of a stream; otherwise b"".

        Some servers send events as `application/json`.
        """
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
        self,
        request: Request,
        signature: Headers,
        timeout: aiohttp.ClientTimeout,
        upload: UploadPayload | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request, and return the answer as soon as its headers have arrived."""
        loop = asyncio.get_running_loop()
        if request.method != "GET":
            await let_the_loop_notice()  # not for a GET, which can be repeated if it is lost
        is_last = closes(request.headers) if request.headers else False
        session, middlewares = self._sessions.choose(request.method, closes=is_last)
        headers = self._headers(request, signature)
        url = self._url(request)
        options: dict[str, Any] = {}
        if middlewares is not None:
            is_untyped = request.body is None and "Content-Type" not in headers
            options["middlewares"] = (send_untyped, *middlewares) if is_untyped else middlewares
        if request.body is None and request.method != "GET":
            options["skip_auto_headers"] = ("Content-Type",)  # otherwise aiohttp sends application/octet-stream
        if self._proxy is not None:
            options["proxy"] = self._proxy
        if self._ssl is not True:
            options["ssl"] = self._ssl
        try:
            answer = await session.request(
                request.method,
                url,
                headers=headers,
                data=request.body if upload is None else upload,
                timeout=timeout,
                allow_redirects=False,
                raise_for_status=False,  # a borrowed session may have it set
                **options,
            )
        except asyncio.CancelledError:
            check_cancelled(session)
            raise
        except aiohttp.ClientError:  # some of these are ValueErrors, too
            raise
        except ValueError as error:  # for example, credentials from two sources
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
        return self._response(request, answer.status, answer.headers, body)

    async def _read(self, request: Request, answer: aiohttp.ClientResponse, start: bytes) -> bytes:
        """Return the whole body. An endless one must not fill the memory: beyond the limit, raise."""
        chunks = [start] if start else []
        size = len(start)
        while chunk := await answer.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body:
                raise self._failures.too_large(request, answer.status, answer.headers, chunks[0], self._max_body)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def aclose(self) -> None:
        await self._sessions.aclose()


class _AiohttpStream(ByteStream):
    """Reads a body as it arrives.

    The silence of the server is measured only while the reader waits for bytes, so that a slow reader loses nothing.
    aiohttp's own read timeout is not used, since it would discard bytes that have arrived. One timer serves many reads:
    when it fires too early for the current one, it is set again.
    """

    def __init__(
        self,
        request: Request,
        answer: aiohttp.ClientResponse,
        silence_s: float | None,
        failures: Failures,
        redactor: Redactor,
        start: bytes = b"",
    ) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.redact = partial(redactor.body, request=request)
        self._failures = failures
        self._redactor = redactor
        self._request = request
        self._answer = answer
        self._silence_s = silence_s
        self._start = start  # read already, to find out the kind of the body
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
        # Includes bytes that arrived before the connection broke; aiohttp's public methods would raise and drop them.
        if data := arrived(content):
            return data
        try:
            self._waiting_since = self._loop.time()
            if self._timer is None and self._silence_s is not None:
                self._timer = self._loop.call_later(self._silence_s, self._check_silence)
            found = await content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError) as error:
            # aiohttp's error for a session that was closed, or for a second task that reads.
            if isinstance(error, RuntimeError) and _is_connected(self._answer):
                raise
            await self.aclose()
            broke = self._failures.stream_broke(self._request, error, self._silence_s)
            raise broke from self._redactor.showable(error, self._request)
        finally:
            self._waiting_since = None
        if not found:
            await self.aclose()
        return found

    def _check_silence(self) -> None:
        """End a read that has waited too long, or set the timer for the moment when it will have."""
        self._timer = None
        if self._waiting_since is None or self._silence_s is None:
            return
        left = self._waiting_since + self._silence_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_silence)
        else:
            self._answer.content.set_exception(TimeoutError())

    async def aclose(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer.close()


_NO_STREAMS: Final = ("application/json", "text/html")  # usually; some servers send events with these types


def _is_events(start: bytes) -> bool:
    return body_kind(start) is BodyKind.EVENTS


def _is_connected(answer: aiohttp.ClientResponse) -> bool:
    return answer.connection is not None and answer.connection.transport is not None


def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT_S)
