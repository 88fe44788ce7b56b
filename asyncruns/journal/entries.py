"""What all journals make of records: JSON, limits, and how a record changes. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from asyncruns.errors import JournalError, NotOwnerError
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.lifecycle.values import RunRef
from asyncruns.wire.plain import is_plain

MAX_OUTPUT_BYTES: Final = 10_000_000
_DECODER: Final = msgspec.json.Decoder(WatchRecord)
_NO_CONTENT: Final[dict[str, Any]] = {
    "label": None,
    "creating": None,
}  # the fields of a record that are content of the caller's


def as_json(key: str, what: str, value: object) -> bytes:
    """Return a value of a watch as JSON.

    Raises:
        JournalError: It is not JSON, or contains something that is not.
    """
    if not is_plain(value):
        raise JournalError(
            f"The {what} of watch {key!r} cannot be written to a journal: it is, or contains, something else than "
            "plain JSON (None, texts, numbers, lists, and dicts with texts as keys)"
        )
    return _encoded(key, value)


def packed(record: WatchRecord) -> bytes:
    """Return a record as JSON, without its calls, its outcome and its content.

    Raises:
        JournalError: It cannot be written as JSON.
    """
    return _encoded(record.key, replace(record, calls=(), outcome=None, owner="", **_NO_CONTENT))


def content_of(record: WatchRecord) -> bytes | None:
    """Return the content of the caller's that a record has, as JSON; None if it has none.

    Raises:
        JournalError: It is no plain JSON.
    """
    content = {name: value for name in _NO_CONTENT if (value := getattr(record, name)) is not None}
    for name, value in content.items():
        as_json(record.key, name, value)
    return _encoded(record.key, content) if content else None


def unpacked(
    key: str,
    data: bytes,
    calls: Iterable[CallRecord] = (),
    outcome: bytes | None = None,
    content: bytes | None = None,
) -> WatchRecord:
    """Return the record of some JSON, with its calls, its outcome and its content.

    Raises:
        JournalError: The JSON is not that of a record.
    """
    try:
        told = None if outcome is None else msgspec.json.decode(outcome, type=dict[str, Any])
        more = {} if content is None else msgspec.json.decode(content, type=dict[str, Any])
        more = {name: value for name, value in more.items() if name in _NO_CONTENT}
        return replace(_DECODER.decode(data), calls=tuple(calls), outcome=told, **more)
    except msgspec.MsgspecError as error:
        raise unreadable(key, error) from error


def run_texts(*refs: RunRef) -> list[str]:
    """Return what identifies runs in a journal, each once.

    Raises:
        JournalError: A ref cannot be written.
    """
    texts = [_encoded("/".join(ref.ids), (ref.dialect, *ref.ids)).decode() for ref in refs]
    return list(dict.fromkeys(texts))


def refs_of(record: WatchRecord) -> tuple[RunRef, ...]:
    """Return the refs of all runs of a watch, perhaps repeated; none before its run is created."""
    return record.refs if record.ref is None else (record.ref, *record.refs)


def moved_to(record: WatchRecord, ref: RunRef) -> WatchRecord:
    """Return a record after a submit was accepted, or its run was created, with the run that the watch goes on with.

    How it had finished before is forgotten, as it goes on.
    """
    refs = record.refs or refs_of(record)
    refs = refs if refs and ref == refs[-1] else (*refs, ref)
    return replace(record, ref=ref, refs=refs, submitting=(), creating=None, outcome=None)


def accepted(calls: Iterable[CallRecord], at: float) -> list[CallRecord]:
    """Return the calls of a watch after a submit was accepted at this time; those that had been before are left out."""
    return [replace(call, accepted_at=at) for call in calls if not call.accepted_at]


def writable(calls: Sequence[CallRecord], most_bytes: int) -> list[CallRecord]:
    """Return calls as they can be written: half of a surrogate pair in an output becomes a question mark.

    Raises:
        JournalError: An output is too large.
    """
    return [call if call.output is None else replace(call, output=_output(call, most_bytes)) for call in calls]


def unreadable(key: str, error: Exception) -> JournalError:
    """Return the error for a watch that cannot be read."""
    return JournalError(
        f"Watch {key!r} cannot be read from the journal: {error}. Forget it with delivered([{key!r}]), or restore "
        "the journal from a copy"
    )


def _not_owned(key: str, message: str) -> NotOwnerError:
    error = NotOwnerError(message)
    error.watch = key
    return error


def not_there(key: str) -> NotOwnerError:
    """Return the error for a watch that is not in the journal."""
    return _not_owned(
        key,
        f"Watch {key!r} is not in the journal: it was never added, or its outcome was delivered, perhaps by another "
        "process. This process must not go on with it",
    )


def of_another(key: str) -> NotOwnerError:
    """Return the error for a watch that another process owns, or no process."""
    return _not_owned(
        key,
        f"Watch {key!r} is not owned by this process: another one has taken it, or it was left to any that claims it. "
        "This process must not go on with it, unless claim() returns it",
    )


def watched_as(ref: str, key: str) -> NotOwnerError:
    """Return the error for a run, as a text, that belongs to the watch with this key."""
    return _not_owned(
        key,
        f"The run {ref} belongs to watch {key!r} in the journal, and a run has one watch: wait for that one, or call "
        "claim(), which returns it if no living process owns it",
    )


def _output(call: CallRecord, most_bytes: int) -> str:
    data = (call.output or "").encode(errors="replace")
    if len(data) > most_bytes:
        raise JournalError(
            f"The output of call {call.call_id!r} has {len(data):,} bytes, and the journal takes at most "
            f"{most_bytes:,}: return less from the tool, or give the journal a larger max_output_bytes"
        )
    return data.decode()


def _encoded(key: str, value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except Exception as error:  # half of a surrogate pair, or an integer of more than 64 bits
        raise JournalError(f"Watch {key!r} cannot be written to a journal as JSON: {error}") from error
