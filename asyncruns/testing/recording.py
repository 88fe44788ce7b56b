"""The file of a recording: one JSON object a line, what of an exchange may be written, and how requests are compared.

The first line is of the kind "recording". The others belong to exchanges, which are numbered from 1 by `n`; lines of
exchanges that ran at the same time are mixed. Each exchange begins with a "request" and goes on in one of these ways::

    answer                       a whole answer
    opened, event ..., end       a stream; `after` is when each event had arrived whole
    opened, end                  a download, with its content if that is not too large
    error, at any place          no answer came, or it broke off
    left, at any place           the caller was cancelled, or stopped reading
    (nothing more)               the process died

`at` is in seconds since the first request, `after` in seconds since the request of the exchange. A body is `json` if it
is JSON, whose white space is not kept, and otherwise `text` or `base64`. The file must never hold a credential: those
that the transport knows, and everything that is one by its name, are replaced by `***`.
"""

from __future__ import annotations

import base64
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from asyncruns._version import __version__
from asyncruns.errors import ConfigurationError
from asyncruns.http import Upload
from asyncruns.transport.auth import SECRET_NAME

FORMAT: Final = 1
HIDDEN: Final = "***"

Redact = Callable[[bytes], bytes]
"""Removes what must not be kept from the bytes of a body."""

_ACCOUNT_HEADERS: Final = frozenset({"openai-organization", "openai-project", "anthropic-organization-id"})
_OF_CALLER: Final = re.compile("credential|session|jwt|principal")  # mcp-session-id, x-ms-client-principal
_NO_SECRET: Final = re.compile(r".*ratelimit.*|portkey")  # x-ratelimit-remaining-tokens, x-portkey-request-id
_OF_CONNECTION: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})
_OF_LENGTH: Final = frozenset({"content-encoding", "content-length"})  # what resumes a download needs them
# A random text by which a client finds again what it created; see `resources/adoption.py`.
_NONCE: Final = re.compile(rb'("asyncruns_\w+"\s*:\s*")([0-9a-f]{32})(?=")')


class UploadSize(Struct, frozen=True):
    """What is recorded of an upload: its length in bytes, and its type without the random boundary."""

    size: int
    type: str


class RecordedLine(Struct, omit_defaults=True, kw_only=True):
    """One line of a recording; the module's docstring describes the kinds and the fields.

    Attributes:
        how: The method of the transport.
        size: The length of a download in bytes; its content is left out if it is too large.
        error: The name of the exception's class; `message`, `sent`, `passes` and `request_id` are its attributes.
    """

    kind: Literal["recording", "request", "answer", "opened", "event", "end", "error", "left"]
    n: int = 0
    format: int = 0
    version: str = ""
    date: str = ""
    at: float | None = None
    after: float | None = None
    how: Literal["send", "stream", "download"] | None = None
    method: str = ""
    path: str = ""
    query: tuple[tuple[str, str], ...] = ()
    status: int = 0
    headers: dict[str, str] = {}
    upload: UploadSize | None = None
    size: int | None = None
    error: str = ""
    message: str = ""
    sent: bool | None = None
    passes: bool = True
    request_id: str = ""
    json: msgspec.Raw | UnsetType = UNSET
    text: str | None = None
    base64: str | None = None

    @property
    def content(self) -> bytes | None:
        """The body, or None if the line has none."""
        if isinstance(self.json, msgspec.Raw):
            return bytes(self.json)
        if self.base64 is not None:
            return base64.b64decode(self.base64)
        return None if self.text is None else self.text.encode()


class RecordingFile:
    """A new file that lines are appended to, each at once and whole; only its owner may read it.

    Attributes:
        close: Closes the file; may be called twice. It is closed with the object, too.

    Raises:
        ConfigurationError: The file exists already.
        OSError: It cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.fspath(path)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                f"{self.path} exists: a recording needs a file of its own. Delete it, or record to another path"
            ) from None
        self.close: weakref.finalize[..., Any] = weakref.finalize(self, os.close, self._descriptor)

    @property
    def is_closed(self) -> bool:
        """Whether no line can be written any more."""
        return not self.close.alive

    def write(self, line: RecordedLine) -> None:
        """Append a line.

        Raises:
            OSError: It could not be written, or only a part of it.
        """
        data = msgspec.json.encode(line) + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]


def first_line(date: str) -> RecordedLine:
    """Return the first line of a recording that begins at a date."""
    return RecordedLine(kind="recording", format=FORMAT, version=__version__, date=date)


def lines_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, RecordedLine]]:
    """Yield the lines of a recording after the first, with their numbers; a last one that was cut off is left out.

    Raises:
        ConfigurationError: It is no recording, or of a newer format, or a line is malformed; the message says which.
        OSError: The file cannot be read.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        is_begun = False
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):  # the process died while it wrote
                break
            try:
                line = msgspec.json.decode(data, type=RecordedLine)
            except (ValueError, RecursionError) as error:
                raise ConfigurationError(f"{name}, line {number}, is not of a recording: {error}") from error
            if is_begun:
                yield number, line
            elif line.kind != "recording" or line.format != FORMAT:
                break
            is_begun = True
    if not is_begun:
        raise ConfigurationError(f"{name} is not a recording of format {FORMAT}, which this version of asyncruns reads")


# What may be written


def written_headers(
    headers: Iterable[tuple[str, str]], redact: Callable[[str], str], *, lengths: bool = False
) -> dict[str, str]:
    """Return headers for the file, with names in lower case; `lengths` keeps those of the length and the encoding."""
    left_out = _OF_CONNECTION if lengths else _OF_CONNECTION | _OF_LENGTH
    lowered = ((name.lower(), value) for name, value in headers)
    return {name: _hidden(name, redact(value)) for name, value in lowered if name not in left_out}


def written_query(query: Iterable[tuple[str, str]], redact: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """Return the parameters of a query for the file."""
    return tuple((name, _hidden(name, redact(value))) for name, value in query)


def _hidden(name: str, value: str) -> str:
    lowered = name.lower()
    if lowered in _ACCOUNT_HEADERS or _OF_CALLER.search(lowered) or SECRET_NAME.search(_NO_SECRET.sub("", lowered)):
        return HIDDEN
    return f"{value.partition('?')[0]}?{HIDDEN}" if lowered == "location" and "?" in value else value


def written_content(body: bytes | None, *, exact: bool = False) -> dict[str, Any]:
    """Return the fields of a line that hold a body; `exact` keeps the white space of JSON."""
    if body is None:
        return {}
    if not exact:
        try:
            msgspec.json.decode(body)
            return {"json": msgspec.Raw(msgspec.json.format(body, indent=0))}
        except (ValueError, RecursionError):
            pass
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def size_of(upload: Upload | None) -> UploadSize | None:
    """Return what is recorded, and compared, of an upload."""
    return None if upload is None else UploadSize(upload.size, upload.content_type.partition(";")[0])


# What is compared


def comparable(body: bytes | None) -> bytes:
    """Return a body in the form in which it is compared: JSON with sorted keys, without nonces."""
    return _NONCE.sub(rb"\1***", _sorted(body or b""))


def nonces_of(body: bytes | None) -> list[bytes]:
    """Return the nonces in a body, in the order of its sorted keys."""
    return [found for _, found in _NONCE.findall(_sorted(body or b""))]


def with_nonces(body: bytes, others: Mapping[bytes, bytes]) -> bytes:
    """Return a body with other nonces in the place of those that are known."""
    if not others or b'"asyncruns_' not in body:
        return body
    return _NONCE.sub(lambda found: found[1] + others.get(found[2], found[2]), body)


def _sorted(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (ValueError, RecursionError):
        return body
