"""The page that `asyncruns timeline` writes: the data of the runs, put into `timeline.html`. Does no other I/O.

Texts of servers reach the page as JSON only, without what ends a script or reorders a line; it shows them as text.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

from asyncruns.timeline import RunTimeline
from asyncruns.wire.shown_text import on_one_line, visible_json

_DATA: Final = "@DATA@"
_MOST_TEXT: Final = 200  # characters
_LONGEST_LIFE_S: Final = 400 * 86_400.0
_ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled", "expired", "incomplete"})


class _Words:
    """Numbers for words that are often the same."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def number(self, word: str) -> int:
        return self.found.setdefault(_shown(word), len(self.found))


def page_of(timelines: Sequence[RunTimeline], title: str, now: float) -> str:
    """Return the page for these runs, as HTML; `now` is when their sources were read, in seconds since the epoch."""
    template = files("asyncruns.cli").joinpath("timeline.html").read_text(encoding="utf-8")
    text = visible_json(json.dumps(data_of(timelines, title, now), ensure_ascii=False, separators=(",", ":")))
    return template.replace(_DATA, text.translate(_ESCAPES))


def data_of(timelines: Sequence[RunTimeline], title: str, now: float) -> dict[str, Any]:
    """Return what the page draws; times are in milliseconds after `t0`, which is in seconds since the epoch."""
    times = [begin for each in timelines if (begin := _begin_of(each)) is not None]
    t0 = min(times, default=now)
    words, makers = _Words(), _Words()
    rows = [_row(each, t0, words, makers) for each in timelines]
    is_live = any(each.waits_for for each in timelines)  # a journal: its watches go on until now
    last = [now] if is_live else [at for each in timelines for at in _times(each)]
    return {
        "title": _shown(title),
        "made": f"{datetime.datetime.fromtimestamp(now, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        "t0": t0,
        "end": round((max(last, default=now) - t0) * 1000),
        "words": list(words.found),
        "makers": list(makers.found),
        "rows": rows,
    }


def _row(of: RunTimeline, t0: float, words: _Words, makers: _Words) -> dict[str, Any]:
    def ms(at: float | None) -> int | None:
        return None if at is None else round((at - t0) * 1000)

    begin = ms(_begin_of(of))
    row: dict[str, Any] = {
        "id": _shown("/".join(of.ref.ids) or "(not created)"),
        "kind": words.number(of.ref.dialect),
        "label": "" if of.label is None else _label(of.label),
        "of": makers.number(of.assistant or of.model or of.ref.dialect),
        "model": words.number(of.model),
        "begin": begin,
        "watched": ms(of.began_at),
        "finish": ms(of.finished_at),
        "end": ms(of.estimated_end if of.statuses else _own(of, of.ended_at)),
        "late": None if of.end_delay is None else round(of.end_delay * 1000),
        "outcome": words.number(of.outcome),
        "reason": words.number(of.reason or of.error),
        "status": words.number(of.status),
        "waits": _shown(of.waits_for),
        "count": of.poll_count,
        "phases": [part for at, *names in _phases(of) for part in (ms(at), *map(words.number, names))],
        "calls": [
            part
            for call in of.calls
            for part in (ms(call.began_at), ms(call.ended_at), words.number(call.name), int(call.failed))
        ],
        "polls": [ms(poll.at) for poll in of.polls if not poll.refusal],
        "refused": [part for poll in of.polls if poll.refusal for part in (ms(poll.at), words.number(poll.refusal))],
        "sent": [
            part
            for sent in of.submits
            for part in (ms(sent.at), round(sent.took * 1000), words.number(sent.kind), words.number(sent.refusal))
        ],
    }  # fmt: skip
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def _phases(of: RunTimeline) -> Iterable[tuple[float, str, str]]:
    """Yield when the run was in which phase and status: as it was noticed, or else as the server says."""
    if of.statuses:
        for place, status in enumerate(of.statuses):
            at = status.at
            if place == 0 and status.phase not in _TERMINAL:
                at = _begin_of(of) or at
            yield at, status.phase, status.status
        return
    begin, started, ended = _begin_of(of), _own(of, of.started_at), _own(of, of.ended_at)
    if begin is not None and of.created_at is not None:
        yield begin, "pending", ""
    if started is not None:
        yield started, "running", ""
    if ended is not None:
        yield ended, "ended", of.status


def _own(of: RunTimeline, at: float | None) -> float | None:
    """Return a time of the server by this machine's clock."""
    return None if at is None else at + (of.clock_offset or 0.0)


def _begin_of(of: RunTimeline) -> float | None:
    """Return when the run was created: before its watch began, and within the second that the server says."""
    created = _own(of, of.created_at)
    if created is not None and of.began_at is not None and created < of.began_at - _LONGEST_LIFE_S:
        created = None  # no run lives that long: the server's time is none, and would stretch the whole picture
    if created is not None and of.created_at is not None and of.created_at.is_integer():
        created += 0.5
    known = [at for at in (created, of.began_at) if at is not None]
    return min(known, default=None)


def _times(of: RunTimeline) -> Iterable[float]:
    last = [at for at in (of.began_at, of.finished_at) if at is not None]
    last += [status.at for status in of.statuses] + [sent.at for sent in (*of.polls, *of.submits)]
    return [*last, *(at for call in of.calls if (at := call.ended_at) is not None)]


def _label(label: Any) -> str:
    return _shown(label if isinstance(label, str) else json.dumps(label, ensure_ascii=False))


def _shown(text: str) -> str:
    text = on_one_line(text)
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"
