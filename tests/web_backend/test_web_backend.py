"""The example of a web backend, under uvicorn, as its tabs and its platform see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from backend import Backend, backend

from asyncruns.testing import Scenario

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio]
SLOW = Scenario(queued=0.1, working=30.0)


@pytest.fixture
async def running() -> AsyncIterator[Backend]:
    async with backend() as running:
        yield running


async def all_of(running: Backend, question: str) -> list[dict[str, Any]]:
    return [event async for event in running.events(question)]


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
        assert running.cancelled() == cancels
        assert (await running.health())["active"] == (not cancels)


async def test_sigterm_cancels_what_still_runs() -> None:
    async with backend(SLOW) as running:
        question = await running.ask("Weather in Paris?")
        tab = asyncio.create_task(all_of(running, question))
        await asyncio.sleep(0.5)
        await running.stop()
        tab.cancel()
        assert running.cancelled() == 1
