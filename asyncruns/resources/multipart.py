"""The bytes around a file in a `multipart/form-data` body; does no I/O.

File names are escaped as browsers do it (https://html.spec.whatwg.org/#multipart-form-data), and other control
characters as well: no name can end its header or add another one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from asyncruns.http import query_of
from asyncruns.wire.codec import present

_ESCAPED: Final = re.compile(r'["\x00-\x1f\x7f]')


class FormData(Struct, frozen=True):
    """A form with one file, which is its last part.

    Attributes:
        before: What comes before the content of the file.
        after: What comes after it.
        content_type: The header `Content-Type` of the whole.
    """

    before: bytes
    after: bytes
    content_type: str


def form_data(fields: Mapping[str, Any], file_name: str, content_type: str) -> FormData:
    """Return the form.

    Args:
        fields: The other fields. UNSET and None are omitted; a mapping puts its keys in brackets, as in a query.
        file_name: The name of the file.
        content_type: The type of the file, which was checked as a header.
    """
    boundary = f"asyncruns-{uuid.uuid4().hex}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"\r\n\r\n{value}\r\n'
        for name, value in query_of(present(fields).items())
    ]
    disposition = f'form-data; name="file"; filename="{_escaped(file_name)}"'
    parts.append(f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {content_type}\r\n\r\n")
    # A surrogate, as in the name of a file that is not UTF-8, becomes "?".
    before = "".join(parts).encode(errors="replace")
    return FormData(before, f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)
