"""Reads an upload: the parts of `multipart/form-data`, without a copy of the file (RFC 7578).

The headers of the parts are read by Python's own email package, and nothing here comes from the client, so that each
checks the other. A file's name stays as it was sent: what a client escapes, a test sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from typing import Final

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body

_MOST_HEADER_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A part that is a file; `content` refers to the body of the request, and copies nothing."""

    filename: str
    content_type: str
    content: memoryview


def read_form(raw: bytes, content_type: str) -> Body:
    """Return the fields of a form: strings, and `UploadedFile`s. A name like `a[b]` makes an object.

    Raises:
        RefusedError: It is no form, or a part is malformed or not ended.
    """
    described = Message()
    described["Content-Type"] = content_type
    boundary = described.get_boundary()
    if described.get_content_type() != "multipart/form-data" or not boundary:
        raise refusals.not_a_form(content_type)
    form: Body = {}
    for headers, content in _parts(raw, boundary.encode("latin-1", "replace")):
        name = headers.get_param("name", header="content-disposition")
        if not isinstance(name, str) or headers.get_content_disposition() != "form-data":
            raise refusals.malformed_form()
        filename = headers.get_filename()
        if filename is not None:
            form[name] = UploadedFile(filename, headers.get_content_type(), content)
        elif name.endswith("]") and "[" in name:
            outer, _, inner = name[:-1].partition("[")
            fields = form.setdefault(outer, {})
            if not isinstance(fields, dict):
                raise refusals.malformed_form()
            fields[inner] = _text(content)
        else:
            form[name] = _text(content)
    return form


def _parts(raw: bytes, boundary: bytes) -> Iterator[tuple[Message, memoryview]]:
    view, delimiter = memoryview(raw), b"\r\n--" + boundary
    # The first delimiter may stand at the very beginning, without a line before it.
    at = 0 if raw.startswith(delimiter[2:]) else raw.find(delimiter) + 2
    at += len(delimiter) - 2
    while raw[at : at + 2] != b"--":
        begin = raw.find(b"\r\n\r\n", at, at + _MOST_HEADER_BYTES)
        end = raw.find(delimiter, begin + 2)
        if raw[at : at + 2] != b"\r\n" or begin < 0 or end < 0:
            raise refusals.malformed_form()
        yield HeaderParser().parsestr(raw[at + 2 : begin].decode(errors="replace")), view[begin + 4 : end]
        at = end + len(delimiter)


def _text(content: memoryview) -> str:
    return bytes(content).decode(errors="replace")
