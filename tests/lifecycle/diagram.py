"""Draws the two tables of the lifecycle into CONTRIBUTING.md: `python tests/lifecycle/diagram.py`."""

from __future__ import annotations

import re
from pathlib import Path

from asyncruns.lifecycle import MOVES, STEPS, Phase, State

PAGE = Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md"
THEIRS, OURS = "theirs", "ours"


def theirs() -> str:
    """Draw the steps of a run at the server."""
    lines = [f"    [*] --> {Phase.PENDING.value}"]
    for phase in (phase for phase in Phase if phase in STEPS):
        lines += [f"    {phase.value} --> {step.value}" for step in Phase if step in STEPS[phase]]
        if phase.is_terminal:
            lines.append(f"    {phase.value} --> [*]")
    return _mermaid(lines)


def ours() -> str:
    """Draw the states of the watch, and the events that change them."""
    lines = [f"    [*] --> {State.POLLING.value}: Begun"]
    for before, moves in MOVES.items():
        for after in State:
            events = [event.__name__ for event, states in moves.items() if after in states]
            if events:
                lines.append(f"    {before.value} --> {after.value}: {', '.join(events)}")
    return _mermaid(lines)


def drawn(page: str) -> str:
    """Return the page with both diagrams up to date."""
    for name, diagram in ((THEIRS, theirs()), (OURS, ours())):
        begin, end = f"<!-- {name}: tests/lifecycle/diagram.py -->\n", f"<!-- end of {name} -->\n"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page, found = re.subn(pattern, lambda _: begin + diagram + end, page, flags=re.DOTALL)  # noqa: B023
        assert found == 1, f"the page lacks the two marker comments of the diagram {name!r}"
    return page


def _mermaid(lines: list[str]) -> str:
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
