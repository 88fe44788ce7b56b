"""Records the histories that `test_replays.py` replays: `python tests/temporal/record_histories.py [NAME ...]`.

Record them anew when a workflow of asyncruns was changed on purpose, and only while no release has workflows with the
old histories: after that, `workflow.patched` keeps them replayable, and new ones are added beside them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import flows
from dev_server import KEY, DevServer, Stage
from shard_bench import Bench, opened, start
from temporalio.client import WorkflowHandle

from asyncruns import Client, RunRef
from asyncruns.temporal import answer_call
from asyncruns.testing import Emulator, FunctionCall, Scenario

FOLDER: Final = Path(__file__).parent / "histories"
CALL: Final = FunctionCall("get_weather", {"city": "Paris"})
QUICK: Final = {"queued": 0.02, "working": 0.02}
Handle = WorkflowHandle[Any, Any]


def script(stage: Stage, scenario: Scenario) -> None:
    """Let both wires do the same."""
    stage.emulator.script(scenario, assistant_id="asst_1")
    stage.emulator.script(scenario, model="gpt")


def two_rounds(stage: Stage) -> None:
    script(stage, Scenario(queued=0.02, working=0.02, rounds=((CALL, CALL), (CALL,))))


async def watch_run(stage: Stage) -> Handle:
    two_rounds(stage)
    return await stage.start(flows.Ask.run, RunRef.of(await stage.new_run()), {"label": "A"})


async def watch_response(stage: Stage) -> Handle:
    two_rounds(stage)
    return await stage.start(flows.Ask.run, RunRef.of(await stage.new_response()), {})


async def new_run(stage: Stage) -> Handle:
    two_rounds(stage)
    return await stage.start(flows.AskNew.run, {"assistant_id": "asst_1", "message": "Hi"})


async def new_response(stage: Stage) -> Handle:
    two_rounds(stage)
    return await stage.start(flows.AskNew.run, {"model": "gpt", "message": "Hi"})


async def read(stage: Stage) -> Handle:
    script(stage, Scenario(queued=0.02, working=0.02, answer={"city": "Paris", "degrees": 21}))
    return await stage.start(flows.Read.run, RunRef.of(await stage.new_run()))


async def people(stage: Stage) -> Handle:
    refund = FunctionCall("refund", {"order": "7"})
    script(stage, Scenario(queued=0.02, working=0.02, rounds=((refund, CALL),)))
    handle = await stage.start(flows.Ask.run, RunRef.of(await stage.new_run()), {"people": ["refund"]})
    await answered(stage, handle)
    return handle


async def handler(stage: Stage) -> Handle:
    two_rounds(stage)
    handle = await stage.start(flows.Handled.run, RunRef.of(await stage.new_run()), "when_allowed", {})
    await handle.signal(flows.Handled.allow)
    return handle


async def cancel(stage: Stage) -> Handle:
    script(stage, Scenario(queued=0.02, working=0.02, end="never", cancelling=0.05))
    handle = await stage.start(flows.Ask.run, RunRef.of(await stage.new_run()), {"on_exit": "cancel"})
    while not any(each.operation == "poll" for each in stage.emulator.requests):
        await asyncio.sleep(0.02)
    await handle.cancel()
    return handle


async def limit(stage: Stage) -> Handle:
    script(stage, Scenario(queued=0.02, working=0.02, end="never", cancelling=0.05))
    options = {"timeout": 0.2, "on_exit": "cancel"}
    return await stage.start(flows.Ask.run, RunRef.of(await stage.new_run()), options)


async def shard(stage: Stage) -> Handle:
    assert stage.temporal is not None
    refund = FunctionCall("refund", {"order": "7"})
    script(stage, Scenario(queued=0.02, working=0.02, rounds=((CALL, refund), (CALL,))))
    refs = [await stage.new_run(), await stage.new_response()]
    shards = await start(stage, stage.temporal, refs, people=["refund"])
    (handle,) = shards.handles
    for _ in refs:
        await answered(stage, handle)
    return handle


async def answered(stage: Stage, handle: Handle) -> None:
    assert stage.temporal is not None
    await answer_call(stage.temporal, handle.id, (await opened(stage.temporal, handle.id))[0], "yes")


CASES: Final[list[Callable[[Stage], Awaitable[Handle]]]] = [
    watch_run, watch_response, new_run, new_response, read, people, handler, cancel, limit, shard,
]  # fmt: skip


async def record(stage: Stage, case: Callable[[Stage], Awaitable[Handle]]) -> str:
    """Let a workflow run to its end, and return its history as JSON."""
    async with stage.worker(tools=Bench().tools):
        handle = await case(stage)
        await asyncio.gather(handle.result(), return_exceptions=True)
        history = json.loads((await handle.fetch_history()).to_json())
    return json.dumps({"workflowId": handle.id, **without_hosts(history)}, indent=1) + "\n"


def without_hosts(value: Any) -> Any:
    """Return JSON without the names of processes and machines, and without their paths."""
    if isinstance(value, list):
        return [without_hosts(each) for each in value]
    if not isinstance(value, dict):
        return value
    own = {"identity": "recorded", "stackTrace": ""}
    return {name: own[name] if name in own else without_hosts(each) for name, each in value.items()}


async def main(*names: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    server = DevServer()
    try:
        for case in CASES:
            if names and case.__name__ not in names:
                continue
            async with Emulator() as emulator, Client(emulator.base_url, api_key=KEY) as client:
                text = await record(Stage(server.address, emulator, client, flows.WORKFLOWS), case)
            (FOLDER / f"{case.__name__}.json").write_text(text)
    finally:
        server.kill()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
