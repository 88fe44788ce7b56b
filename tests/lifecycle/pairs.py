"""Writes down what the machine does in every situation at every event: `python tests/lifecycle/pairs.py`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from situations import SITUATIONS, events

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Command, Event, Finish, PollAt, Report, State

WRITTEN = Path(__file__).with_name("pairs.txt")


Pair = tuple[str, str, Event, State, State, str]
"""Situation, name of the event, event, state before, state after, what was done."""


@functools.cache
def pairs() -> tuple[Pair, ...]:
    """Feed every event in every situation."""
    return tuple(_fed())


def _fed() -> Iterator[Pair]:
    for situation, make in SITUATIONS.items():
        probe = make()
        for name, event in events(probe.now + 1.0, probe.machine.wake_at):
            run = make()
            before = run.machine.state
            try:
                done = ", ".join(_shown(command) for command in run.feed(event)) or "nothing"
            except InvalidRequestError:
                done = "raises"
            yield situation, name, event, before, run.machine.state, done


def written() -> str:
    """Give the text: for each situation what can come of it, and at which events."""
    groups: dict[str, dict[str, list[str]]] = {}
    for situation, name, _, before, after, done in pairs():
        group = groups.setdefault(f"{before.value}: {situation}", {})
        group.setdefault(f"-> {after.value}: {done}", []).append(name)
    lines = ["What the machine does in every situation at every event. Written by pairs.py; read it when it changes.\n"]
    for situation, group in groups.items():
        lines.append(f"\n{situation}\n")
        for result, names in group.items():
            lines.append(f"  {result}\n")
            lines.extend(f"      {line}\n" for line in _folded(names))
    return "".join(lines)


def _folded(names: list[str]) -> Iterator[str]:
    """Join "Tick: early" and "Tick: in time" to "Tick: early; in time"."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind, _, rest = name.partition(": ")
        kinds.setdefault(kind, []).append(rest)
    for kind, rests in kinds.items():
        yield f"{kind}: {'; '.join(rests)}" if all(rests) else kind


def _shown(command: Command) -> str:
    match command:
        case Finish(end):
            return f"Finish {end.kind.value}" + (f" {end.reason.value}" if end.reason else "")
        case Report(notice):
            return f"Report {type(notice).__name__}"
        case PollAt(not_before, not_after, if_silent):
            when = "now" if not_before == not_after else "later"
            return f"PollAt {when}, if the stream is silent" if if_silent else f"PollAt {when}"
        case _:
            return type(command).__name__


if __name__ == "__main__":
    WRITTEN.write_text(written(), encoding="utf-8")
