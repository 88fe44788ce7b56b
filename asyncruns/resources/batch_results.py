"""Fetches the results of batches, and the requests of a batch, line by line; no file is held.

A connection that breaks is taken up again where it broke: see `file_content.py`. Results may appear later than the end
of their batch: a file that is not there yet is waited for, for at most 15.5 s; then what is there counts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final, TypeVar

import anyio

from asyncruns.abc import Dialect
from asyncruns.dialects.batches import BatchDialect
from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.dialects.request_lines import request_in
from asyncruns.dialects.result_lines import BatchResult, read_result
from asyncruns.errors import BadRequestError, InvalidRequestError, NotFoundError
from asyncruns.http import Request, join_path
from asyncruns.lifecycle import RunRef
from asyncruns.resources.base import Server
from asyncruns.resources.file_content import FileContent, open_content
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.wire import Batch, MessageBatch, status_names
from asyncruns.wire.shown_text import on_one_line

B = TypeVar("B", Batch, MessageBatch)

RESULT_LAG_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)

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
    read: set[str] = set()
    seen = 0
    for pause in (*RESULT_LAG_PAUSES_S, None):
        for file_id in _files_of(found):
            if file_id in read:
                continue
            read.add(file_id)
            request = make_request("GET", join_path("files", file_id, "content"), None, None, options)
            async with aclosing(_results_in(server, request, file_id)) as results:
                async for result in results:
                    seen += 1
                    yield result
        if pause is None or not _lacks_a_file(found, seen):
            return
        await anyio.sleep(pause)
        found = await _retrieved(server, _DIALECT, found.id, options)


async def message_batch_results(
    server: Server, batch: MessageBatch | str, options: CallOptions | None = None
) -> AsyncGenerator[BatchResult]:
    """Yield the results of a message batch; see `batch_results`.

    Raises:
        InvalidRequestError: The batch has not ended.
        NotFoundError: There is no such batch, or its results are gone.
        APIError: The server did not answer.
    """
    found = await _ended(server, MessageBatchDialect(), batch, options)
    # The path, not `results_url`: a URL that a server sends must not choose where the key goes.
    request = make_request("GET", join_path("messages", "batches", found.id, "results"), None, None, options)
    async with aclosing(_results_in(server, request, f"results of {found.id}")) as results:
        async for result in results:
            yield result


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
        raise InvalidRequestError(f"The batch {found.id} names no input file: pass the requests")
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


async def _results_in(server: Server, request: Request, name: str) -> AsyncGenerator[BatchResult]:
    """Yield the results in a file, which may not be there yet."""
    async with aclosing(_lines_of(await _opened(server, request))) as lines:
        async for number, line in lines:
            yield read_result(line, f"{name}, line {number},")


async def _opened(server: Server, request: Request) -> FileContent:
    for pause in RESULT_LAG_PAUSES_S:
        try:
            return await open_content(server, request)
        except (NotFoundError, BadRequestError):  # 400: the batch has ended, but its results say that it has not
            await anyio.sleep(pause)
    return await open_content(server, request)


async def _lines_of(content: FileContent) -> AsyncGenerator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1, and close the content."""
    number = 0
    async with content:
        async for line in content.lines():
            number += 1
            if stripped := line.strip():
                yield number, stripped


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


def _lacks_a_file(batch: Batch, seen: int) -> bool:
    """Return whether a file has to appear yet: by the counts there are more results than were seen."""
    counts = batch.request_counts
    if batch.status == status_names.FAILED or not counts or (batch.output_file_id and batch.error_file_id):
        return False
    ended = (counts.completed or 0) + (counts.failed or 0)
    # The requests that were not executed in time are in the error file, too.
    return seen < ((counts.total or 0) if batch.status == status_names.EXPIRED else ended)
