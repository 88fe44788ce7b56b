"""Testing aids: an emulated server, with or without sockets, an event loop with virtual time, checks of a journal.

Each name is imported on first use, so that the loop can be used without aiohttp. Public: the names of `__all__`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncruns.testing.clock import VirtualTimeLoop
    from asyncruns.testing.emulator import BatchScenario, Emulator, Fault, FunctionCall, InMemoryTransport, Scenario
    from asyncruns.testing.journal_checks import check_journal

__all__ = [
    "BatchScenario",
    "Emulator",
    "Fault",
    "FunctionCall",
    "InMemoryTransport",
    "Scenario",
    "VirtualTimeLoop",
    "check_journal",
]

_HOME: Final = {
    "BatchScenario": "asyncruns.testing.emulator",
    "Emulator": "asyncruns.testing.emulator",
    "Fault": "asyncruns.testing.emulator",
    "FunctionCall": "asyncruns.testing.emulator",
    "InMemoryTransport": "asyncruns.testing.emulator",
    "Scenario": "asyncruns.testing.emulator",
    "VirtualTimeLoop": "asyncruns.testing.clock",
    "check_journal": "asyncruns.testing.journal_checks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
