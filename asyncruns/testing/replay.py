"""Answers from a recording: a transport for tests of what happened on a bad day.

It must never make up an answer: a request that was not recorded raises, and the error says what was recorded.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import ConfigurationError
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
    written_query,
)
from asyncruns.testing.replayed import Piece, ReplayedStream, never_answered, replayed_error
from asyncruns.wire.secret_fields import without_secret_fields
from asyncruns.wire.shown_text import on_one_line

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
        redact: Called with the bodies of recorded requests and of those that are sent, before they are compared. It is
            the function that the recording was made with, or one that removes what differs from run to run, such as
            the time of day. Calling it again must change nothing.

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
            asked = exchange.request
            key = self._key(asked.how, asked.method, asked.path, asked.query, asked.upload, asked.content)
            self._queues[key].append(exchange)
            if asked.method == "GET":
                self._reads[asked.path].add(key)
            for path in _changed_by(asked):
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
        exchange = self._next(request, how)
        self._nonces.update(zip(nonces_of(exchange.request.content), nonces_of(request.body), strict=False))
        lines = exchange.rest
        first = lines[0] if lines else None
        if first is None or first.kind == "left":
            await never_answered(request)
        await _until(began, first)
        if first.kind == "error":
            raise replayed_error(first, request)
        content = with_nonces(first.content or b"", self._nonces)
        if first.kind == "answer":
            return Response(first.status, first.headers, content)
        return ReplayedStream(request, began, _with_length(first, lines[-1]), self._pieces(exchange, request))

    def _pieces(self, exchange: RecordedExchange, request: Request) -> list[Piece]:
        """Return the pieces of a stream or a download: bytes, and what ends them."""
        pieces: list[Piece] = []
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
                pieces.append((line.after or 0.0, replayed_error(line, request)))
            elif line.kind == "end":
                pieces.append((line.after or 0.0, b""))
        if exchange.rest[-1].kind not in ("end", "error"):
            pieces.append((math.inf, b""))
        return pieces

    # Which exchange it is

    def _next(self, request: Request, how: str) -> RecordedExchange:
        query, upload = written_query(request.query, str), size_of(request.upload)
        key = self._key(how, request.method, request.path, query, upload, request.body)
        queue = self._queues.get(key, deque())
        last = self._last.get(key) if request.method == "GET" else None
        if last is not None and (
            not queue or queue[0].number > min(self._changes.get(request.path, ()), default=math.inf)
        ):
            return last
        if not queue:
            raise UnexpectedRequestError(self._unexpected(key))
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

    def _key(
        self,
        how: str | None,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...],
        upload: UploadSize | None,
        body: bytes | None,
    ) -> _Key:
        """Return what is equal for requests that get the same answers."""
        if body is not None:
            body = without_secret_fields(body)
            body = body if self._redact is None else self._redact(body)
        return how, method, path, query, upload, comparable(body)

    def _unexpected(self, key: _Key) -> str:
        what = f"{key[1]} {key[2]}"
        if key in self._queues:
            return f"{what} is in {self._path}, but not so often: all recorded answers were given"
        for other, queue in self._queues.items():
            if queue and other[:3] == key[:3]:
                was, now = _text_of(other), _text_of(key)
                begin = max(_first_difference(was, now) - _SHOWN_BEFORE, 0)
                return (
                    f"{what} is in {self._path} with another query or body, in line {queue[0].place}.\n"
                    f"recorded: {_shown(was, begin)}\nnow:      {_shown(now, begin)}"
                )
        coming = self.left[:_SHOWN_REQUESTS]
        return f"{what} is not in {self._path}. " + (
            f"Expected next: {', '.join(coming)}" if coming else "All recorded requests were sent"
        )

    def __repr__(self) -> str:
        return f"<Replay {self._path}, {len(self._left)} requests left>"


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


def _text_of(key: _Key) -> str:
    query, upload, body = key[3:]
    parts = (dict(query), upload, body.decode("utf-8", "replace"))
    return on_one_line(" ".join(str(part) for part in parts if part)) or "no body"


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _shown(text: str, begin: int) -> str:
    """Return what of a text is shown: from shortly before the first difference."""
    shown = text[begin : begin + _SHOWN_CHARACTERS]
    return f"{'...' if begin else ''}{shown}{'...' if begin + _SHOWN_CHARACTERS < len(text) else ''}"
