"""Counts what became of the runs of a campaign of `kill_temporal.py`, by what workers wrote and the emulator saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncruns import RunRef
from asyncruns.testing import Emulator
from asyncruns.testing.emulator.seen import json_object

WELL: Final = "Completed"
LOST: Final = "GaveUp/submit_lost"


@dataclass
class Counted:
    """What became of the runs of one wire.

    Attributes:
        again: Number of times that calls began again whose tool allows it.
        unknown: Number of calls of which the model read that their outcome is not known.
        told: Number of runs whose outcome was told, to `on_outcome` or by their workflow.
        never_listed: Number of runs of shards that `Shards.outcomes` did not list.
        lost: Number of outcomes that said that a submit was lost.
        bad: Number of runs that ended in any other way.
        refused: Number of submits that the server refused, as it had the outputs already.
    """

    runs: int = 0
    begun: int = 0
    begun_twice: int = 0
    again: int = 0
    unknown: int = 0
    told: int = 0
    told_again: int = 0
    never_told: int = 0
    never_listed: int = 0
    lost: int = 0
    bad: int = 0
    submits: int = 0
    submitted_twice: int = 0
    refused: int = 0

    @property
    def is_well(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.begun_twice or self.never_told or self.never_listed or self.bad or self.submitted_twice)


def count_of(
    wire: str, refs: Collection[RunRef], results: Collection[str], folder: Path, emulator: Emulator
) -> Counted:
    """Count what became of the runs of a wire.

    Args:
        wire: The wire; the arguments of its calls begin with this.
        refs: The runs.
        results: What the workflows of single runs returned.
        folder: Where the workers wrote.
        emulator: The server of the runs.
    """
    counted = Counted(runs=len(refs))
    called = [line.split() for line in _lines(folder / "called")]
    begun = Counter((call_id, tool) for call_id, tool, argument in called if argument.startswith(wire))
    counted.begun = len(begun)
    counted.begun_twice = sum(times > 1 for (_, tool), times in begun.items() if tool == "pay")
    counted.again = sum(times - 1 for (_, tool), times in begun.items() if tool == "look_up")
    told: dict[str, list[str]] = {str(ref): [] for ref in refs}
    for line in (*_lines(folder / "told"), *results):
        ref, _, how = line.partition(" ")
        told.get(ref, []).append(how)
    counted.never_told = sum(not hows for hows in told.values())
    counted.told = len(refs) - counted.never_told
    counted.told_again = sum(len(hows) > 1 for hows in told.values())
    counted.lost = sum(LOST in hows for hows in told.values())
    counted.bad = sum(bool(set(hows) - {WELL, LOST}) for hows in told.values())
    _count_submits(counted, wire, emulator)
    return counted


def _count_submits(counted: Counted, wire: str, emulator: Emulator) -> None:
    accepted: Counter[tuple[str | None, tuple[str, ...]]] = Counter()
    for seen in emulator.requests:
        if seen.operation != "submit" or ("/threads/" in seen.path) is not (wire == "threads"):
            continue
        if not seen.acted:
            counted.refused += 1
            continue
        body = json_object(seen.body)
        outputs = body.get("tool_outputs") or body.get("input") or []
        calls = sorted(str(each.get("tool_call_id") or each.get("call_id")) for each in outputs)
        accepted[seen.run_id, tuple(calls)] += 1
        counted.unknown += sum("is not known" in str(each.get("output")) for each in outputs)
    counted.submits = accepted.total()
    counted.submitted_twice = sum(times > 1 for times in accepted.values())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
