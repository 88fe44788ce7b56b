"""Testing aids: an emulated server, a loop with virtual time, recording and replay, and checks of a journal.

Each name is imported on first use, so that the loop can be used without aiohttp. Public: the names of `__all__`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncruns.testing.clock import VirtualTimeLoop
    from asyncruns.testing.emulator import BatchScenario, Emulator, Fault, FunctionCall, InMemoryTransport, Scenario
    from asyncruns.testing.journal_checks import check_journal
    from asyncruns.testing.recorder import Recorder
    from asyncruns.testing.replay import Replay, UnexpectedRequestError

__all__ = [
    "BatchScenario",
    "Emulator",
    "Fault",
    "FunctionCall",
    "InMemoryTransport",
    "Recorder",
    "Replay",
    "Scenario",
    "UnexpectedRequestError",
    "VirtualTimeLoop",
    "check_journal",
]

_HOME: Final = {
    "BatchScenario": "asyncruns.testing.emulator",
    "Emulator": "asyncruns.testing.emulator",
    "Fault": "asyncruns.testing.emulator",
    "FunctionCall": "asyncruns.testing.emulator",
    "InMemoryTransport": "asyncruns.testing.emulator",
    "Recorder": "asyncruns.testing.recorder",
    "Replay": "asyncruns.testing.replay",
    "Scenario": "asyncruns.testing.emulator",
    "UnexpectedRequestError": "asyncruns.testing.replay",
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
