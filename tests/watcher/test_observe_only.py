"""A watch that only looks on: another process answers the calls, and the watch goes on past them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wires import ONE_CALL, TWO_ROUNDS, Tools, Wire, about_polls

from asyncruns import Client, Completed, Expired, Fleet, InvalidRequestError, NeedsCaller, Toolset


async def test_it_goes_on_while_another_watch_answers(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.5)
    looking = asyncio.create_task(wire.client.watch(run, observe_only=True))
    outcome = await wire.watch(run, tools=tools)
    seen = await looking
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    if wire.has_new_run_each_round:  # the follow-ups have ids that only the other watch knows
        assert isinstance(seen, NeedsCaller)
        assert seen.refs == (outcome.refs[0],)
    else:
        assert isinstance(seen, Completed)
        assert wire.count("submit") == 2


async def test_a_run_that_nobody_answers_is_seen_to_expire(wire: Wire) -> None:
    run = await wire.start(rounds=(ONE_CALL,), lifetime=20.0)
    outcome = await wire.watch(run, observe_only=True)
    assert isinstance(outcome, NeedsCaller if wire.has_new_run_each_round else Expired)
    assert wire.count("submit") == 0


async def test_a_fleet_may_only_look_on(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.5)
    async with Fleet(wire.connection, observe_only=True) as fleet:
        looking = fleet.watch(run)
        outcome = await wire.watch(run, tools=tools)
        assert isinstance(outcome, Completed)
        assert isinstance(await looking, NeedsCaller if wire.has_new_run_each_round else Completed)


async def test_what_answers_calls_is_refused_beside_it() -> None:
    async with Client("http://127.0.0.1:1/v1", api_key="key") as client:
        given: Any
        for given in ({"tools": Toolset()}, {"on_requires_action": print}, {"on_approval": print}):
            with pytest.raises(InvalidRequestError, match=f"answers nothing: leave out {next(iter(given))}"):
                await client.watch(thread_id="t", run_id="r", observe_only=True, **given)
        with pytest.raises(InvalidRequestError, match="observe_only must be True or False; got 1"):
            Fleet(client, observe_only=1)  # type: ignore[arg-type]


# By the id of a response


@about_polls
async def test_a_response_is_watched_by_its_id(wire: Wire) -> None:
    run = await wire.start(queued=0.1, working=0.5)
    if wire.name == "threads":
        with pytest.raises(
            InvalidRequestError, match="response_id names a response by itself: leave out run, thread_id"
        ):
            await wire.client.watch(run, response_id="resp_1")  # type: ignore[call-overload]
        return
    assert isinstance(await wire.client.watch(response_id=run.id), Completed)
    async with Fleet(wire.client) as fleet:
        assert isinstance(await fleet.watch(response_id=run.id), Completed)
        with pytest.raises(InvalidRequestError, match="response_id must be a non-empty string"):
            fleet.watch(response_id="")
        with pytest.raises(InvalidRequestError, match="leave out run, thread_id, run_id"):
            fleet.watch(thread_id="thread_1", response_id=run.id)  # type: ignore[call-overload]
