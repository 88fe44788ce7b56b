"""What a watch in a workflow makes of outputs and runs that are larger than a payload of Temporal may be."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import flows
import pytest
from dev_server import Stage
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.converter import DataConverter, PayloadCodec

from asyncruns import Completed, RunRef, Toolset
from asyncruns.temporal import rounds
from asyncruns.testing import FunctionCall, Scenario

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
ONE = Scenario(queued=0.02, working=0.02, rounds=((CALL,),))
TWO_CALLS = Scenario(queued=0.02, working=0.02, rounds=((CALL, CALL),))


class Packed(PayloadCodec):
    """A codec that compresses."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        packed = [zlib.compress(each.SerializeToString()) for each in payloads]
        return [Payload(metadata={"encoding": b"packed"}, data=each) for each in packed]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(zlib.decompress(each.data)) if each.metadata["encoding"] == b"packed" else each
            for each in payloads
        ]


def tools_of(size: int) -> Toolset:
    async def get_weather(city: str) -> str:
        return "x" * size

    return Toolset([get_weather], max_output=2_000_000)


@pytest.mark.slow
async def test_an_output_that_no_payload_can_hold_is_an_error_for_the_model(stage: Stage) -> None:
    tools = tools_of(600_000)
    four = Scenario(queued=0.02, working=0.02, rounds=((CALL,) * 4,))
    stage.emulator.script(four, assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    assert all("Ask for less" in output for output in stage.emulator.submitted(run.id)[0].values())
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    assert [len(output) for output in stage.emulator.submitted(run.id)[0].values()] == [600_000]


async def test_a_run_that_no_payload_can_hold_is_refused_unless_there_is_a_codec(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.02, working=0.02, answer="x" * 2_100_000), model="gpt")
    async with stage.worker():
        ref = RunRef.of(await stage.new_response())
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.Ask.run, ref, {})
        assert "give the client of Temporal a payload codec" in str(failed.value.cause)
    async with stage.worker(converter=DataConverter(payload_codec=Packed())):
        found = await stage.run(flows.Ask.run, ref, {})
        assert isinstance(found, Completed)
        assert len(await found.text()) == 2_100_000


async def refused(stage: Stage, *args: Any) -> str:
    with pytest.raises(WorkflowFailureError) as failed:
        await stage.run(*args)
    return str(failed.value.cause)


@pytest.mark.slow
async def test_outputs_of_a_handler_that_no_payload_can_hold_are_refused_unless_there_is_a_codec(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MOST_OUTPUTS", 100_000)  # the emulator takes 1 MiB
    stage.emulator.script(TWO_CALLS, assistant_id="asst_1")
    stage.emulator.script(TWO_CALLS, model="gpt")
    async with stage.worker():
        for run in (await stage.new_run(), await stage.new_response()):
            told = await refused(stage, flows.Handled.run, RunRef.of(run), "largely", {})
            assert "The outputs of on_requires_action have 120004 bytes" in told
            assert "give the client of Temporal a payload codec" in told
    async with stage.worker(converter=DataConverter(payload_codec=Packed())):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Handled.run, RunRef.of(run), "largely", {}), Completed)
    assert [len(text) for text in stage.emulator.submitted(run.id)[0].values()] == [60_000] * 2


async def test_tools_get_what_a_handler_leaves_of_the_room(stage: Stage) -> None:
    stage.emulator.script(TWO_CALLS, assistant_id="asst_1")
    async with stage.worker(tools=tools_of(1_000_000)):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Handled.run, RunRef.of(run), "half", {}), Completed)
    first, second = stage.emulator.submitted(run.id)[0].values()
    assert len(first) == 1_000_000
    assert "Ask for less" in second


async def test_a_run_that_has_no_room_for_its_outputs_ends_the_workflow(stage: Stage) -> None:
    stage.emulator.script(ONE, model="gpt")
    async with stage.worker(tools=tools_of(1_800_000)):
        options = {"model": "gpt", "message": "Hi", "parameters": {"instructions": "x" * 300_000}, "on_exit": "cancel"}
        told = await refused(stage, flows.AskNew.run, options)
    assert "bytes with its outputs" in told
    assert "return less" in told


async def test_an_answer_that_no_payload_can_hold_is_refused(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.02, working=0.02, answer="x" * 2_100_000), assistant_id="asst_1")
    async with stage.worker():
        assert "The answer has" in await refused(stage, flows.Read.run, RunRef.of(await stage.new_run()))
