"""Files as bodies of requests: what callers pass as `file=`, read piece by piece while it is sent.

It never reads a file on the event loop, and never holds a whole one, except content that the caller passed as bytes.
"""

from __future__ import annotations

import inspect
import os
import stat
import threading
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import IO, Any, Final, TypeAlias, cast

from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.http import Upload
from asyncruns.resources.file_threads import in_thread
from asyncruns.resources.multipart import FormData, form_data
from asyncruns.transport.auth import check_header
from asyncruns.wire.shown_text import on_one_line

GivenContent: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes]
"""The content of a file: bytes, a path, or an open binary file, which is sent from its beginning."""
GivenFile: TypeAlias = GivenContent | tuple[str | None, GivenContent] | tuple[str | None, GivenContent, str | None]
"""A content, or a tuple of its name, the content and, if wanted, its content type."""

PIECE_BYTES: Final = 256 * 1024
ANY_TYPE: Final = "application/octet-stream"
UNNAMED: Final = "upload"
_LOCKS: Final[weakref.WeakValueDictionary[int, threading.Lock]] = weakref.WeakValueDictionary()
_TEXT_MODE: Final = "file is open in text mode; open it with mode 'rb'"
_ACCEPTED: Final = (
    "file must be bytes, a path (pathlib.Path), an open binary file, or a tuple (name, content) or "
    "(name, content, content_type)"
)


class FileUpload(Upload):
    """A file in a form.

    Args:
        content: What the file contains.
        length: The number of bytes of the content.
        form: The form around it.
        name: The name of the file.

    Attributes:
        shown: The name, for messages.
    """

    def __init__(self, content: bytes | os.PathLike[str] | IO[bytes], length: int, form: FormData, name: str) -> None:
        self._content, self._length, self._form = content, length, form
        self._lock = _lock_of(content)
        self.shown: str = _shown(name)
        self.size: int = len(form.before) + length + len(form.after)
        self.content_type: str = form.content_type

    async def open(self) -> AsyncGenerator[bytes]:
        yield self._form.before
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                yield piece
        yield self._form.after

    async def _pieces(self) -> AsyncGenerator[bytes]:
        content = self._content
        if isinstance(content, bytes):
            for start in range(0, self._length, PIECE_BYTES):
                yield content[start : start + PIECE_BYTES]
            return
        files = ExitStack()
        try:
            file = await _in_thread(self.shown, _opened, content, files)
            at = 0
            while piece := await _in_thread(self.shown, _read_at, self._lock, file, at):
                at += len(piece)
                if at > self._length:
                    break
                yield piece
        finally:
            await _in_thread(self.shown, files.close)
        if at != self._length:
            raise InvalidRequestError(
                f"{self.shown} was changed while it was sent: it had {self._length} bytes before, and now has "
                f"{'more' if at > self._length else at}. The server did not receive all of it; send it again"
            )

    def __repr__(self) -> str:
        return f"<FileUpload of {self.shown}, {self._length} bytes>"


async def upload_of(file: GivenFile, fields: Mapping[str, Any]) -> FileUpload:
    """Return a form with a file, whose content is read when it is sent, and anew for each attempt.

    Args:
        file: The file.
        fields: The other fields of the form.

    Raises:
        InvalidRequestError: `file` is nothing of which the content can be sent, or does not exist.
    """
    name, content, content_type = _parts_of(file)
    try:
        check_header("Content-Type", content_type)
    except ConfigurationError as error:
        raise InvalidRequestError(f"file: {error}") from None  # the cause is the same text
    length = len(content) if isinstance(content, bytes) else await _in_thread(_shown(name), _length_of, content)
    return FileUpload(content, length, form_data(fields, name, content_type), name)


def _parts_of(file: object) -> tuple[str, bytes | os.PathLike[str] | IO[bytes], str]:
    """Return the name of a file, its content, and its content type."""
    named: tuple[Any, ...] = file if isinstance(file, tuple) else (None, file)
    if not 2 <= len(named) <= 3:
        raise InvalidRequestError(f"{_ACCEPTED}; got a tuple of {len(named)}")
    parts: Any = (*named, None)  # without a content type
    name, content, content_type = parts[:3]
    if isinstance(content, bytearray | memoryview):
        content = bytes(content)
    if isinstance(content, str):
        raise InvalidRequestError(f"{_ACCEPTED}; got a str: pass Path(...) for a path, or .encode() for a content")
    if not isinstance(content, bytes | os.PathLike) and not _is_open_file(content):
        raise InvalidRequestError(f"{_ACCEPTED}; got {type(content).__name__}")
    if name is not None and not isinstance(name, str):
        raise InvalidRequestError(f"{_ACCEPTED}; the name is {type(name).__name__}")
    return name or _name_of(content), content, content_type or ANY_TYPE


def _is_open_file(content: Any) -> bool:
    # Those of anyio and aiofiles, and the uploads of web frameworks, have coroutines here.
    return hasattr(content, "seek") and hasattr(content, "read") and not inspect.iscoroutinefunction(content.read)


def _name_of(content: bytes | os.PathLike[str] | IO[bytes]) -> str:
    path = content if isinstance(content, os.PathLike) else getattr(content, "name", None)
    return (os.path.basename(os.fsdecode(path)) if isinstance(path, str | os.PathLike) else "") or UNNAMED


# In threads


async def _in_thread(shown: str, function: Any, *args: Any) -> Any:
    """Call a function in a thread.

    Raises:
        InvalidRequestError: It could not read the file.
    """
    try:
        return await in_thread(function, *args)
    except (OSError, ValueError) as error:  # a ValueError if the file is closed
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"{shown} can't be read: {on_one_line(str(error))}") from error


def _opened(content: os.PathLike[str] | IO[bytes], files: ExitStack) -> IO[bytes]:
    return files.enter_context(open(content, "rb")) if isinstance(content, os.PathLike) else content


def _read_at(lock: threading.Lock, file: IO[bytes], at: int) -> bytes:
    with lock:
        file.seek(at)  # the caller, or another upload of the same file, may have moved it
        return file.read(PIECE_BYTES)


def _lock_of(content: object) -> threading.Lock:
    """Return the lock of an open file, whose position all its uploads share; it exists as long as they do."""
    return _LOCKS.setdefault(id(content), threading.Lock())


def _length_of(content: os.PathLike[str] | IO[bytes]) -> int:
    if not isinstance(content, os.PathLike):
        if isinstance(cast("object", content.read(0)), str):
            raise InvalidRequestError(_TEXT_MODE)
        with _lock_of(content):
            content.seek(0, os.SEEK_END)
            return content.tell()
    found = os.stat(content)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequestError(f"{_shown(os.fsdecode(content))} is not a regular file, so its size is not known")
    return found.st_size


def _shown(name: str) -> str:
    return repr(on_one_line(name))
