"""The example of a web backend, under uvicorn, as its tabs and its platform see it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from backend import Backend, backend

from asyncruns.testing import FunctionCall, Scenario

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio, pytest.mark.slow]
SLOW = Scenario(queued=0.1, working=30.0)
CALLING = Scenario(working=0.5, rounds=((FunctionCall("get_weather", {"city": "Paris"}),),), answer="Sunny.")


@pytest.fixture
async def running() -> AsyncIterator[Backend]:
    async with backend() as running:
        yield running


async def all_of(running: Backend, question: str) -> list[dict[str, Any]]:
    return [event async for event in running.events(question)]


def answer_in(events: list[dict[str, Any]]) -> str:
    """Return the answer that the last event has, whether its text was streamed or not."""
    assert (events[-1]["event"], events[-1]["reason"]) == ("Ended", None)
    found: str = events[-1]["text"]
    return found


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["event"] in ("CurrentState", "TextAdded"))


async def test_several_tabs_and_a_late_one_see_the_whole_answer(running: Backend) -> None:
    question = await running.ask("Weather in Paris?")
    tabs = [asyncio.create_task(all_of(running, question)) for _ in range(3)]
    await tabs[0]
    late = await all_of(running, question)
    for events in (*[tab.result() for tab in tabs], late):
        assert text_of(events) == "get_weather: 21 degrees in city"
        assert events[0]["event"] == "CurrentState"
        assert events[-1]["event"] == "Ended"
    names = [event["event"] for event in tabs[0].result()]
    assert names.index("ActionRequired") < names.index("ToolReported") < names.index("CallAnswered")


async def test_webhooks_are_checked_and_announce_the_end(running: Backend) -> None:
    async with running.http.post("/webhooks", json={"type": "response.completed"}) as response:
        assert response.status == 400
    await all_of(running, await running.ask("Weather in Paris?"))
    health = await running.health()
    assert health["ended"] == 1
    assert health["active"] == 0


async def test_an_unknown_question_is_not_found(running: Backend) -> None:
    async with running.http.get("/questions/none/events") as response:
        assert response.status == 404


@pytest.mark.parametrize("cancels", [True, False])
async def test_closing_the_last_tab_cancels_by_choice(cancels: bool) -> None:
    async with backend(SLOW) as running:
        question = await running.ask("Weather in Paris?", cancel_when_closed=cancels)
        for _ in range(2):  # a tab that is reloaded within 2 s does not count as closed
            async with aclosing(running.events(question)) as tab:  # type: ignore[type-var]
                await anext(tab)
        await asyncio.sleep(3.0)
        assert running.seen("cancel") == cancels
        assert (await running.health())["active"] == (not cancels)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_question_survives_the_process(how: signal.Signals) -> None:
    async with backend(CALLING) as running:
        question = await running.ask("Weather in Paris?")
        async with aclosing(running.events(question)) as tab:  # type: ignore[type-var]
            while (await anext(tab))["event"] != "ToolReported":
                pass
        await running.stop(how)
        await running.start()
        events = await all_of(running, question)
        assert answer_in(events) == "Sunny."
        assert running.seen("create_response") == running.seen("submit") == 1
        assert running.seen("cancel") == 0


async def test_an_answer_that_no_tab_has_shown_survives_the_process() -> None:
    async with backend(Scenario(answer="Sunny.")) as running:
        question = await running.ask("Weather in Paris?")
        while not (await running.health())["ended"]:
            await asyncio.sleep(0.1)
        await running.stop(signal.SIGKILL)
        await running.start()
        assert answer_in(await all_of(running, question)) == "Sunny."


async def test_a_late_tab_finds_an_answer_that_was_shown_at_any_worker_and_after_a_crash() -> None:
    async with backend(Scenario(answer="Sunny."), "--workers", "2") as running:
        question = await running.ask("Weather in Paris?")
        assert answer_in(await all_of(running, question)) == "Sunny."
        late = [all_of(running, question) for _ in range(16)]
        assert [answer_in(events) for events in await asyncio.gather(*late)] == ["Sunny."] * len(late)
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
        assert answer_in(await all_of(running, question)) == "Sunny."


async def test_questions_survive_each_of_several_workers() -> None:
    async with backend(CALLING, "--workers", "2") as running:
        questions = [await running.ask("Weather in Paris?") for _ in range(6)]
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
        for events in await asyncio.gather(*[all_of(running, question) for question in questions]):
            assert answer_in(events) == "Sunny."
        assert running.seen("create_response") == running.seen("submit") == len(questions)


async def test_a_webhook_at_any_worker_announces_the_end_of_a_question_that_has_no_stream() -> None:
    async with backend(Scenario(working=4.0, answer="Sunny."), "--workers", "2", poll_after_ms=30_000.0) as running:
        questions = [await running.ask("Weather in Paris?") for _ in range(3)]
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)  # what is taken up is polled, each 30 s at most
        async with asyncio.timeout(20):
            for events in await asyncio.gather(*[all_of(running, question) for question in questions]):
                assert answer_in(events) == "Sunny."
