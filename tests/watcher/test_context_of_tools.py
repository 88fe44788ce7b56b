"""What tools learn of the run that they work for, on each wire and in each shell."""

from __future__ import annotations

import math
from typing import Any

from wires import ASSISTANT, MODEL, ONE_CALL, TWO_ROUNDS, Wire

from asyncruns import Completed, Fleet, ToolContext, Toolset
from asyncruns._loop import loop_time
from asyncruns.testing import Scenario


class Noting(Toolset):
    """Tools that note their contexts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, ToolContext[Any]]] = []
        self.tool(self.get_weather)
        self.tool(self.add)

    async def get_weather(self, city: str, context: ToolContext[str]) -> str:
        self.seen.append((loop_time(), context))
        return "Sunny"

    async def add(self, a: int, b: int, context: ToolContext[str]) -> int:
        self.seen.append((loop_time(), context))
        return a + b


async def test_tools_know_the_run_the_value_and_the_deadline(wire: Wire) -> None:
    tools = Noting()
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.1)
    began = loop_time()
    outcome = await wire.watch(run, tools=tools, context="of this run", timeout=100.0)
    assert isinstance(outcome, Completed)
    assert [context.value for _, context in tools.seen] == ["of this run"] * 3
    assert [context.call.name for _, context in tools.seen] == ["get_weather", "add", "add"]
    assert {context.ref for _, context in tools.seen} == {*outcome.refs[:2]}
    for at, context in tools.seen:
        assert at < context.answer_by <= began + 101.0


async def test_tools_see_the_metadata(wire: Wire) -> None:
    tools = Noting()
    given = {"user": "42"}
    wire.emulator.script(Scenario(rounds=(ONE_CALL,)), **wire._creator())
    if wire.name == "threads":
        run: Any = await wire.client.threads.create_and_run(assistant_id=ASSISTANT, metadata=given)
    else:
        run = await wire.client.responses.create(model=MODEL, input="Hello", background=True, metadata=given)
    assert isinstance(await wire.watch(run, tools=tools, timeout=None), Completed)
    ((_, context),) = tools.seen
    assert context.metadata["user"] == "42"
    assert (context.answer_by < math.inf) == (wire.name == "threads")


async def test_each_watch_of_a_fleet_has_its_own_value(wire: Wire) -> None:
    tools = Noting()
    runs = [await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1) for _ in range(3)]
    async with Fleet(wire.connection, tools=tools, context="of the fleet") as fleet:
        fleet.watch(runs[0])
        fleet.watch(runs[1], context="of one run")
        await fleet.add_many(runs[2:], context="of some")
    assert sorted(context.value for _, context in tools.seen) == ["of one run", "of some", "of the fleet"]
    for stream in (wire.streams or {}).values():
        await stream.close()
