"""A server in this process that emulates three APIs: assistants and runs, responses, and batches on two wires.

It has their real lifecycles, with streams, and with the files of batches, and is an independent view of the wire: plain
dicts, none of the client's structs, and bodies and error texts as recorded from real servers. It uses the event loop's
clock, so on a `VirtualTimeLoop` a run expires in milliseconds. A `Scenario` defines what a run does, a `BatchScenario`
what a batch does, a `Fault` what goes wrong. The `Emulator` listens on a port of this machine; the `InMemoryTransport`
needs no sockets.

Public: the names of `__all__`.
"""

from __future__ import annotations

from asyncruns.testing.emulator.batch_scenario import BatchRequest, BatchScenario
from asyncruns.testing.emulator.faults import Fault
from asyncruns.testing.emulator.injected import InjectedFault
from asyncruns.testing.emulator.memory import InMemoryTransport
from asyncruns.testing.emulator.scenario import FunctionCall, RunRequest, Scenario, default_scenario
from asyncruns.testing.emulator.seen import SeenRequest
from asyncruns.testing.emulator.server import Emulator

__all__ = [
    "BatchRequest",
    "BatchScenario",
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
