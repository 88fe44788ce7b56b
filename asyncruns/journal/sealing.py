"""Passes what a journal keeps of its caller's content through the caller's codec, to the disk and back.

The content is JSON, which never begins with the byte 0: what a codec made does here, so that a journal may have both,
and neither is taken for the other. No error may show the content, so none has the codec's own as its cause or text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.entries import unpacked, unreadable
from asyncruns.lifecycle.records import CallRecord, WatchRecord

_MARK: Final = b"\0"


def seal(codec: Codec | None, key: str, what: str, content: bytes | None) -> bytes | None:
    """Return some content of a watch, as JSON, as it is to be written; None if there is none, or it is dropped.

    Raises:
        JournalError: The codec failed.
    """
    if codec is None or content is None:
        return content
    try:
        coded = codec.encode(content)
    except Exception as error:
        raise _failed(key, what, "encode", f"raised a {type(error).__name__}") from None
    if coded is None:
        return None
    if not isinstance(coded, bytes):
        raise _failed(key, what, "encode", f"returned a {type(coded).__name__} instead of bytes or None")
    return _MARK + coded


def unseal(codec: Codec | None, key: str, what: str, data: bytes) -> bytes:
    """Return the content, as JSON, of what was written.

    Raises:
        JournalError: The codec failed, or there is none and the content was written with one.
    """
    if data[:1] != _MARK:
        return data
    if codec is None:
        raise JournalError(
            f"The {what} of watch {key!r} was written with a codec: open the journal with the same codec= and key"
        )
    try:
        content = codec.decode(data[1:])
    except Exception as error:
        raise _failed(key, what, "decode", f"raised a {type(error).__name__}") from None
    if not isinstance(content, bytes):
        raise _failed(key, what, "decode", f"returned a {type(content).__name__} instead of bytes")
    try:
        msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # some codecs do not notice a wrong key
        raise _failed(key, what, "decode", "returned something else than was encoded") from None
    return content


def sealed_output(codec: Codec | None, key: str, call: CallRecord) -> bytes | None:
    """Return the output of a call as it is to be written; None if it has none, or it is dropped.

    Raises:
        JournalError: The codec failed.
    """
    return None if call.output is None else seal(codec, key, "output", msgspec.json.encode(call.output))


def unsealed_output(codec: Codec | None, key: str, data: bytes | None) -> str | None:
    """Return the output of a call of what was written.

    Raises:
        JournalError: It cannot be read.
    """
    if data is None:
        return None
    try:
        return msgspec.json.decode(unseal(codec, key, "output", data), type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unreadable(key, error) from error


def unsealed(
    codec: Codec | None,
    key: str,
    record: bytes,
    calls: Iterable[CallRecord],
    content: bytes | None,
    outcome: bytes | None,
) -> WatchRecord:
    """Return the record of a watch of what was written of it.

    Raises:
        JournalError: It cannot be read.
    """
    content = None if content is None else unseal(codec, key, "label", content)
    outcome = None if outcome is None else unseal(codec, key, "outcome", outcome)
    return unpacked(key, record, calls, outcome, content)


def without_create(codec: Codec | None, key: str, content: bytes | None) -> bytes | None:
    """Return the content of a watch, as it is written, without what it took to ask for its run, which was created.

    Raises:
        JournalError: The codec failed.
    """
    if content is None:
        return None
    kept = msgspec.json.decode(unseal(codec, key, "label", content), type=dict[str, Any])
    kept.pop("creating", None)
    return seal(codec, key, "label", msgspec.json.encode(kept)) if kept else None


def _failed(key: str, what: str, method: str, why: str) -> JournalError:
    advice = "open the journal with the codec and the key that wrote it" if method == "decode" else "see its own tests"
    return JournalError(f"The codec of the journal cannot {method} the {what} of watch {key!r}: it {why}; {advice}")
