"""Lost answers to the create of a message, and to all creates of `Client.run`."""

from __future__ import annotations

import anyio
import pytest
from lossy import ACTED_AND_LOST, LOST, MESSAGES, RUNS, Stage, answer, fail, late

from asyncruns import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ThreadBusyError,
)
from asyncruns.testing import Emulator, Scenario


async def test_a_message_whose_answer_was_lost_is_adopted(stage: Stage) -> None:
    stage.faulty.faults[MESSAGES] = [ACTED_AND_LOST]
    message = await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    assert message.text == "Hi"
    assert [found.id async for found in stage.client.threads.messages.list(stage.thread_id)] == [message.id]


async def test_a_message_that_does_not_exist_is_created_again(stage: Stage) -> None:
    await stage.client.threads.messages.create(stage.thread_id, content="Hi")
    await anyio.sleep(10.0)
    stage.faulty.faults[MESSAGES] = [LOST]
    message = await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    found = [found.id async for found in stage.client.threads.messages.list(stage.thread_id)]
    assert (len(found), found[0]) == (2, message.id)


async def test_a_message_without_metadata_may_be_ours(stage: Stage) -> None:
    stage.faulty.strips = True
    stage.faulty.faults[MESSAGES] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match=r"msg_\w+ may be it"):
        await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    assert len(stage.faulty.times(MESSAGES)) == 1


async def test_a_message_whose_answer_was_lost_raises_if_another_run_then_holds_the_thread(stage: Stage) -> None:
    stage.let_another_slip_in()
    stage.faulty.faults = {MESSAGES: [LOST, *stage.faulty.faults[RUNS][1:]]}
    with pytest.raises(ThreadBusyError):
        await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)


async def test_run_survives_the_loss_of_every_answer(stage: Stage, emulator: Emulator) -> None:
    emulator.script(Scenario(answer="Hello."), assistant_id="asst_1")
    stage.faulty.faults = {"POST /threads": [ACTED_AND_LOST], RUNS: [ACTED_AND_LOST]}
    outcome = await stage.client.run(
        assistant_id="asst_1", message=iter([{"type": "text", "text": "Hi"}]), parameters={"metadata": {"a": "b"}}
    )
    assert await outcome.text() == "Hello."
    (made,) = stage.runs
    assert made["metadata"]["a"] == "b"
    thread_id = outcome.unwrap().thread_id
    stage.faulty.faults = {MESSAGES: [ACTED_AND_LOST], RUNS: [ACTED_AND_LOST]}
    outcome = await stage.client.run(assistant_id="asst_1", message="More", thread_id=thread_id)
    assert await outcome.text() == "Hello."
    said = [message.role async for message in stage.client.threads.messages.list(thread_id)]
    assert said == ["assistant", "user"] * 2
    assert len(stage.runs) == 2


async def test_run_gives_up_after_two_lost_creates_of_a_thread(stage: Stage) -> None:
    stage.faulty.faults["POST /threads"] = [LOST, fail(late), LOST]
    with pytest.raises(APITimeoutError):
        await stage.client.run(assistant_id="asst_1", message="Hi")
    stage.faulty.faults["POST /threads"] = [answer(400)]
    with pytest.raises(BadRequestError):
        await stage.client.run(assistant_id="asst_1", message="Hi")
    assert stage.runs == []


async def test_run_without_adoption_sends_no_nonce(stage: Stage) -> None:
    await stage.client.run(assistant_id="asst_other", message="Hi", thread_id=stage.thread_id, adopt=False)
    assert [*stage.faulty.bodies(MESSAGES), *stage.faulty.bodies(RUNS)] == [
        {"role": "user", "content": "Hi"},
        {"assistant_id": "asst_other"},
    ]
    stage.faulty.faults["POST /threads"] = [LOST]
    with pytest.raises(APIConnectionError):
        await stage.client.run(assistant_id="asst_other", message="Hi", adopt=False)
