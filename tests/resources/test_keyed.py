"""A create with `key=`: safe to repeat, also by another process, whatever of it was done before."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from lossy import ACTED_AND_LOST, LISTED, LOST, MESSAGES, RUNS, Stage, answer, dropped, fail

from asyncruns import APIConnectionError, APIError, Cancelled, Client, Completed, InvalidRequestError, ThreadBusyError
from asyncruns.testing import Emulator, InMemoryTransport, Scenario
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

LISTED_MESSAGES = "GET /threads/*/messages"


@pytest.fixture(autouse=True)
def short_runs(stage: Stage) -> None:
    stage.emulator.script(Scenario(working=3.0, answer="Hello."), assistant_id="asst_1")


async def run(stage: Stage, key: str | None = "job-7", **more: Any) -> AnyOutcome[Run]:
    given: dict[str, Any] = {"assistant_id": "asst_1", "message": "Hi", "thread_id": stage.thread_id, **more}
    outcome: AnyOutcome[Run] = await stage.client.run(key=key, **given)
    return outcome


async def texts(stage: Stage) -> list[str]:
    return [found.text async for found in stage.client.threads.messages.list(stage.thread_id) if found.role == "user"]


async def test_a_second_call_watches_the_run_of_the_first(stage: Stage) -> None:
    first = await run(stage, parameters={"metadata": {"a": "b"}})
    second = await run(stage)
    assert isinstance(second, Completed)
    assert (second.ref, await second.text()) == (first.ref, "Hello.")
    assert [made["metadata"]["a"] for made in stage.runs] == ["b"]
    assert [made["metadata"]["asyncruns_key"] for made in stage.runs] == ["job-7"]
    assert await texts(stage) == ["Hi"]


async def test_calls_with_other_keys_or_without_one_create_runs_of_their_own(stage: Stage) -> None:
    refs = {(await run(stage, key)).ref for key in ("job-7", "job-8", None, None)}
    assert len(refs) == len(stage.runs) == len(await texts(stage)) == 4


async def test_a_run_that_ended_badly_is_not_created_again(stage: Stage) -> None:
    given: dict[str, Any] = {"assistant_id": "asst_1", "metadata": {"asyncruns_key": "job-7"}}
    made = await stage.client.threads.runs.create(stage.thread_id, **given)
    await stage.client.threads.runs.cancel(made.id, thread_id=stage.thread_id)
    assert isinstance(await run(stage), Cancelled)
    assert await texts(stage) == []


async def test_after_a_crash_between_message_and_run_only_the_run_is_created(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [answer(400)]
    with pytest.raises(APIError):
        await run(stage)
    assert isinstance(await run(stage), Completed)
    assert (len(stage.runs), await texts(stage)) == (1, ["Hi"])


@pytest.mark.parametrize("lost", [LOST, ACTED_AND_LOST])
@pytest.mark.parametrize("on", [RUNS, MESSAGES])
@pytest.mark.parametrize("adopt", [True, False])
async def test_after_a_lost_answer_the_call_may_be_repeated(stage: Stage, lost: Any, on: str, adopt: bool) -> None:
    stage.faulty.faults[on] = [lost]
    try:
        outcome = await run(stage, adopt=adopt)
    except APIConnectionError:
        assert not adopt
        outcome = await run(stage, adopt=adopt)
    assert isinstance(outcome, Completed)
    assert (len(stage.runs), await texts(stage)) == (1, ["Hi"])


@pytest.mark.parametrize("on_busy", ["raise", "wait"])
async def test_of_processes_that_race_the_slower_one_takes_the_run_of_the_other(stage: Stage, on_busy: str) -> None:
    """Both have seen no run in the list."""
    outcomes = await asyncio.gather(*(run(stage, on_busy=on_busy) for _ in range(4)))
    assert len({outcome.ref for outcome in outcomes}) == len(stage.runs) == 1


@pytest.mark.parametrize("before", [RUNS, MESSAGES])
async def test_a_run_that_slips_in_is_taken_if_it_has_the_key(stage: Stage, before: str) -> None:
    stage.let_another_slip_in(metadata={"asyncruns_key": "job-7"})
    stage.faulty.faults = {before: stage.faulty.faults[RUNS][1:]}
    outcome = await run(stage)
    assert [made["id"] for made in stage.runs] == [outcome.ref.ids[-1]]


async def test_a_thread_held_by_another_run_is_busy(stage: Stage) -> None:
    await stage.client.threads.runs.create(stage.thread_id, assistant_id="asst_other")
    with pytest.raises(ThreadBusyError):
        await run(stage)
    began = anyio.current_time()
    assert isinstance(await run(stage, on_busy="wait"), Completed)
    assert anyio.current_time() - began > 25.0
    assert (len(stage.runs), await texts(stage)) == (2, ["Hi"])


async def test_all_pages_are_searched() -> None:
    transport = InMemoryTransport()
    transport.script(Scenario(queued=0.0, working=0.0), assistant_id="asst_1")
    async with Client(transport=transport) as client:
        thread = await client.threads.create()
        given: dict[str, Any] = {"assistant_id": "asst_1", "message": "Hi", "thread_id": thread.id}
        first = await client.run(key="job-7", **given)
        for _ in range(120):
            await client.run(key=None, **given)
        assert (await client.run(key="job-7", **given)).ref == first.ref


@pytest.mark.parametrize("listed", [LISTED, LISTED_MESSAGES])
async def test_nothing_is_created_if_a_list_cannot_be_read(stage: Stage, listed: str) -> None:
    stage.faulty.lasting[listed] = fail(dropped)
    with pytest.raises(APIConnectionError):
        await run(stage)
    assert (stage.faulty.times(RUNS), stage.faulty.times(MESSAGES)) == ([], [])


async def test_nothing_is_created_if_a_list_has_no_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(110):
        await stage.client.threads.messages.create(stage.thread_id, content="Hi")
    monkeypatch.setattr("asyncruns.resources.keyed.SEARCH_PAGES", 1)
    with pytest.raises(APIError, match="not known whether key= was used before, and nothing was created"):
        await run(stage)
    assert len(await texts(stage)) == 110


PAIRS = {str(number): "x" for number in range(16)}
REFUSED: dict[str, dict[str, Any]] = {
    "needs thread_id= as well": {"thread_id": None},
    "of 1 to 512 characters; got 513 characters": {"key": "x" * 513},
    "of 1 to 512 characters; got 0 characters": {"key": ""},
    "of 1 to 512 characters; got int": {"key": 7},
    "key= needs another one: asyncruns_key": {"parameters": {"metadata": PAIRS}},
    "metadata in extra_body would replace that of key=": {"parameters": {"extra_body": {"metadata": {}}}},
    "responses cannot be listed": {"model": "gpt-4o", "assistant_id": None, "thread_id": None},
}


@pytest.mark.parametrize("says", REFUSED)
async def test_a_key_that_cannot_be_used_is_refused_before_anything_is_sent(emulator: Emulator, says: str) -> None:
    given = {"assistant_id": "asst_1", "message": "Hi", "thread_id": "thread_1", "key": "job-7", **REFUSED[says]}
    async with Client(emulator.base_url) as client:
        seen = len(emulator.requests)
        with pytest.raises(InvalidRequestError, match=says):
            await client.run(**given)
    assert len(emulator.requests) == seen


async def test_a_key_that_was_copied_from_another_run_is_replaced(stage: Stage) -> None:
    first = await run(stage, "job-7")
    copied = {**dict(list(PAIRS.items())[:15]), "asyncruns_key": "job-7"}
    second = await run(stage, "job-8", parameters={"metadata": copied})
    assert first.ref != second.ref
    assert [made["metadata"]["asyncruns_key"] for made in stage.runs] == ["job-7", "job-8"]
