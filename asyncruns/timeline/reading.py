"""Reads a file of timelines: what its lines say of each run. Malformed lines are reported, and the rest is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from msgspec import Struct, field

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import RunRef
from asyncruns.timeline.lines import (
    DECODER,
    LINES_FORMAT,
    AnsweredLine,
    CallLine,
    EndLine,
    HeadLine,
    PollLine,
    SentLine,
    StatusLine,
    TimelineLine,
    WatchLine,
)
from asyncruns.timeline.values import RunTimeline, TimedCall, TimedRequest, TimedStatus

_LONGEST_LINE: Final = 1 << 24  # bytes: what has longer ones is another file


def read_timelines(path: str | os.PathLike[str], complain: Callable[[str], object]) -> list[RunTimeline]:
    """Return the timeline of each run in a file, in the order in which their watches began.

    A run that was watched again, perhaps by another process, is one timeline. A last line that was cut off is left out.

    Args:
        path: The file.
        complain: Called with each complaint: a malformed line with its number, or lines that were lost.

    Raises:
        ConfigurationError: It is no file of timelines, or of another format.
        OSError: It cannot be read.
    """
    reader = _Reader(complain)
    for number, line in _lines_of(path, complain):
        reader.read(number, line)
    return reader.timelines()


def _lines_of(path: str | os.PathLike[str], complain: Callable[[str], object]) -> Iterator[tuple[int, TimelineLine]]:
    name, is_begun = os.fspath(path), False
    with open(path, "rb") as file:
        for number, data in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), 1):
            try:
                line = DECODER.decode(data)
            except (ValueError, RecursionError):
                if is_begun and data.endswith(b"\n"):  # otherwise the process died while it wrote
                    complain(f"{name}, line {number}, is malformed, and left out")
                if is_begun:
                    continue
                break
            if isinstance(line, HeadLine):
                if line.format != LINES_FORMAT:
                    break
                is_begun = True
            if not is_begun:
                break
            yield number, line
    if not is_begun:
        raise ConfigurationError(
            f"{name} is no file of timelines of format {LINES_FORMAT}: those are of fleet.record() and TimelineFile()"
        )


class _Row(Struct):
    """What has been read of a run."""

    fields: dict[str, Any]
    statuses: list[TimedStatus] = field(default_factory=list)
    calls: dict[tuple[int, int], TimedCall] = field(default_factory=dict)
    submits: list[TimedRequest] = field(default_factory=list)
    polls: list[TimedRequest] = field(default_factory=list)
    watches: int = 0  # of the run, so far: the numbers of calls begin anew in each


class _Reader:
    """Puts the lines together, by the numbers of their watches."""

    def __init__(self, complain: Callable[[str], object]) -> None:
        self._complain = complain
        self._rows: list[_Row] = []
        self._by_number: dict[int, tuple[_Row, int]] = {}  # and which watch of its run it is
        self._unknown: set[int] = set()  # watches whose first line is missing
        self._by_ref: dict[RunRef, _Row] = {}
        self._last_at = 0.0

    def read(self, number: int, line: TimelineLine) -> None:
        if isinstance(line, HeadLine):
            for row in self._rows:
                _end_calls(row, self._last_at)
        self._last_at = max(self._last_at, getattr(line, "at", 0.0))
        match line:
            case HeadLine():
                self._by_number.clear()
                self._unknown.clear()
            case WatchLine():
                self._by_number[line.n] = self._row_of(line)
            case StatusLine() | PollLine() | CallLine() | AnsweredLine() | SentLine() | EndLine():
                if line.n in self._by_number:
                    row, which = self._by_number[line.n]
                    _add(row, which, line)
                    if isinstance(line, StatusLine) and line.ids:
                        row.fields["ref"] = ref = RunRef(row.fields["ref"].dialect, line.ids)
                        self._by_ref[ref] = row
                elif line.n not in self._unknown:
                    self._unknown.add(line.n)
                    self._complain(f"line {number} belongs to no watch, and is left out, as others with its n")
            case lost:
                self._complain(f"{lost.lines} lines were lost before line {number}: the disk was too slow")

    def _row_of(self, line: WatchLine) -> tuple[_Row, int]:
        ref = RunRef(line.dialect, line.ids)
        row = self._by_ref.get(ref) if line.ids else None
        if row is None:
            row = _Row({"ref": ref, "began_at": line.at})
            self._rows.append(row)
            if line.ids:
                self._by_ref[ref] = row
        row.fields |= {"server": line.server, "label": line.label}
        if not _is_over(row):
            row.fields |= {"finished_at": None, "outcome": "", "reason": ""}
        row.watches += 1
        return row, row.watches

    def timelines(self) -> list[RunTimeline]:
        """Return what was read; the clock of a server is taken from its other runs, if one does not know it."""
        offsets: dict[str, float] = {}
        for row in self._rows:
            if (clock := row.fields.get("clock_offset")) is not None:
                server = row.fields["server"]
                offsets[server] = min(clock, offsets.get(server, clock))
        for row in self._rows:
            row.fields["clock_offset"] = offsets.get(row.fields["server"])
        return [_timeline_of(row) for row in self._rows]


def _end_calls(row: _Row, died_at: float) -> None:
    """End the calls that were under way when the process died that watched the run."""
    for number, call in row.calls.items():
        if call.ended_at is None:
            last = max(call.began_at, died_at)
            row.calls[number] = TimedCall(call.call_id, call.name, call.began_at, last, failed=True)


def _add(row: _Row, which: int, line: StatusLine | PollLine | CallLine | AnsweredLine | SentLine | EndLine) -> None:
    match line:
        case PollLine():
            row.polls.append(TimedRequest(line.at, line.took, line.refusal))
        case SentLine():
            row.submits.append(TimedRequest(line.at, line.took, line.refusal, line.what))
        case StatusLine():
            row.statuses.append(TimedStatus(line.at, line.status, line.phase))
            said = {"assistant": line.assistant, "model": line.model, "created_at": line.created_at}
            row.fields |= {name: value for name, value in said.items() if value and not row.fields.get(name)}
            row.fields["status"] = line.status
        case CallLine():
            row.calls[which, line.c] = TimedCall(line.call_id, line.name, line.at)
        case AnsweredLine():
            if (call := row.calls.get((which, line.c))) is not None:
                row.calls[which, line.c] = TimedCall(call.call_id, call.name, call.began_at, line.at, line.failed)
        case EndLine():
            _end(row, line)


def _is_over(row: _Row) -> bool:
    """Return whether an end of the run is known; its outcome may have been delivered a second time."""
    return row.fields.get("outcome", "") not in ("", "left", "NeedsCaller", "GaveUp")


def _end(row: _Row, line: EndLine) -> None:
    if _is_over(row):
        return
    row.fields |= {"finished_at": line.at, "outcome": line.outcome, "reason": line.reason, "error": line.error}
    row.fields |= {"ended_at": line.ended_at, "started_at": line.started_at, "poll_count": line.polls}
    if line.ids:
        row.fields["ref"] = RunRef(row.fields["ref"].dialect, line.ids)
    if line.status:
        row.fields["status"] = line.status
    if line.created_at is not None:
        row.fields.setdefault("created_at", line.created_at)
    if line.clock is not None:
        row.fields["clock_offset"] = line.clock


def _timeline_of(row: _Row) -> RunTimeline:
    row.fields["poll_count"] = max(row.fields.get("poll_count", 0), len(row.polls))
    return RunTimeline(
        **row.fields,
        statuses=tuple(row.statuses),
        calls=tuple(row.calls.values()),
        submits=tuple(row.submits),
        polls=tuple(row.polls),
    )
