"""The lean transport, over httptools: sends plain requests itself, and leaves streams and the rest to aiohttp."""

from __future__ import annotations

import asyncio
import math
import re
import ssl as ssl_module
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict
from yarl import URL

from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.transport.aiohttp import AiohttpTransport
from asyncruns.transport.auth import Auth, Headers, check_header
from asyncruns.transport.base import MAX_BODY_BYTES, HTTPTransport, closes
from asyncruns.transport.dialer import Dialer
from asyncruns.transport.httptools_connection import BodyTooLarge, Connection, NotHTTP, RawAnswer
from asyncruns.transport.httptools_pool import Pool
from asyncruns.transport.inflate import inflate
from asyncruns.transport.per_loop import PerLoop

if TYPE_CHECKING:
    import aiohttp

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
# Requests with these headers define how their bodies or connections are handled; they are left to aiohttp.
_OF_FRAMING: Final = frozenset({"content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
_PLAIN_PATH: Final = re.compile(r"/[\w./~%:@!$&'()*+,;=-]*", re.ASCII)
_INFLATED_AT_ONCE_BYTES: Final = 4096  # larger ones in a thread: they may expand a thousand times
_RENDERED_HEADS: Final = 8


class HttptoolsTransport(HTTPTransport):
    """Sends requests over HTTP/1.1 with httptools, each once, and never follows a redirect.

    An `AiohttpTransport` with the same settings sends the rest: streams, uploads and downloads; unusual methods;
    requests with headers that define the framing; and all requests if there is a proxy, `trust_env`, a borrowed session
    or a fingerprint. It is created when it is first needed.

    Args:
        base_url: This and the other parameters: see `AiohttpTransport`.
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
        is_direct = session is None and not proxy and not trust_env
        super().__init__(
            base_url,
            auth=auth,
            headers=headers,
            version_headers=version_headers,
            versioned_paths=versioned_paths,
            query=query,
            request_timeout=request_timeout,
            proxy=proxy,
            is_direct=is_direct,
            max_body=max_body,
            trust=None,
        )
        self._make_inner: Callable[[], AiohttpTransport] = partial(
            AiohttpTransport,
            base_url,
            auth=self._auth,
            headers=headers,
            version_headers=version_headers,
            versioned_paths=versioned_paths,
            query=query,
            request_timeout=request_timeout,
            session=session,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            max_body=max_body,
            trust=self._trust,
        )
        self._inner: AiohttpTransport | None = None
        url = URL(self.base_url)
        self._host = url.host_port_subcomponent or ""
        self._prefix = url.raw_path.rstrip("/")
        self._constant_query = f"?{found}" if (found := url.with_query(self._query).raw_query_string) else ""
        self._closes_each = closes(self._own_headers.items())
        self._rendered: dict[int, tuple[CIMultiDict[str], bytes]] = {}
        self._emptied_at = 0  # the value of `trust.suspicions` when the pool was last emptied
        self._pools: PerLoop[Pool] | None = None  # None leaves all requests to aiohttp
        if is_direct and isinstance(ssl, ssl_module.SSLContext | bool) and _is_ours(self._own_headers):
            self._pools = PerLoop(lambda: Pool(Dialer(url, ssl), max_body), Pool.aclose)
        else:
            self._inner = self._make_inner()

    async def send(self, request: Request) -> Response:
        is_ours = not request.headers or _is_ours(name for name, _ in request.headers)
        if self._pools is None or request.method not in _METHODS or not is_ours or request.upload is not None:
            return await self._aiohttp().send(request)
        return await self._signed_by(request, self._send_signed)

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._aiohttp().stream(request)

    async def download(self, request: Request) -> Response | ByteStream:
        return await self._aiohttp().download(request)

    def _aiohttp(self) -> AiohttpTransport:
        if self._pools is not None:
            self._pools.check_open()
        if self._inner is None:
            self._inner = self._make_inner()
        return self._inner

    async def _send_signed(self, request: Request, signature: Headers) -> Response:
        if self._pools is None:  # does not happen: `send` has checked it
            return await self._aiohttp().send(request)
        pool = self._pools.get()
        data = self._bytes_of(request, signature)
        now = asyncio.get_running_loop().time
        began = now()
        seconds = self._seconds(request)
        deadline = math.inf if seconds is None else began + seconds
        is_read = request.method == "GET"
        is_plain = is_read and not request.headers and not self._closes_each
        is_last = False if is_plain else self._is_fresh(pool, request, began)
        connection: Connection | None = None
        try:
            if not is_last:
                if self._emptied_at != self._trust.suspicions:
                    self._emptied_at = self._trust.suspicions
                    pool.close_idle()
                connection = pool.take_idle(began, is_read=is_read)
            if connection is None:
                async with asyncio.timeout_at(None if seconds is None else deadline):
                    connection = await pool.take(fresh=is_last)
            waiter = pool.send(connection, data, deadline, is_last=is_last)
            try:
                status, headers, body, coding = await waiter
            except asyncio.CancelledError:
                connection.abandon(waiter)  # its answer may still arrive, so the connection is closed
                raise
            self._note_answer(connection, now(), is_last=is_last)
            if coding:
                body = await self._inflated(pool, connection, waiter.result())
        except BodyTooLarge as error:
            self._trust.answered(now())
            raise self._failures.too_large(request, error.status, error.headers, error.start, self._max_body) from None
        except (TimeoutError, OSError) as error:
            if connection is not None and connection.has_begun:
                self._trust.answered(now())
            lost = await self._failures.lost(request, error, began, left=connection is not None)
            raise lost from self._redactor.showable(error, request)
        return self._response(request, status, headers, body)

    def _is_fresh(self, pool: Pool, request: Request, now: float) -> bool:
        """Return whether a request must go over a new connection, which is used only once."""
        if self._closes_each or (request.headers and closes(request.headers)):
            return True
        return self._trust.wants_fresh(request.method, now, pool.has_idle)

    def _note_answer(self, connection: Connection, now: float, *, is_last: bool) -> None:
        self._trust.answered(now)
        if not is_last and not self._trust.keeps:
            self._trust.came_over_the_pool(now, is_reused=connection.uses > 1)

    async def _inflated(self, pool: Pool, connection: Connection, answer: RawAnswer) -> bytes:
        """Return the body of a compressed answer, decompressed, and return its connection to the pool."""
        status, headers, body, coding = answer
        try:
            if len(body) <= _INFLATED_AT_ONCE_BYTES:
                whole = inflate(coding, body, self._max_body)
            else:
                whole = await asyncio.to_thread(inflate, coding, body, self._max_body)
        except zlib.error as error:
            connection.close()
            raise NotHTTP(f"the body is not valid {coding}: {error}") from error
        except asyncio.CancelledError:
            connection.close()
            raise
        if len(whole) > self._max_body:
            connection.close()
            raise BodyTooLarge(status, headers, whole)
        pool.give_back(connection)
        return whole

    # The bytes of a request

    def _bytes_of(self, request: Request, signature: Headers) -> bytes:
        headers = self._headers(request, signature)
        rendered = self._rendered.get(id(headers))
        if rendered is not None and rendered[0] is headers:
            fields = rendered[1]
        else:
            fields = self._fields(headers)
            if request.body is None and not request.headers:  # this object is the same for the next request
                if len(self._rendered) >= _RENDERED_HEADS:
                    self._rendered.clear()
                self._rendered[id(headers)] = headers, fields  # keeping `headers` keeps its id unique
        line = f"{request.method} {self._target(request)} HTTP/1.1\r\n"
        if request.body is not None:
            return b"%bContent-Length: %d\r\n%b%b" % (line.encode(), len(request.body), fields, request.body)
        if request.method != "GET":
            line += "Content-Length: 0\r\n"
        return line.encode() + fields

    def _target(self, request: Request) -> str:
        if not request.query and _PLAIN_PATH.fullmatch(request.path):
            return self._prefix + request.path + self._constant_query
        return self._url(request).raw_path_qs

    def _fields(self, headers: CIMultiDict[str]) -> bytes:
        """Return headers as sent, with the empty line after them.

        Raises:
            ConfigurationError: One of them can't be sent.
        """
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if "Host" not in headers:
            lines.insert(0, f"Host: {self._host}")
        if "Accept-Encoding" not in headers:
            lines.append("Accept-Encoding: gzip, deflate")
        text = "\r\n".join(lines)
        breaks = len(lines) - 1  # one more would be within a value: an injected header
        if text.count("\r") != breaks or text.count("\n") != breaks or not text.isascii() or "\0" in text:
            for name, value in headers.items():
                check_header(name, value)
        return f"{text}\r\n\r\n".encode()

    async def aclose(self) -> None:
        if self._pools is not None:
            await self._pools.aclose()
        if self._inner is not None:
            await self._inner.aclose()


def _is_ours(names: Iterable[str]) -> bool:
    return _OF_FRAMING.isdisjoint(name.lower() for name in names)
