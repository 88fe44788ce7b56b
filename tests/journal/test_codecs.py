"""A codec encrypts or drops what a journal keeps of its caller's content; a wrong key shows none of it."""

from __future__ import annotations

import re
import traceback
import zlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from asyncruns import JournalError, RunRef, SQLiteJournal
from asyncruns.abc import Codec
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.testing import check_journal

REF = RunRef("thread_run", ("thread_1", "run_1"))
WATCH = WatchRecord(key="w", ref=REF, refs=(REF,), label={"of": "a secret of ours"}, toolset="tools")
CALL = CallRecord(key="1", call_id="call_1", output="a secret of ours é", failed=True)
OUTCOME = {"outcome": "Completed", "text": "a secret of ours"}


class Scrambled:
    """Compresses, and hides nothing from anybody but `grep`."""

    def __init__(self, key: int = 0x5A) -> None:
        self._key = key

    def encode(self, content: bytes) -> bytes | None:
        return bytes(byte ^ self._key for byte in zlib.compress(content))

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(bytes(byte ^ self._key for byte in data))


class Shifted:
    """Does not notice a wrong key."""

    def __init__(self, key: int) -> None:
        self._key = key

    def encode(self, content: bytes) -> bytes | None:
        return bytes(byte ^ self._key for byte in content)

    def decode(self, data: bytes) -> bytes:
        return bytes(byte ^ self._key for byte in data)


class Dropping:
    def encode(self, content: bytes) -> bytes | None:
        return None

    def decode(self, data: bytes) -> bytes:
        raise AssertionError


class Failing:
    """Raises what it was given, or returns something else than bytes."""

    def __init__(self, returns: object = None) -> None:
        self._returns = returns

    def encode(self, content: bytes) -> bytes | None:
        return self._result(content)

    def decode(self, data: bytes) -> bytes:
        return self._result(data)

    def _result(self, content: bytes) -> bytes:
        if self._returns is None:
            raise ValueError(content)
        return self._returns  # type: ignore[return-value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def write(path: Path, codec: Codec | None) -> None:
    async with SQLiteJournal(path, codec=codec) as journal:
        assert (await journal.add([WATCH]))[0].ref == REF
        await journal.begin("w", [CallRecord(key="1", call_id="call_1")])
        await journal.answered("w", [CALL])
        await journal.finished({"w": OUTCOME})
        await journal.submitting("w", ["1"])


async def claimed(path: Path, codec: Codec | None) -> list[WatchRecord]:
    async with SQLiteJournal(path, codec=codec) as journal:
        return await journal.claim()


WHOLE = replace(WATCH, calls=(CALL,), outcome=OUTCOME, submitting=("1",))


async def test_a_journal_with_a_codec_keeps_the_promises(path: Path) -> None:
    await check_journal(lambda: SQLiteJournal(path, codec=Scrambled()))


async def test_no_content_is_in_the_files(path: Path) -> None:
    async with SQLiteJournal(path, codec=Scrambled()) as journal:
        await write(path, Scrambled())
        files = [file for file in path.parent.iterdir() if file.is_file()]
        assert len(files) == 3
        assert [file.name for file in files if b"a secret" in file.read_bytes()] == []
        assert await journal.claim() == [WHOLE]


async def test_content_that_was_dropped_is_as_if_it_had_not_been_written(path: Path) -> None:
    await write(path, Dropping())
    call = CallRecord(key="1", call_id="call_1")
    assert await claimed(path, Dropping()) == [replace(WHOLE, label=None, calls=(call,), outcome=None)]


async def test_an_outcome_that_is_dropped_takes_the_place_of_an_earlier_one(path: Path) -> None:
    await write(path, None)
    async with SQLiteJournal(path, codec=Dropping()) as journal:
        await journal.claim()
        await journal.finished({"w": {"outcome": "Failed"}})
    assert await claimed(path, None) == [replace(WHOLE, outcome=None)]


async def test_a_codec_reads_what_was_written_without_one(path: Path) -> None:
    await write(path, None)
    assert await claimed(path, Scrambled()) == [WHOLE]


@pytest.mark.parametrize(
    ("wrote", "reads", "words"),
    [
        (Scrambled(1), Scrambled(2), "cannot decode the .* of watch 'w': it raised a error; open the journal with"),
        (Shifted(1), Shifted(2), "cannot decode the .* of watch 'w': it returned something else than was encoded"),
        (Shifted(1), Shifted(200), "cannot decode the .* of watch 'w': it returned something else than was encoded"),
        (Scrambled(1), None, "The .* of watch 'w' was written with a codec: open the journal with the same codec="),
        (Scrambled(1), Failing(), "cannot decode the .* of watch 'w': it raised a ValueError"),
        (Scrambled(1), Failing("text"), "cannot decode the .* of watch 'w': it returned a str instead of bytes"),
    ],
)
async def test_a_wrong_key_leaves_the_watch_there(
    path: Path, wrote: Codec, reads: Codec | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    await write(path, wrote)
    assert await claimed(path, reads) == []
    assert "Watch 'w' is skipped" in caplog.text
    assert "a secret" not in caplog.text
    assert [record.exc_info for record in caplog.records] == [None]
    assert re.search(words, caplog.text)
    assert await claimed(path, wrote) == [WHOLE]


@pytest.mark.parametrize("returns", [None, "text", bytearray(b"1")])
async def test_a_codec_that_cannot_encode_is_an_error_without_the_content(path: Path, returns: object) -> None:
    async with SQLiteJournal(path) as plain, SQLiteJournal(path, codec=Failing(returns)) as journal:
        await journal.add([replace(WATCH, label=None)])
        for write_it in (
            lambda: journal.answered("w", [CALL]),
            lambda: journal.finished({"w": OUTCOME}),
            lambda: journal.add([replace(WATCH, key="v", ref=RunRef("thread_run", ("v",)), refs=())]),
        ):
            with pytest.raises(
                JournalError, match=r"cannot encode the (output|outcome|label) of watch '[wv]'"
            ) as caught:
                await write_it()
            assert "a secret" not in "".join(traceback.format_exception(caught.value))
        await journal.begin("w", [CallRecord(key="2", call_id="2")])
        (record,) = await plain.read()
        assert [call.key for call in record.calls] == ["2"]
