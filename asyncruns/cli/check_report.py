"""What `asyncruns doctor` has found, and how it is printed: a row or a JSON object for each check."""

from __future__ import annotations

import enum
from typing import Any, Final

from msgspec import Struct, field

from asyncruns.cli.output import say_json
from asyncruns.cli.sheet import Sheet

_STATE_WIDTH: Final = 5
_CHECK_WIDTH: Final = 16


class Health(enum.Enum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


_STYLES: Final = {Health.OK: "green", Health.NOTE: "yellow", Health.WRONG: "bold red"}


class CheckResult(Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        check: What was checked, in one or two words.
        text: What was found.
        to_set: What to do about it; "" for nothing.
        facts: Plain values, for programs.
    """

    check: str
    state: Health
    text: str
    to_set: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class CheckReport:
    """Prints each finding as it is made.

    Args:
        as_json: Whether to print JSON.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._sheet = None if as_json else Sheet(_STATE_WIDTH, _CHECK_WIDTH)
        self.all: list[CheckResult] = []

    @property
    def wrong(self) -> list[CheckResult]:
        """Those that say that something is wrong."""
        return [finding for finding in self.all if finding.state is Health.WRONG]

    def add(self, state: Health, check: str, text: str, to_set: str = "", **facts: Any) -> None:
        """Record a finding, and print it."""
        finding = CheckResult(check=check, state=state, text=text, to_set=to_set, facts=facts)
        self.all.append(finding)
        if self._sheet is None:
            say_json({"check": check, "state": state.value, "text": text, "to_set": to_set or None, **facts})
            return
        self._sheet.row(state.value, check, text, style=_STYLES[state])
        if to_set:
            self._sheet.row("", "", f"-> {to_set}")

    def ok(self, check: str, text: str, **facts: Any) -> None:
        """Record that something is well."""
        self.add(Health.OK, check, text, **facts)

    def note(self, check: str, text: str, to_set: str = "", **facts: Any) -> None:
        """Record what is only worth knowing."""
        self.add(Health.NOTE, check, text, to_set, **facts)

    def bad(self, check: str, text: str, to_set: str = "", **facts: Any) -> None:
        """Record that something is wrong, and what to set."""
        self.add(Health.WRONG, check, text, to_set, **facts)
