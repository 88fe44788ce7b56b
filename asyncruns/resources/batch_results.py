"""Fetches the results of batches, and the requests of a batch, line by line; no file is held.

A connection that breaks is taken up again where it broke: see `file_content.py`. Results may appear later than the end
of their batch: a file that is not there yet, or is empty, is read again, after pauses of 15.5 s in all; so is one that
has fewer results than the counts say, if the batch ended less than a minute ago. Then what is there counts.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Final, TypeVar

import anyio
from msgspec import Struct, field
from multidict import CIMultiDict

from asyncruns.abc import Dialect
from asyncruns.dialects.batches import BatchDialect
from asyncruns.dialects.errors import bad_answer
from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.dialects.request_lines import request_in
from asyncruns.dialects.result_lines import BatchResult, read_result
from asyncruns.errors import APIError, BadRequestError, InvalidRequestError, NotFoundError
from asyncruns.http import Request, Response, join_path, server_time
from asyncruns.lifecycle import RunRef
from asyncruns.resources.base import Server
from asyncruns.resources.file_content import FileContent, open_content
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.wire import Batch, MessageBatch, status_names
from asyncruns.wire.shown_text import on_one_line

B = TypeVar("B", Batch, MessageBatch)

RESULT_LAG_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
FILLED_WITHIN_S: Final = 60.0  # after the end of the batch; a result that is missing later was lost by the server
LINES_AT_ONCE: Final = 256

_DIALECT: Final = BatchDialect()


async def batch_results(
    server: Server, batch: Batch | str, options: CallOptions | None = None
) -> AsyncGenerator[BatchResult]:
    """Yield the results of a batch: those in its output file, then those in its error file.

    A batch that failed has none. One that expired or was cancelled has the results of the requests that had ended.

    Args:
        server: The server.
        batch: The batch, or its id.
        options: The options of each request.

    Raises:
        InvalidRequestError: The batch has not ended.
        NotFoundError: There is no such batch, or one of its files is gone.
        APIError: The server did not answer.
    """
    found = await _ended(server, _DIALECT, batch, options)
    files: dict[str, ResultFile] = {}
    pauses = iter(RESULT_LAG_PAUSES_S)
    while True:
        for file_id in _files_of(found):
            path = join_path("files", file_id, "content")
            file = files.setdefault(file_id, ResultFile(make_request("GET", path, None, None, options), file_id))
            if file.was_read and not _may_be_filled(_DIALECT, found, [file]):
                continue  # only another file is waited for
            async with aclosing(file.read(server, pauses)) as results:
                async for result in results:
                    yield result
        is_all = _seen_in(files.values()) >= _expected(found)
        may_come = _lacks_a_file(found) or _may_be_filled(_DIALECT, found, files.values())
        pause = next(pauses, None) if may_come and not is_all else None
        if pause is None:
            break
        await anyio.sleep(pause)
        try:
            found = await _retrieved(server, _DIALECT, found.id, options)
        except APIError:
            if not files:
                raise
    for file in files.values():
        if file.cut is not None:
            yield file.cut


async def message_batch_results(
    server: Server, batch: MessageBatch | str, options: CallOptions | None = None
) -> AsyncGenerator[BatchResult]:
    """Yield the results of a message batch; see `batch_results`.

    Raises:
        InvalidRequestError: The batch has not ended.
        NotFoundError: There is no such batch, or its results are gone.
        APIError: The server did not answer.
    """
    dialect = MessageBatchDialect()
    found = await _ended(server, dialect, batch, options)
    # The path, not `results_url`: a URL that a server sends must not choose where the key goes.
    request = make_request("GET", join_path("messages", "batches", found.id, "results"), None, None, options)
    file = ResultFile(request, f"results of {found.id}", lambda: _retrieved(server, dialect, found.id, options))
    pauses = iter(RESULT_LAG_PAUSES_S)
    while True:
        async with aclosing(file.read(server, pauses)) as results:
            async for result in results:
                yield result
        is_all = file.seen >= _ended_requests(found)
        pause = next(pauses, None) if not is_all and _may_be_filled(dialect, found, [file]) else None
        if pause is None:
            break
        await anyio.sleep(pause)
    if file.cut is not None:
        yield file.cut


def no_requests(server: Server, batch: MessageBatch | str) -> AsyncGenerator[tuple[str, Any]]:
    """Raise InvalidRequestError: a server keeps no requests of a message batch that could be read."""
    raise InvalidRequestError(
        "The requests of a message batch can't be read from the server: pass them, as in outcome.unanswered(requests)"
    )


async def batch_requests(server: Server, batch: Batch | str) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """Yield the requests in the input file of a batch, as pairs of custom id and body.

    Raises:
        InvalidRequestError: A line of the file is no request, or the batch names no file.
        NotFoundError: There is no such batch, or the file is gone.
        APIError: The server did not answer.
    """
    found = batch if isinstance(batch, Batch) else await _retrieved(server, _DIALECT, batch, None)
    if not found.input_file_id:
        raise InvalidRequestError(on_one_line(f"The batch {found.id} names no input file: pass the requests"))
    async with aclosing(file_requests(server, found.input_file_id)) as requests:
        async for request in requests:
            yield request


async def file_requests(server: Server, file_id: str) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """Yield the requests in a file, as pairs of custom id and body.

    Raises:
        InvalidRequestError: A line is no request.
        NotFoundError: There is no such file.
        APIError: The server did not answer.
    """
    try:
        content = await open_content(server, Request("GET", join_path("files", file_id, "content")))
    except NotFoundError as error:
        raise error._extend("To go on without the file, pass the requests, as in outcome.unanswered(requests).") from (
            error.__cause__
        )
    async with aclosing(_lines_of(content)) as lines:
        async for number, line in lines:
            yield request_in(line, on_one_line(f"{file_id}, line {number},"))


class ResultFile(Struct):
    """A file of results, which may not be there yet, or be filled while it is read.

    Attributes:
        request: The request for its content.
        name: What messages call it.
        check: Called if the content is not there; raises NotFoundError if its batch is gone as well.
        seen: Number of results that were yielded.
        yielded: The custom ids of these, by which they are told apart when the content is read again.
        cut: The result for the last line, if that could not be read: it may not be complete yet.
        read_at: When it was read last, in seconds since the epoch, by the server's clock; 0.0 if it was not.
        was_read: Whether it was read to its end.
    """

    request: Request
    name: str
    check: Callable[[], Awaitable[object]] | None = None
    seen: int = 0
    yielded: Counter[str] = field(default_factory=lambda: Counter[str]())
    cut: BatchResult | None = None
    read_at: float = 0.0
    was_read: bool = False

    async def read(self, server: Server, pauses: Iterator[float]) -> AsyncGenerator[BatchResult]:
        """Yield the results that were not yielded before.

        Args:
            server: The server.
            pauses: The pauses for which a content that is not there may be waited for.

        Raises:
            APIError: The content could not be fetched; not raised if it was read to its end before.
        """
        last = self.cut
        try:
            async with aclosing(self._unread(server, pauses)) as results:
                async for result in results:
                    yield result
        except APIError:
            if not self.was_read:
                raise
            self.cut = self.cut or last
        self.was_read = True

    async def _unread(self, server: Server, pauses: Iterator[float]) -> AsyncGenerator[BatchResult]:
        content = await self._opened(server, pauses)
        self.read_at = server_time(content.headers) or time.time()
        replays = -1
        repeated: Counter[str] = Counter()
        async with aclosing(_lines_of(content)) as lines:
            async for number, line in lines:
                if content.replays != replays:
                    replays, repeated, self.cut = content.replays, self.yielded.copy(), None
                    _check_is_no_page(self.request, content, line)
                # What could not be read is complete if another line follows it.
                cut, self.cut = self.cut, None
                if cut is not None and self._takes(cut, repeated):
                    yield cut
                result = read_result(line, f"{self.name}, line {number},")
                if not result.custom_id:
                    self.cut = result
                elif self._takes(result, repeated):
                    yield result

    def _takes(self, result: BatchResult, repeated: Counter[str]) -> bool:
        """Return whether a result was not yielded before."""
        if repeated[result.custom_id]:
            repeated[result.custom_id] -= 1
            return False
        self.yielded[result.custom_id] += 1
        self.seen += 1
        return True

    async def _opened(self, server: Server, pauses: Iterator[float]) -> FileContent:
        while True:
            try:
                return await open_content(server, self.request, is_replayed=True)
            except (NotFoundError, BadRequestError):  # 400: the batch has ended, but its results say that it has not
                if self.check is not None:
                    await self.check()
                if (pause := next(pauses, None)) is None:
                    raise
            await anyio.sleep(pause)


def _check_is_no_page(request: Request, content: FileContent, line: bytes) -> None:
    """Check that a content does not begin like a page of HTML.

    Args:
        request: The request.
        content: The content.
        line: Its first line that is not blank.

    Raises:
        APIResponseValidationError: It does: a proxy answered in place of the server.
    """
    is_page = content.headers.get("content-type", "").lower().startswith("text/html")
    if line.startswith(b"<") or (is_page and not line.startswith(b"{")):
        answer = Response(200, CIMultiDict({"content-type": "text/html"}), line, redact=content.redact)
        raise bad_answer(request, answer, ValueError("a page in place of results"))


async def _lines_of(content: FileContent) -> AsyncGenerator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1, and close the content."""
    number = replays = 0
    async with content:
        async for line in content.lines():
            number = number + 1 if content.replays == replays else 1
            replays = content.replays
            if stripped := (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                yield number, stripped
            if number % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)  # lines that have arrived already are read without a pause


async def _ended(server: Server, dialect: Dialect[B], batch: B | str, options: CallOptions | None) -> B:
    """Return a batch, which is fetched unless it is known to have ended.

    Raises:
        InvalidRequestError: It has not ended.
    """
    if not isinstance(batch, str) and dialect.snapshot(batch).phase.is_terminal:
        return batch
    found = await _retrieved(server, dialect, batch if isinstance(batch, str) else batch.id, options)
    snapshot = dialect.snapshot(found)
    if not snapshot.phase.is_terminal:
        state = on_one_line(f"The batch {found.id} is {snapshot.status}")
        raise InvalidRequestError(f"{state}: it has results when it has ended, so watch it first")
    return found


async def _retrieved(server: Server, dialect: Dialect[B], batch_id: str, options: CallOptions | None) -> B:
    path = dialect.poll(RunRef(dialect.name, (batch_id,))).path
    request = make_request("GET", path, None, None, options)
    response = await server.transport.send(request)
    if not 200 <= response.status < 300:
        raise dialect.refusal(request, response).cause
    return dialect.read(request, response).resource


def _files_of(batch: Batch) -> Iterator[str]:
    """Yield the ids of its files; some servers send "" for none, or name one file twice."""
    yield from dict.fromkeys(found for found in (batch.output_file_id, batch.error_file_id) if found)


def _lacks_a_file(batch: Batch) -> bool:
    """Return whether a batch has counts of results, and no file for them."""
    counts = batch.request_counts
    if not counts:
        return False
    has_errors = counts.failed or batch.status == status_names.EXPIRED
    return bool((counts.completed and not batch.output_file_id) or (has_errors and not batch.error_file_id))


def _may_be_filled(dialect: Dialect[B], batch: B, files: Iterable[ResultFile]) -> bool:
    """Return whether a file is empty, or the batch may have ended too recently for its files to be complete."""
    ended_at = dialect.snapshot(batch).ended_at
    return any(not file.seen or ended_at is None or file.read_at - ended_at < FILLED_WITHIN_S for file in files)


def _seen_in(files: Iterable[ResultFile]) -> int:
    return sum(file.seen for file in files)


def _expected(batch: Batch) -> int:
    """Return how many results there are by the counts of a batch."""
    counts = batch.request_counts
    if batch.status == status_names.FAILED or not counts:
        return 0
    ended = (counts.completed or 0) + (counts.failed or 0)
    # The requests that were not executed in time are in the error file, too.
    return (counts.total or 0) if batch.status == status_names.EXPIRED else ended


def _ended_requests(batch: MessageBatch) -> int:
    """Return how many results there are by the counts of a message batch: a request of every kind has one."""
    counts = batch.request_counts
    if not counts:
        return 0
    kinds = (counts.succeeded, counts.errored, counts.canceled, counts.expired)
    return sum(each for each in kinds if each)
