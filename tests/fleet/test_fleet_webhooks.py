"""A fleet that webhooks tell of ends polls rarely, and as usual again when a webhook does not come."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from stage import MODEL, ONE_CALL, Stage, Tools

from asyncruns import Cadence, Fleet, GaveUp, RunRef, WebhookEvent
from asyncruns._loop import loop_time
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.learned_durations import LearnedDurations
from asyncruns.cadence.learned_pauses import LearnedPauses
from asyncruns.fleet.announcements import WEBHOOK_LAG_S
from asyncruns.fleet.member import Member
from asyncruns.fleet.schedule import RUNS_AT_ONCE
from asyncruns.testing import Fault, Scenario

EVERY_SECOND = Cadence.fixed(1.0)


def event_of(response_id: str, type_: str = "response.completed") -> WebhookEvent:
    ref = RunRef("response", (response_id,))
    return WebhookEvent(id="evt_1", type=type_, created_at=None, data={"id": response_id}, ref=ref, is_repeat=False)


@asynccontextmanager
async def told_fleet(stage: Stage, **options: Any) -> AsyncIterator[Fleet[Any]]:
    """A fleet in which a webhook has announced one end."""
    options = {"cadence": EVERY_SECOND, "on_exit": "leave", **options}
    async with Fleet(stage.client, **options) as fleet:
        await end_of_one(stage, fleet)
        assert fleet.statistics().told_by_webhooks
        yield fleet


async def end_of_one(stage: Stage, fleet: Fleet[Any], *, working: float = 5.5, told_after: float | None = 0.1) -> None:
    """Watch a response to its end, which a webhook announces after some seconds, or with None none does."""
    response = await stage.response(working=working)
    watch = fleet.watch(response)
    if told_after is not None:
        await anyio.sleep(working + told_after)
        fleet.poll_now(event_of(response.id))
    await watch


def learned_by(cadence: Cadence) -> LearnedDurations:
    strategy = strategy_of(cadence)
    assert isinstance(strategy, LearnedPauses)
    return strategy.learned


def pauses(stage: Stage, run: Any) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(stage.times("poll", run))]


async def test_runs_are_polled_at_a_tenth_of_their_pace_while_webhooks_tell(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response, thread_run = await stage.response(working=200.0), await stage.run(working=200.0)
        fleet.watch(response)
        fleet.watch(thread_run)
        await anyio.sleep(60.0)
        assert 5 <= stage.count("poll", response) <= 8
        assert all(pause > 9.0 for pause in pauses(stage, response))
        assert stage.count("poll", thread_run) > 50, "no webhook tells of runs on threads"


async def test_without_webhooks_the_pace_is_as_it_was(stage: Stage) -> None:
    async with Fleet(stage.client, cadence=EVERY_SECOND, on_exit="leave") as fleet:
        await end_of_one(stage, fleet, told_after=None)
        response = await stage.response(working=200.0)
        fleet.watch(response)
        await anyio.sleep(60.0)
        assert stage.count("poll", response) > 50
        assert not fleet.statistics().told_by_webhooks


async def test_a_poll_on_request_alone_changes_no_pace(stage: Stage) -> None:
    async with Fleet(stage.client, cadence=EVERY_SECOND) as fleet:
        response = await stage.response(working=5.5)
        watch = fleet.watch(response)
        await anyio.sleep(5.6)
        fleet.poll_now(watch.ref)
        await watch
        assert not fleet.statistics().told_by_webhooks


async def test_an_end_is_seen_at_once_when_its_webhook_comes(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response = await stage.response(working=63.0)
        watch = fleet.watch(response)
        await anyio.sleep(63.1)
        began = loop_time()
        assert fleet.poll_now(event_of(response.id))
        assert (await watch).status == "completed"
        assert loop_time() - began < 0.1
        assert not fleet.poll_now(event_of(response.id)), "it is not watched any more"


async def test_an_end_without_a_webhook_brings_the_usual_pace_back(stage: Stage) -> None:
    long = [await stage.response(working=300.0) for _ in range(3)]
    async with told_fleet(stage, cadence=Cadence.fixed(5.0)) as fleet:
        for response in long:
            fleet.watch(response)
        await end_of_one(stage, fleet, working=7.0, told_after=None)
        ended = loop_time()
        assert ended - stage.times("poll", long[0])[0] > 40.0, "it was seen by a rare poll"
        await anyio.sleep(WEBHOOK_LAG_S - 0.5)
        assert fleet.statistics().told_by_webhooks, "the webhook may be behind the poll"
        before = stage.count("poll", long[0])
        await anyio.sleep(1.0)
        assert not fleet.statistics().told_by_webhooks
        await anyio.sleep(5.0)
        assert all(stage.count("poll", response) >= before + 1 for response in long), "their long pauses were cut"
        await anyio.sleep(30.0)
        assert all(pause < 6.0 for pause in pauses(stage, long[0])[-5:])
        await end_of_one(stage, fleet)
        assert fleet.statistics().told_by_webhooks


async def test_a_webhook_just_behind_the_poll_is_in_time(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response = await stage.response(working=3.0)
        await fleet.watch(response)
        await anyio.sleep(WEBHOOK_LAG_S - 1.0)
        assert not fleet.poll_now(event_of(response.id))
        await anyio.sleep(WEBHOOK_LAG_S)
        assert fleet.statistics().told_by_webhooks


@pytest.mark.parametrize(("lag", "is_told"), [(WEBHOOK_LAG_S - 1.0, True), (WEBHOOK_LAG_S + 1.0, False)])
async def test_webhooks_may_begin_although_polls_are_faster(stage: Stage, lag: float, is_told: bool) -> None:
    async with Fleet(stage.client, cadence=EVERY_SECOND) as fleet:
        response = await stage.response(working=5.5)
        await fleet.watch(response)
        await anyio.sleep(lag)
        fleet.poll_now(event_of(response.id))
        assert fleet.statistics().told_by_webhooks is is_told


async def test_without_webhooks_only_the_newest_ends_are_remembered(stage: Stage) -> None:
    async with Fleet(stage.client, cadence=EVERY_SECOND) as fleet:
        for _ in range(50):
            await fleet.watch(await stage.response(working=2.5))
        (awaited,) = fleet._hub.runner.announcements._awaited.values()
        assert 2 <= len(awaited) <= 5


async def test_a_run_that_had_ended_before_its_watch_says_nothing_about_webhooks(stage: Stage) -> None:
    old = await stage.response(working=1.0)
    async with told_fleet(stage) as fleet:
        await fleet.watch(old)
        await anyio.sleep(2 * WEBHOOK_LAG_S)
        assert fleet.statistics().told_by_webhooks


async def test_a_lagging_replica_behind_a_webhook_is_polled_at_the_usual_pace(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response = await stage.response(working=20.0)
        watch = fleet.watch(response)
        await anyio.sleep(20.1)
        stage.server.inject(Fault(on="poll", run_id=response.id, stale=2.0, times=2))
        began = loop_time()
        fleet.poll_now(event_of(response.id))
        await watch
        assert 1.9 < loop_time() - began < 2.5
        await anyio.sleep(2 * WEBHOOK_LAG_S)
        assert fleet.statistics().told_by_webhooks


async def test_the_deadline_of_a_watch_is_kept_by_rare_polls(stage: Stage) -> None:
    async with told_fleet(stage, cadence=Cadence.fixed(10.0)) as fleet:
        response = await stage.response(working=23.0)
        began = loop_time()
        assert (await fleet.watch(response, timeout=25.0)).status == "completed", "the last poll is before the deadline"
        assert loop_time() - began < 25.0
        endless = await stage.response(end="never")
        began = loop_time()
        outcome = await fleet.watch(endless, timeout=25.0)
        assert isinstance(outcome, GaveUp)
        assert loop_time() - began == pytest.approx(25.0)


async def test_an_unknown_status_is_given_up_in_time(stage: Stage) -> None:
    async with told_fleet(stage, cadence=Cadence.fixed(10.0), max_unknown_status=30.0) as fleet:
        response = await stage.response(working=300.0)
        stage.server.inject(
            Fault(on="poll", run_id=response.id, times=None, rewrite=lambda body: {**body, "status": "of_tomorrow"})
        )
        began = loop_time()
        assert isinstance(await fleet.watch(response), GaveUp)
        assert loop_time() - began == pytest.approx(30.0, abs=0.5)


async def test_failed_polls_are_repeated_as_soon_as_ever(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response = await stage.response(working=300.0)
        fleet.watch(response)
        await anyio.sleep(12.0)
        stage.server.inject(Fault(on="poll", run_id=response.id, status=503, times=3))
        await anyio.sleep(20.0)
        assert sum(pause < 3.0 for pause in pauses(stage, response)) == 3


async def test_the_rounds_of_a_response_are_announced_too(stage: Stage) -> None:
    tools = Tools(takes=1.0)
    async with told_fleet(stage, tools=tools) as fleet:
        stage.server.script(Scenario(working=20.0, rounds=(ONE_CALL,)), model=MODEL)
        first = await stage.client.responses.create(model=MODEL, input="Hello", background=True, tools=[])
        continued = stage.client.responses.continued({"model": MODEL})
        watch = fleet.watch(first, client=continued)
        await anyio.sleep(20.1)
        assert fleet.poll_now(event_of(first.id))
        await anyio.sleep(1.5)
        assert tools.ran == 1
        second = watch.ref
        assert second.ids != (first.id,)
        assert not fleet.poll_now(event_of("resp_of_another"))
        await anyio.sleep(19.0)
        assert fleet.poll_now(event_of(second.ids[0]))
        assert (await watch).status == "completed"
        assert watch.polls <= 9, "some 40 without webhooks"
        assert fleet.statistics().told_by_webhooks


async def test_a_cancel_is_confirmed_at_the_usual_pace(stage: Stage) -> None:
    async with told_fleet(stage) as fleet:
        response = await stage.response(working=300.0, cancelling=2.0)
        watch = fleet.watch(response)
        await anyio.sleep(15.0)
        began = loop_time()
        await watch.cancel_run()
        assert (await watch).status == "cancelled"
        assert loop_time() - began < 4.0


async def test_an_event_that_is_about_no_run_polls_nothing(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        event = WebhookEvent(
            id="evt_1", type="realtime.call.incoming", created_at=None, data={}, ref=None, is_repeat=False
        )
        assert not fleet.poll_now(event)


async def test_the_usual_pace_comes_back_for_some_runs_in_each_pass_of_the_loop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, passes = 3 * RUNS_AT_ONCE, [0]
    async with told_fleet(stage, requests_per_second=None, cadence=Cadence.fixed(20.0)) as fleet:
        await fleet.add_many([await stage.response(working=900.0) for _ in range(count)])
        await end_of_one(stage, fleet, told_after=None)
        runner, hurry_some, hurry = fleet._hub.runner, fleet._hub.runner._hurry, Member.hurry

        def one_pass(now: float) -> None:
            passes.append(0)
            hurry_some(now)

        def counted(member: Member) -> None:
            passes[-1] += 1
            hurry(member)

        monkeypatch.setattr(runner, "_hurry", one_pass)
        monkeypatch.setattr(Member, "hurry", counted)
        await anyio.sleep(WEBHOOK_LAG_S + 0.1)
        assert sum(passes) == count
        assert max(passes) == RUNS_AT_ONCE
        sent = stage.count("poll")
        await anyio.sleep(21.0)
        assert stage.count("poll") - sent >= count


async def test_durations_are_learned_as_well_as_ever_although_polls_are_rare(stage: Stage) -> None:
    cadence, lasting = Cadence.learned(), random.Random(1)
    async with Fleet(stage.client, cadence=cadence) as fleet, anyio.create_task_group() as group:
        for _ in range(150):
            group.start_soon(partial(end_of_one, stage, fleet, working=lasting.gauss(40.0, 4.0)))
            await anyio.sleep(2.0)
        assert fleet.statistics().told_by_webhooks
    durations = learned_by(cadence).durations((MODEL,), 0)
    assert durations.runs == 150
    assert durations.chance(0.0, 38.0) < 0.45, "some 30 % are shorter"
    assert durations.chance(0.0, 42.0) > 0.55, "some 70 % are shorter"
    assert durations.chance(0.0, 30.0) < 0.05
