"""The files of an emulator: uploads, and the results of batches, which `batches.py` makes when they are read.

https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body, page, required_text
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.multipart import UploadedFile
from asyncruns.testing.emulator.timeline import reached, whole

_PURPOSES: Final = ("fine-tune", "assistants", "batch", "vision", "user_data", "evals")
MOST_FILES_LISTED: Final = 10_000
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True, eq=False)
class EmulatedFile:
    """A file; `expires` is a time in epoch seconds, or None."""

    id: str
    created: float
    filename: str
    purpose: str
    content: bytes | memoryview
    expires: float | None = None

    def is_there(self, now: float) -> bool:
        """Return whether it was uploaded and not expired at that time."""
        return reached(now, self.created) and (self.expires is None or not reached(now, self.expires))

    def body(self, _now: float) -> Body:
        """Return the file as it is on the wire."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": whole(self.created),
            "expires_at": None if self.expires is None else whole(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


@dataclass(frozen=True, slots=True)
class RawBody:
    """An answer that is not JSON; `headers` are added to those of each answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class EmulatedFiles:
    """Keeps files; times are epoch seconds.

    Attributes:
        find_result: Returns a file with results by its id and the time, or None.
        results: Returns all files with results that there are at a time.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.all: dict[str, EmulatedFile] = {}
        self.deleted: set[str] = set()
        self.find_result: Callable[[str, float], EmulatedFile | None] = lambda _id, _now: None
        self.results: Callable[[float], Iterable[EmulatedFile]] = lambda _now: ()

    def create(self, form: Mapping[str, Any], now: float) -> Body:
        """Keep an uploaded file."""
        uploaded = form.get("file")
        if uploaded is None:
            raise refusals.missing("file")
        if not isinstance(uploaded, UploadedFile):
            raise refusals.wrong_type("file", "a file", uploaded)
        purpose = required_text(form, "purpose")
        if purpose not in _PURPOSES:
            raise refusals.wrong_value("purpose", purpose, _PURPOSES)
        file = EmulatedFile(
            id=self._ids.new("file").replace("_", "-", 1),
            created=now,
            filename=uploaded.filename,
            purpose=purpose,
            content=uploaded.content,
            expires=expiry_of(form, "expires_after", now),
        )
        self.all[file.id] = file
        return file.body(now)

    def retrieve(self, file_id: str, now: float) -> Body:
        """Return a file's body, without its content."""
        return self.find(file_id, now).body(now)

    def list(self, query: Mapping[str, str], now: float) -> Body:
        """Return a page of the files, also of those with results."""
        files = [file for file in (*self.all.values(), *self.results(now)) if file.is_there(now)]
        purpose = query.get("purpose")
        shown = sorted(
            (file for file in files if file.id not in self.deleted and purpose in (None, file.purpose)),
            key=lambda file: file.created,
        )
        return page(query, [file.body(now) for file in shown], "file", most=MOST_FILES_LISTED, usual=MOST_FILES_LISTED)

    def delete(self, file_id: str, now: float) -> Body:
        """Delete a file. Batches that have begun keep what they read."""
        self.find(file_id, now)
        self.all.pop(file_id, None)
        self.deleted.add(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    def content(self, file_id: str, headers: Mapping[str, str], now: float) -> RawBody:
        """Return the content of a file, or the range of it that the header `Range` asks for."""
        content = self.find(file_id, now).content
        plain = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        part = _range(headers.get("range", ""), len(content))
        if part is None:
            return RawBody(200, plain, bytes(content))
        if part.start >= len(content):
            return RawBody(416, {**plain, "Content-Range": f"bytes */{len(content)}"}, b"")
        shown = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
        return RawBody(206, {**plain, "Content-Range": shown}, bytes(content[part.start : part.stop]))

    def find(self, file_id: str, now: float) -> EmulatedFile:
        """Return a file.

        Raises:
            RefusedError: There is no such file at that time.
        """
        file = None if file_id in self.deleted else self.all.get(file_id) or self.find_result(file_id, now)
        if file is None or not file.is_there(now):
            raise refusals.no_file(file_id)
        return file


def expiry_of(body: Mapping[str, Any], name: str, now: float) -> float | None:
    """Read when a file expires: `{"anchor": "created_at", "seconds": 3600}`, or null."""
    after = body.get(name)
    if after is None:
        return None
    if not isinstance(after, Mapping) or after.get("anchor") != "created_at":
        raise refusals.wrong_value(f"{name}[anchor]", after, ("created_at",))
    try:
        seconds = int(after["seconds"])
    except (KeyError, ValueError, TypeError):
        raise refusals.missing(f"{name}[seconds]") from None
    if not 3600 <= seconds <= 2_592_000:
        raise refusals.out_of_range(f"{name}[seconds]", seconds, 3600, 2_592_000)
    return now + seconds


def _range(header: str, size: int) -> range | None:
    """Return the range that a header asks for, which may begin after the end; None if it asks for none."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
