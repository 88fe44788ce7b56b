"""A server in this process that speaks two APIs from memory: that of assistants and runs, and that of responses.

It has their true lifecycles, and is an independent view of the wire: plain dicts, none of the client's structs, bodies
and error texts as recorded from real servers. Its clock is the event loop's, so on a `VirtualTimeLoop` a run expires in
milliseconds. It streams runs and responses. A `Scenario` says what a run does, a `Fault` what goes wrong on the way.
The `Emulator` answers at a port of this machine, the `InMemoryTransport` without sockets.

Public: the names of `__all__`.
"""

from __future__ import annotations

from asyncruns.testing.emulator.faults import Fault
from asyncruns.testing.emulator.injected import InjectedFault
from asyncruns.testing.emulator.memory import InMemoryTransport
from asyncruns.testing.emulator.scenario import FunctionCall, RunRequest, Scenario, default_scenario
from asyncruns.testing.emulator.seen import SeenRequest
from asyncruns.testing.emulator.server import Emulator

__all__ = [
    "Emulator",
    "Fault",
    "FunctionCall",
    "InMemoryTransport",
    "InjectedFault",
    "RunRequest",
    "Scenario",
    "SeenRequest",
    "default_scenario",
]
