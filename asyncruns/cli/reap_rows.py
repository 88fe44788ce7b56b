"""What `asyncruns reap` shows of an unfinished watch or run: for people, and as JSON. Does no I/O but printing.

It must never show an output, or a message: only ids, labels and counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from asyncruns.cli.output import counted, on_one_line, say, say_json, shortened
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Call, RunRef
from asyncruns.lifecycle.records import CANCEL_STEP, WatchRecord, ref_of

SHOWN_CALLS: Final = 3
SHOWN_LABEL: Final = 60  # characters


class Unfinished(Struct, kw_only=True):
    """An unfinished watch of a journal, or an unfinished run of a thread.

    Attributes:
        key: What identifies the watch in the journal; made in the same way for a run of a thread.
        ref: The ref of its run; without ids, if that is not created.
        created_at: When the watch was added, or the run created, in seconds since the epoch; None if not known.
        record: The watch in the journal; None for a run of a thread.
        status: The status of the run at the server; "" if not known.
        needs_caller: Whether the run waits for outputs of calls at the server.
        calls: These calls, if they are known.
        trouble: Why the status could not be read, or what was to be done was not; "" if nothing was wrong.
        done: What was done, in one or two words.
    """

    key: str
    ref: RunRef
    created_at: float | None
    record: WatchRecord | None = None
    status: str = ""
    needs_caller: bool = False
    calls: tuple[Call, ...] = ()
    trouble: str = ""
    done: str = ""

    @property
    def is_created(self) -> bool:
        """Whether its run exists, as far as it is known."""
        return bool(self.ref.ids)

    @property
    def name(self) -> str:
        """What people see: the dialect and the ids of its run, or its key if that is not created."""
        return "/".join((self.ref.dialect, *self.ref.ids)) if self.is_created else self.key

    @property
    def owner(self) -> str:
        """The living process that watches it, in words; "" if none is known."""
        return "" if self.record is None else self.record.owner

    def age(self, now: float) -> float | None:
        """Return its age in seconds, 0 or more."""
        return None if self.created_at is None else max(now - self.created_at, 0.0)


def rows_of(records: Iterable[WatchRecord]) -> list[Unfinished]:
    """Return a row for each watch of a journal."""
    return [
        Unfinished(key=record.key, ref=ref_of(record), created_at=record.created_at or None, record=record)
        for record in records
    ]


def selected(rows: Sequence[Unfinished], ids: Iterable[str], older_than: float | None, now: float) -> list[Unfinished]:
    """Return the rows with one of these ids, or all if none is given, that are older than this, in seconds.

    Raises:
        InvalidRequestError: An id is that of no row.
    """
    wanted = dict.fromkeys(ids)
    names = {row.key: {row.key, row.name, *row.ref.ids, *_earlier_ids(row)} for row in rows}
    unknown = [id_ for id_ in wanted if not any(id_ in each for each in names.values())]
    if unknown:
        raise InvalidRequestError(f"nothing unfinished has the id {', '.join(unknown)}; without ids, all is listed")
    chosen = [row for row in rows if not wanted or names[row.key] & wanted.keys()]
    return [row for row in chosen if older_than is None or (row.age(now) or 0.0) > older_than]


def waits_of(row: Unfinished) -> list[str]:
    """Return what a watch waits for, in words."""
    return list(_waits_in_journal(row.record) if row.record is not None else ()) or [_wait_at_server(row)]


def say_row(row: Unfinished, now: float) -> None:
    """Print a row for people: its name on a line of its own, then what is known of it."""
    owner = f"watched by {row.owner}" if row.owner else ""
    facts = ", ".join(on_one_line(fact) for fact in (age_text(row.age(now)), row.status, owner) if fact)
    say(on_one_line(row.name))
    for line in (facts, _label(row), *waits_of(row), row.trouble):
        if line:
            say(f"  {shortened(line)}")


def say_row_as_json(row: Unfinished, now: float) -> None:
    """Print a row as JSON."""
    age = row.age(now)
    say_json(
        {
            "key": row.key,
            "dialect": row.ref.dialect,
            "ids": list(row.ref.ids),
            "label": None if row.record is None else row.record.label,
            "created_at": row.created_at,
            "age": None if age is None else round(age, 3),
            "owner": row.owner or None,
            "status": row.status or None,
            "waits_for": waits_of(row),
            "calls": [] if row.record is None else [
                {"id": call.call_id, "has_output": call.output is not None, "was_accepted": call.accepted_at > 0}
                for call in row.record.calls
            ],
            "outcome": _outcome_in(row.record),
            "done": row.done or None,
            "trouble": row.trouble or None,
        }
    )  # fmt: skip


def age_text(age: float | None) -> str:
    """Return an age in words, with the two largest units: "2 h 05 min"."""
    if age is None:
        return "of unknown age"
    minutes, hours, days = int(age // 60), int(age // 3600), int(age // 86_400)
    if days:
        return f"{days} d {hours % 24:02} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {int(age) % 60:02} s" if minutes else f"{int(age)} s"


def _waits_in_journal(record: WatchRecord) -> Iterator[str]:
    if record.ref is None:
        yield _create_of(record)
        return
    if (outcome := _outcome_in(record)) is not None:
        yield f"the outcome was recorded and not delivered: {outcome}"
    open_calls = [call.call_id for call in record.calls if call.output is None and not call.accepted_at]
    ready = [call.call_id for call in record.calls if call.output is not None and not call.accepted_at]
    if open_calls:
        yield f"{counted(len(open_calls), 'call')} had begun, without an output: {_some(open_calls)}"
    if record.submitting == CANCEL_STEP:
        yield "its cancel was asked for"
    elif record.submitting:
        yield f"a submit of {counted(len(record.submitting), 'output')} was under way"
    elif ready:
        yield f"{counted(len(ready), 'output')} still to be submitted: {_some(ready)}"


def _create_of(record: WatchRecord) -> str:
    if record.outcome is not None:
        return "the run was not created, which was not delivered"
    match record.submitting:
        case ("thread", str(thread_id)):
            return f"the run is to be created, on the thread {thread_id}"
        case ():
            return "the run is to be created"
        case _:
            return "the run was being created, and may exist"


def _wait_at_server(row: Unfinished) -> str:
    if not row.needs_caller:
        return "waits for the run to end"
    names = [f"{call.name or call.type} {call.id}" for call in row.calls]
    return f"{counted(len(names), 'call')} to answer: {_some(names)}" if names else "waits for the outputs of calls"


def _outcome_in(record: WatchRecord | None) -> str | None:
    if record is None or record.outcome is None:
        return None
    fields = record.outcome
    return str(fields.get("reason") or fields.get("status") or fields.get("outcome") or "unknown")


def _label(row: Unfinished) -> str:
    if row.record is None or row.record.label is None:
        return ""
    label = row.record.label
    text = on_one_line(label if isinstance(label, str) else json.dumps(label, ensure_ascii=False))
    return f"label {text if len(text) <= SHOWN_LABEL else text[: SHOWN_LABEL - 1] + '…'}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_CALLS
    return ", ".join(names[:SHOWN_CALLS]) + (f" and {more} more" if more > 0 else "")


def _earlier_ids(row: Unfinished) -> set[str]:
    return set() if row.record is None else {id_ for ref in row.record.refs for id_ in ref.ids}
