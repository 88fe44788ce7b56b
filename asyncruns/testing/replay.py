"""Answers from a recording: a transport for tests of what happened on a bad day.

It must never make up an answer: a request that was not recorded raises, and the error says what was recorded.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigurationError,
    InvalidRequestError,
)
from asyncruns.http import Request, Response
from asyncruns.testing.recording import (
    RecordedLine,
    Redact,
    UploadSize,
    comparable,
    lines_of,
    nonces_of,
    size_of,
    with_nonces,
    without_secret_fields,
    written_query,
)
from asyncruns.wire.shown_text import on_one_line

_PATIENCE_S: Final = 30.0  # of a request without a timeout of its own that is never answered
_SHOWN_CHARACTERS: Final = 400
_SHOWN_BEFORE: Final = 40
_SHOWN_REQUESTS: Final = 5

_Key = tuple[str | None, str, str, tuple[tuple[str, str], ...], UploadSize | None, bytes]


class UnexpectedRequestError(AssertionError):
    """A request that is not in the recording, or not so often; the message says what is.

    It is raised by what sent the request. A fleet goes on, as after any unexpected error: it is the `cause` of an
    outcome `GaveUp`.
    """


class RecordedExchange(Struct, kw_only=True):
    """A request of a recording, with the lines that say what came of it.

    Attributes:
        number: The number of the exchange: requests in the order in which they were sent.
        place: The number of its line.
    """

    number: int
    place: int
    request: RecordedLine
    rest: list[RecordedLine] = []

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.path} (line {self.place})"


class Replay(Transport):
    """A transport that answers from a file of a `Recorder`, with the recorded delays.

    On a `VirtualTimeLoop` the delays take no time::

        async with Client(transport=Replay("day.jsonl")) as client:
            outcome = await client.run(assistant_id="asst_1", message="Hello?", tools=tools)

    An answer belongs to a request of the same method, path, query and body; the order of keys in JSON does not matter.
    Equal requests get their answers in the recorded order. The random texts by which a client finds what it created are
    replaced, in the answers, by those of this client. Errors and broken streams come as they were recorded. A request
    whose caller had left, and one that a death of the process cut off, is not answered until its timeout.

    A GET may be repeated: after the last recorded answer it gets that one again. As long as a change that was recorded
    below its path, such as a submit to the run, has not been sent, it gets no answer from after that change; when that
    is sent, answers from before are over. So tools may be faster or slower than they were.

    Args:
        path: The file.
        redact: The function that the recording was made with. It is called with the body of each request, before that
            is compared; so it may also remove what differs from run to run, such as the time of day.

    Raises:
        ConfigurationError: The file is not a recording, or of a newer format; the message has the line.
        OSError: The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, redact: Redact | None = None) -> None:
        self._path = os.fspath(path)
        self._redact = redact
        self._left: dict[int, RecordedExchange] = {}
        self._queues: dict[_Key, deque[RecordedExchange]] = defaultdict(deque)
        self._last: dict[_Key, RecordedExchange] = {}
        self._reads: dict[str, set[_Key]] = defaultdict(set)  # the keys of reads, by their paths
        self._changes: dict[str, set[int]] = defaultdict(set)  # by the paths above them: the numbers of those to come
        self._nonces: dict[bytes, bytes] = {}
        for exchange in _exchanges_of(self._path):
            self._left[exchange.number] = exchange
            key = _key_of(exchange)
            self._queues[key].append(exchange)
            if exchange.request.method == "GET":
                self._reads[exchange.request.path].add(key)
            for path in _changed_by(exchange.request):
                self._changes[path].add(exchange.number)

    @property
    def left(self) -> list[str]:
        """The recorded requests that were not sent yet, in order, as `POST /threads (line 2)`.

        Polls may be among them: how often a run is polled is in part random.
        """
        return [str(exchange) for exchange in self._left.values()]

    async def send(self, request: Request) -> Response:
        answer = await self._answer(request, "send")
        if isinstance(answer, Response):
            return answer
        raise ConfigurationError(f"{self._path} has a stream where {request.method} {request.path} takes none")

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._answer(request, "stream")

    async def download(self, request: Request) -> Response | ByteStream:
        return await self._answer(request, "download")

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    async def _answer(self, request: Request, how: str) -> Response | ByteStream:
        began = loop_time()
        body = request.body
        if body is not None:
            body = without_secret_fields(body)
            body = body if self._redact is None else self._redact(body)
        exchange = self._next(request, how, body)
        self._nonces.update(zip(nonces_of(exchange.request.content), nonces_of(body), strict=False))
        lines = exchange.rest
        first = lines[0] if lines else None
        if first is None or first.kind == "left":
            await anyio.sleep(_patience(request))
            raise _unanswered(request)
        await _until(began, first)
        if first.kind == "error":
            raise _error_of(first, request)
        content = with_nonces(first.content or b"", self._nonces)
        if first.kind == "answer":
            return Response(first.status, first.headers, content)
        return _ReplayedStream(request, began, _with_length(first, lines[-1]), self._pieces(exchange, request))

    def _pieces(self, exchange: RecordedExchange, request: Request) -> list[_Piece]:
        """Return the pieces of a stream or a download: bytes, and what ends them."""
        pieces: list[_Piece] = []
        for line in exchange.rest[1:]:
            content = line.content
            if line.size and content is None:
                raise UnexpectedRequestError(
                    f"{exchange} in {self._path} is a download of {line.size} bytes, too many to be recorded, so it "
                    "can't be replayed"
                )
            if content:
                pieces.append((line.after or 0.0, with_nonces(content, self._nonces)))
            if line.kind == "error":
                pieces.append((line.after or 0.0, _error_of(line, request)))
            elif line.kind == "end":
                pieces.append((line.after or 0.0, b""))
        if exchange.rest[-1].kind not in ("end", "error"):
            pieces.append((math.inf, b""))
        return pieces

    # Which exchange it is

    def _next(self, request: Request, how: str, body: bytes | None) -> RecordedExchange:
        query = written_query(request.query, str)
        key: _Key = (how, request.method, request.path, query, size_of(request.upload), comparable(body))
        queue = self._queues.get(key, deque())
        coming = min(self._changes.get(request.path, ()), default=math.inf)
        last = self._last.get(key) if request.method == "GET" else None
        if last is not None and (not queue or queue[0].number > coming):
            return last
        if not queue:
            raise UnexpectedRequestError(self._unexpected(request, how, body, is_known=key in self._queues))
        found = self._last[key] = queue.popleft()
        del self._left[found.number]
        self._note_change(found)
        return found

    def _note_change(self, change: RecordedExchange) -> None:
        """Skip the answers to reads that were sent before a change that is sent now."""
        for path in _changed_by(change.request):
            self._changes[path].discard(change.number)
            for key in self._reads.get(path, ()):
                queue = self._queues[key]
                while queue and queue[0].number < change.number:
                    self._last[key] = queue.popleft()
                    del self._left[self._last[key].number]

    def _unexpected(self, request: Request, how: str, body: bytes | None, *, is_known: bool) -> str:
        what = f"{request.method} {request.path}"
        if is_known:
            return f"{what} is in {self._path}, but not so often: all recorded answers were given"
        for exchange in self._left.values():
            asked = exchange.request
            if (asked.how, asked.method, asked.path) == (how, request.method, request.path):
                was = _text_of(dict(asked.query), asked.upload, asked.content)
                now = _text_of(dict(request.query), size_of(request.upload), body)
                begin = max(_first_difference(was, now) - _SHOWN_BEFORE, 0)
                return (
                    f"{what} is in {self._path} with another query or body, in line {exchange.place}.\n"
                    f"recorded: {_shown(was, begin)}\nnow:      {_shown(now, begin)}"
                )
        coming = self.left[:_SHOWN_REQUESTS]
        return f"{what} is not in {self._path}. " + (
            f"Expected next: {', '.join(coming)}" if coming else "All recorded requests were sent"
        )

    def __repr__(self) -> str:
        return f"<Replay {self._path}, {len(self._left)} requests left>"


_Piece = tuple[float, bytes | BaseException]


class _ReplayedStream(ByteStream):
    """The recorded pieces of a body, each at its time."""

    def __init__(self, request: Request, began: float, opened: RecordedLine, pieces: list[_Piece]) -> None:
        self.status = opened.status
        self.headers = opened.headers
        self._request = request
        self._began = began
        self._pieces = pieces

    async def read(self) -> bytes:
        if not self._pieces:
            return b""
        after, piece = self._pieces[0]
        if after == math.inf:
            await anyio.sleep(_patience(self._request))
            self._pieces = []
            raise _unanswered(self._request)
        await anyio.sleep(max(self._began + after - loop_time(), 0.0))
        del self._pieces[:1]
        if isinstance(piece, bytes):
            return piece
        self._pieces = []
        raise piece

    async def aclose(self) -> None:
        self._pieces = []


def _exchanges_of(path: str) -> list[RecordedExchange]:
    found: dict[int, RecordedExchange] = {}
    for place, line in lines_of(path):
        if line.kind == "request":
            found[line.n] = RecordedExchange(number=line.n, place=place, request=line)
        elif line.n in found:
            found[line.n].rest.append(line)
        else:
            raise ConfigurationError(f"{path}, line {place}, belongs to exchange {line.n}, which has no request")
    return list(found.values())


def _key_of(exchange: RecordedExchange) -> _Key:
    asked = exchange.request
    return asked.how, asked.method, asked.path, asked.query, asked.upload, comparable(asked.content)


def _changed_by(request: RecordedLine) -> Iterator[str]:
    """Yield the path of a change, and those above it: what reads of these show may be changed by it."""
    path = request.path if request.method != "GET" else ""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _with_length(opened: RecordedLine, end: RecordedLine) -> RecordedLine:
    """Return the beginning of a download that was read whole, with the length that `redact` has left."""
    if end.kind != "end" or end.content is None or "content-length" not in opened.headers:
        return opened
    return replace(opened, headers={**opened.headers, "content-length": str(len(end.content))})


async def _until(began: float, line: RecordedLine) -> None:
    await anyio.sleep(max(began + (line.after or 0.0) - loop_time(), 0.0))


def _patience(request: Request) -> float:
    return _PATIENCE_S if request.timeout is None else request.timeout


def _unanswered(request: Request) -> APITimeoutError:
    message = f"{request.method} {request.path} got no answer in the recording: its caller left, or the process died"
    return APITimeoutError(message, sent=True, method=request.method, path=request.path)


def _error_of(line: RecordedLine, request: Request) -> Exception:
    make = _ERRORS.get(line.error)
    if make is None:
        return RuntimeError(f"{line.error} in the recording, at {request.method} {request.path}. {line.message}")
    return make(line, request)


def _lost(kind: type[APIConnectionError]) -> Callable[[RecordedLine, Request], Exception]:
    return lambda line, request: kind(
        line.message, sent=bool(line.sent), passes=line.passes, method=request.method, path=request.path
    )


def _invalid(line: RecordedLine, request: Request) -> APIError:
    return APIResponseValidationError(
        line.message,
        status=line.status,
        body=line.content or b"",
        request_id=line.request_id,
        method=request.method,
        path=request.path,
    )


_ERRORS: Final[Mapping[str, Callable[[RecordedLine, Request], Exception]]] = {
    "APIConnectionError": _lost(APIConnectionError),
    "APITimeoutError": _lost(APITimeoutError),
    "APIResponseValidationError": _invalid,
    "ConfigurationError": lambda line, request: ConfigurationError(line.message),
    "InvalidRequestError": lambda line, request: InvalidRequestError(line.message),
}


def _text_of(query: Mapping[str, str], upload: object, body: bytes | None) -> str:
    parts = (query, upload, comparable(body).decode("utf-8", "replace"))
    return on_one_line(" ".join(str(part) for part in parts if part)) or "no body"


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _shown(text: str, begin: int) -> str:
    """Return what of a text is shown: from shortly before the first difference."""
    shown = text[begin : begin + _SHOWN_CHARACTERS]
    return f"{'...' if begin else ''}{shown}{'...' if begin + _SHOWN_CHARACTERS < len(text) else ''}"
