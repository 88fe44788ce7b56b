"""Requests are written to a temporary file, cut into parts, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncruns.errors import InvalidRequestError
from asyncruns.resources import request_files
from asyncruns.resources.request_files import FilePart, Section, WrittenRequests, written

ENDPOINT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def bodies(count: int, **more: Any) -> Iterator[dict[str, Any]]:
    return ({"model": "m", "input": f"Question {number}", **more} for number in range(count))


async def read(found: WrittenRequests, part: FilePart) -> bytes:
    return await asyncio.to_thread(found.content_of(part).read)


async def test_what_was_written_is_read_again() -> None:
    async with written(bodies(3000), ENDPOINT, None) as found:
        (part,) = found.parts
        lines = (await read(found, part)).splitlines()
        assert (await read(found, part)).splitlines() == lines
    assert part.requests == len(lines) == 3000
    assert json.loads(lines[-1]) == {
        "custom_id": "request-3000", "method": "POST", "url": ENDPOINT, "body": {"model": "m", "input": "Question 2999"}
    }  # fmt: skip


async def test_an_async_iterable_is_written_and_closed() -> None:
    closed = []

    async def requests() -> AsyncIterator[Any]:
        try:
            for body in bodies(3):
                await asyncio.sleep(1.0)
                yield body
        finally:
            closed.append(True)

    async with written(requests(), ENDPOINT, None) as found:
        assert [part.requests for part in found.parts] == [3]
    assert closed


async def test_50001_requests_are_two_parts() -> None:
    async with written(bodies(50_001), ENDPOINT, None) as found:
        assert [part.requests for part in found.parts] == [50_000, 1]
        assert json.loads(await read(found, found.parts[1]))["custom_id"] == "request-50001"


async def test_a_part_has_at_most_the_bytes_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_files, "MOST_BYTES_OF_FILE", 1000)
    async with written(bodies(50), ENDPOINT, None) as found:
        assert len(found.parts) > 1
        assert all(part.size <= 1000 for part in found.parts)
        everything = b"".join([await read(found, part) for part in found.parts])
        assert len(everything.splitlines()) == 50
    with pytest.raises(InvalidRequestError, match=r"Request 2 has .* bytes"):
        async with written([*bodies(1), *bodies(1, user="x" * 1000)], ENDPOINT, None):
            pass


async def test_a_part_may_be_full_to_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async with written(bodies(9), ENDPOINT, None) as found:
        (part,) = found.parts
        monkeypatch.setattr(request_files, "MOST_BYTES_OF_FILE", part.size)
    async with written(bodies(9), ENDPOINT, None) as found:
        assert [part.requests for part in found.parts] == [9]


async def test_a_part_has_at_most_the_tokens_that_may_be_enqueued() -> None:
    async with written(bodies(10, max_output_tokens=90), ENDPOINT, 300) as found:
        assert [part.requests for part in found.parts] == [2, 2, 2, 2, 2]
        assert all(part.tokens <= 300 for part in found.parts)
    with pytest.raises(InvalidRequestError, match=r"Request 1 has some .* tokens, more than max_enqueued_tokens=50"):
        async with written(bodies(1, max_output_tokens=90), ENDPOINT, 50):
            pass


@pytest.mark.parametrize("requests", [[], iter(()), "text", b"bytes", {"model": "m"}, None, [{"stream": True}]])
async def test_bad_requests_are_refused(requests: Any) -> None:
    with pytest.raises(InvalidRequestError):
        async with written(requests, ENDPOINT, None):
            pass


async def test_what_the_iterable_raises_is_raised() -> None:
    def requests() -> Iterator[Any]:
        yield from bodies(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with written(requests(), ENDPOINT, None):
            pass


async def test_a_caller_that_is_cancelled_leaves_no_file() -> None:
    async def endless() -> AsyncIterator[Any]:
        for body in bodies(10**9):
            await asyncio.sleep(1.0)
            yield body

    async def write() -> None:
        async with written(endless(), ENDPOINT, None):
            pass

    task = asyncio.create_task(write())
    await asyncio.sleep(100.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_section_is_a_file_of_its_own() -> None:
    section = Section(io.BytesIO(b"0123456789"), 3, 4)
    assert section.read() == b"3456"
    assert section.read() == b""
    assert section.seek(-2, io.SEEK_END) == 2
    assert section.read(1) == b"5"
    assert (section.seek(0, io.SEEK_CUR), section.seek(1), section.tell()) == (3, 1, 1)
    assert section.read() == b"456"
