"""What may be passed as `file=`, and the form in which it is sent."""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncruns import InvalidRequestError
from asyncruns.http import Upload, pieces_of
from asyncruns.resources.file_threads import in_thread
from asyncruns.resources.multipart import form_data
from asyncruns.resources.uploads import PIECE_BYTES, FileUpload, upload_of

LONG = bytes(range(256)) * (PIECE_BYTES // 100)


async def sent(upload: Upload) -> bytes:
    async with aclosing(pieces_of(upload)) as pieces:
        return b"".join([piece async for piece in pieces])


def parts(body: bytes, content_type: str) -> list[tuple[dict[str, str], str, bytes]]:
    """Return the parts of a form: the parameters of their dispositions, their types and their contents."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    found = []
    for part in message.iter_parts():
        assert isinstance(part, EmailMessage)
        parameters = dict(part["Content-Disposition"].params)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((parameters, part.get_content_type(), content))
    return found


async def the_file(upload: FileUpload) -> tuple[str, str, bytes]:
    """Return the name, the type and the content of the file in a form."""
    body = await sent(upload)
    assert len(body) == upload.size
    parameters, kind, content = parts(body, upload.content_type)[-1]
    assert parameters["name"] == "file"
    return parameters["filename"], kind, content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LONG)
    return path


async def test_a_path_is_sent_under_its_name(path: Path) -> None:
    assert await the_file(await upload_of(path, {})) == ("in.jsonl", "application/octet-stream", LONG)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
async def test_a_content_without_a_name_is_called_upload(kind: Any) -> None:
    assert await the_file(await upload_of(kind(LONG), {})) == ("upload", "application/octet-stream", LONG)


async def test_an_open_file_is_sent_from_its_beginning_and_stays_open(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(10)
        upload = await upload_of(file, {})
        assert await the_file(upload) == ("in.jsonl", "application/octet-stream", LONG)
        assert await the_file(upload) == ("in.jsonl", "application/octet-stream", LONG)
        assert not file.closed


async def test_a_spooled_file_is_sent() -> None:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(LONG)
        assert (await the_file(await upload_of(file, {})))[2] == LONG


@pytest.mark.parametrize("content_type", [None, "application/jsonl"])
async def test_a_tuple_names_the_file_and_its_type(path: Path, content_type: str | None) -> None:
    expected = content_type or "application/octet-stream"
    assert await the_file(await upload_of(("a/b.jsonl", path, content_type), {})) == ("a/b.jsonl", expected, LONG)
    assert (await the_file(await upload_of(("b.jsonl", b"1"), {})))[0] == "b.jsonl"
    assert (await the_file(await upload_of((None, path), {})))[0] == "in.jsonl"


async def test_an_empty_file_is_sent() -> None:
    assert await the_file(await upload_of(b"", {})) == ("upload", "application/octet-stream", b"")


async def test_the_other_fields_come_before_the_file() -> None:
    fields = {"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 3600}, "none": None}
    upload = await upload_of(b"x", fields)
    found = parts(await sent(upload), upload.content_type)
    assert [(one["name"], content) for one, _, content in found] == [
        ("purpose", b"batch"),
        ("expires_after[anchor]", b"created_at"),
        ("expires_after[seconds]", b"3600"),
        ("file", b"x"),
    ]


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ('a"b', "a%22b"),
        ("a\r\nX-Evil: 1\r\n\r\nb", "a%0D%0AX-Evil: 1%0D%0A%0D%0Ab"),
        ("a\x00\x1b\x7f", "a%00%1B%7F"),
        ("naïve 文件.jsonl", "naïve 文件.jsonl"),
        ("not utf-8 \udcff", "not utf-8 ?"),
        ("100%", "100%"),
    ],
)
def test_names_are_escaped_as_browsers_do_it(name: str, escaped: str) -> None:
    form = form_data({}, name, "text/plain")
    assert f'filename="{escaped}"\r\n'.encode() in form.before
    assert form.before.count(b"\r\n") == 4  # the boundary, two headers and the empty line


@given(st.text(), st.text(min_size=1), st.text())
def test_no_name_and_no_value_can_add_a_header_or_a_part(name: str, field: str, value: str) -> None:
    form = form_data({field: value}, name, "text/plain")
    heads = [part.partition(b"\r\n\r\n")[0] for part in form.before.split(form.after[2:].split(b"--\r\n")[0])[1:]]
    assert [head.count(b"\r\n") for head in heads] == [1, 2]
    assert all(b"\n" not in line and b"\r" not in line for head in heads for line in head.split(b"\r\n"))


@pytest.mark.parametrize("content_type", ["text/plain\r\nX: 1", "text/plain\x00"])
async def test_a_content_type_cannot_add_a_header(content_type: str) -> None:
    with pytest.raises(InvalidRequestError, match="Content-Type contains a line break"):
        await upload_of(("a", b"", content_type), {})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("in.jsonl", r"got a str: pass Path\(...\) for a path"),
        (None, "got NoneType"),
        (3, "got int"),
        (("name",), "got a tuple of 1"),
        (("a", b"", "b", {}), "got a tuple of 4"),
        ((3, b""), "the name is int"),
        (("a", None), "got NoneType"),
        (io.StringIO("text"), "open it with mode 'rb'"),
        (io.FileIO(os.devnull, "w"), "'null' can't be read"),
    ],
)
async def test_what_cannot_be_sent_is_refused(file: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await upload_of(file, {})


async def test_an_async_file_is_refused(path: Path) -> None:
    async with await anyio.open_file(path, "rb") as file:
        with pytest.raises(InvalidRequestError, match="got AsyncFile"):
            await upload_of(file, {})  # type: ignore[arg-type]


async def test_a_closed_file_is_refused(path: Path) -> None:
    with path.open("rb") as file:
        pass
    with pytest.raises(InvalidRequestError, match=r"'in\.jsonl' can't be read: read of closed file"):
        await upload_of(file, {})


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"'gone.jsonl' can't be read: .*No such file") as caught:
        await upload_of(tmp_path / "gone.jsonl", {})
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidRequestError, match="is not a regular file"):
            await upload_of(path, {})
    ours, theirs = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe, pytest.raises(InvalidRequestError, match=r"can't be read: .*seek"):
        await upload_of(("pipe", pipe), {})


@pytest.mark.parametrize(("size", "found"), [(len(LONG) - 1, str(len(LONG) - 1)), (len(LONG) + 1, "more"), (0, "0")])
async def test_a_file_that_changed_is_an_error_before_its_last_byte(path: Path, size: int, found: str) -> None:
    upload = await upload_of(path, {})
    with path.open("r+b") as file:
        file.truncate(size)
    got = 0
    with pytest.raises(InvalidRequestError, match=f"'in.jsonl' was changed .* had {len(LONG)} bytes .* has {found}"):
        async for piece in pieces_of(upload):
            got += len(piece)
    assert got < upload.size


async def test_a_file_that_goes_away_before_another_attempt_is_named(path: Path) -> None:
    upload = await upload_of(path, {})
    await sent(upload)
    os.unlink(path)
    with pytest.raises(InvalidRequestError, match=r"'in\.jsonl' can't be read"):
        await sent(upload)


@pytest.mark.parametrize(("size", "message"), [(3, "has more bytes than its size, 3"), (9, "has 4 fewer bytes .*, 9")])
async def test_the_size_of_another_upload_is_checked(size: int, message: str) -> None:
    class Given(Upload):
        content_type = "text/plain"

        def __init__(self) -> None:
            self.size = size

        async def open(self) -> AsyncGenerator[bytes]:
            yield b"12"
            yield b"345"

        def __repr__(self) -> str:
            return "<my upload>"

    got = b""
    with pytest.raises(InvalidRequestError, match=f"<my upload> {message}"):
        async for piece in pieces_of(Given()):
            got += piece
    assert len(got) <= size


async def test_the_repr_of_an_upload_names_its_file(path: Path) -> None:
    assert repr(await upload_of(path, {})) == f"<FileUpload of 'in.jsonl', {len(LONG)} bytes>"
    assert repr(await upload_of(("a\x1b[31m\n", b"1"), {})) == r"<FileUpload of 'a\\x1b[31m', 1 bytes>"


async def test_an_open_file_is_sent_whole_in_several_uploads_at_once() -> None:
    class Slow(io.BytesIO):
        def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
            found = super().seek(place, whence)
            time.sleep(0.002)
            return found

    file = Slow(LONG * 4)
    uploads = await asyncio.gather(*(upload_of(file, {}) for _ in range(4)))
    contents = await asyncio.gather(*map(the_file, uploads))
    assert all(content == LONG * 4 for _, _, content in contents)


# Cancels wait until a thread is done


async def test_a_cancel_of_a_scope_waits_for_the_thread() -> None:
    ended: list[bool] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread(_end_late, ended)
    assert ended == [True]
    assert scope.cancelled_caught


async def test_several_cancels_wait_for_the_thread() -> None:
    ended: list[bool] = []
    task = asyncio.create_task(in_thread(_end_late, ended))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


def _end_late(ended: list[bool]) -> None:
    time.sleep(0.05)
    ended.append(True)
