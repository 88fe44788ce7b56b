"""A run that is watched again keeps its record, and nothing but its own watch forgets or changes that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest
from test_watches_with_a_journal import Setting
from worlds import ROUNDS, WireName

from asyncruns import (
    Client,
    Completed,
    Ended,
    Fleet,
    GaveUp,
    InvalidRequestError,
    JournalError,
    MemoryJournal,
    NeedsCaller,
    NotOwnerError,
    Reason,
    RunRef,
    RunWatcher,
    Toolset,
)
from asyncruns.testing import Fault, Scenario

wires = pytest.mark.parametrize("wire", ["threads", "responses"])


class Both(Setting):
    """A setting on one of the wires."""

    def __init__(self, wire: WireName, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.wire = wire
        self.transport.script(scenario, model="gpt-test")

    async def run(self) -> Any:
        if self.wire == "threads":
            return await super().run()
        return await self.client.responses.create(model="gpt-test", input="Pay", background=True)


@pytest.fixture
def setting() -> Setting:
    return Setting(Scenario(rounds=ROUNDS, working=0.1))


def surfacing() -> Toolset:
    tools = Toolset(if_exception="surface")

    @tools.tool
    async def pay(to: str) -> str:
        raise ValueError(to)

    return tools


# A run that was given up


@wires
@pytest.mark.parametrize("timeout", [1.0, 4.0])  # the second one after a submit
async def test_a_reader_may_watch_a_run_again_that_was_given_up(wire: WireName, timeout: float) -> None:
    setting = Both(wire, Scenario(rounds=ROUNDS[:1], working=3.0))
    outcomes: list[Any] = []
    async with setting.fleet() as fleet:
        fleet.watch(await setting.run(), timeout=timeout)
        async for outcome in fleet:
            outcomes.append(outcome)
            if isinstance(outcome, GaveUp):
                await fleet.watch(outcome.ref, timeout=60).recorded()
    assert [type(outcome) for outcome in outcomes] == [GaveUp, Completed]
    assert sorted(setting.ran) == ["a", "b"]
    assert len(setting.store) == 0


@wires
async def test_an_observer_may_watch_a_run_again_that_was_given_up(wire: WireName) -> None:
    setting = Both(wire, Scenario(rounds=ROUNDS[:1], working=3.0))
    outcomes: list[Any] = []

    async def observe(outcome: Any) -> None:
        outcomes.append(outcome)
        if isinstance(outcome, GaveUp):
            await fleet.watch(outcome.ref, timeout=60).recorded()

    async with setting.fleet(on_outcome=observe) as fleet:
        fleet.watch(await setting.run(), timeout=1.0)
    assert [type(outcome) for outcome in outcomes] == [GaveUp, Completed]
    assert len(setting.store) == 0


@wires
@pytest.mark.parametrize("is_late", [False, True])
async def test_the_outcome_of_a_watch_that_was_reopened_is_kept_until_it_is_delivered(
    wire: WireName, *, is_late: bool
) -> None:
    """The first outcome is delivered before the watch is reopened, or only then."""
    setting = Both(wire, Scenario(working=5))
    seen: list[Any] = []

    async def slow(outcome: object) -> None:
        seen.append(outcome)
        await anyio.sleep(0.8)

    async with setting.fleet(on_outcome=slow) as fleet:
        watch = fleet.watch(await setting.run(), timeout=1.0)
        while len(seen) < 1:
            await anyio.sleep(0.01)
        await anyio.sleep(0.0 if is_late else 1.5)
        assert len(setting.store) == is_late
        await watch.cancel_run()
        while len(seen) < 2:
            await anyio.sleep(0.01)
        assert len(setting.store) == 1
    assert len(setting.store) == 0


# A run that is watched elsewhere


@pytest.mark.parametrize("is_refused", [False, True])
async def test_cancelling_a_watch_that_is_refused_forgets_no_other(setting: Setting, *, is_refused: bool) -> None:
    run = await setting.run()
    async with (
        setting.journal as journal,
        Client(transport=setting.transport, journal=journal) as client,
        RunWatcher(client, run, tools=setting.tools) as watcher,
    ):
        async with Fleet(client, on_exit="leave") as fleet:
            watch = fleet.watch(run)
            if is_refused:
                await watch
            watch.cancel()
        (record,) = await journal.read()
        assert record.outcome is None
        assert isinstance(await watcher.wait(), Completed)


async def test_the_outcome_of_a_watch_that_is_refused_is_not_recorded(setting: Setting) -> None:
    run = await setting.run()
    async with (
        setting.journal as journal,
        Client(transport=setting.transport, journal=journal) as client,
        RunWatcher(client, run, label="mine"),
    ):
        async with Fleet(client, on_exit="leave") as fleet:
            fleet.watch(run)
            await anyio.sleep(1)
        (record,) = await journal.read()
        assert (record.label, record.outcome) == ("mine", None)


async def test_cancelling_an_earlier_watch_does_not_forget_a_later_one(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        run = await setting.run()
        earlier = fleet.watch(run, tools=None)
        assert isinstance(await earlier, NeedsCaller)
        later = fleet.watch(run)
        await later.recorded()
        earlier.cancel()
        assert isinstance(await later, Completed)


async def test_a_watch_is_not_forgotten_since_an_earlier_one_could_not_be(setting: Setting) -> None:
    setting.journal.failing["delivered"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        run = await setting.run()
        watch = fleet.watch(run)
        await watch.recorded()
        watch.cancel()
        watch = fleet.watch(run)
        await anyio.sleep(0.05)
        del setting.journal.failing["delivered"]
        assert isinstance(await watch, Completed)
    assert len(setting.store) == 0


async def test_a_watch_may_be_cancelled_twice_at_once(setting: Setting) -> None:
    run = await setting.run()
    async with setting.fleet() as fleet:
        await fleet.watch(run).recorded()
        for _ in range(2):
            fleet.watch(run).cancel()
        assert isinstance(await fleet.watch(run), Completed)
        watch = fleet.watch(await setting.run())
        watch.cancel()
        await anyio.sleep(1)
        assert len(setting.store) == 0


async def test_one_run_of_many_that_another_process_watches_is_an_outcome(setting: Setting) -> None:
    class Slow(MemoryJournal):
        async def add(self, watches: Any) -> Any:
            await anyio.sleep(0.1)
            return await super().add(watches)

    runs = [await setting.run() for _ in range(2)]
    other, journal = MemoryJournal(setting.store), Slow(setting.store)
    async with other, journal, Fleet(setting.client, journal=other, on_exit="leave") as first:
        await first.watch(runs[0]).recorded()
        async with Fleet(setting.client, journal=journal, tools=setting.tools) as fleet:
            assert await fleet.add_many(runs) == 2
            outcomes = [outcome async for outcome in fleet]
    assert sum(outcome.reason is Reason.TAKEN_OVER for outcome in outcomes) == 1


# A response that another one has followed


async def followed(setting: Setting) -> Any:
    """Leave the watch of a response in the journal, as a process that died after its first submit."""
    async with setting.fleet(on_exit="leave") as fleet:
        run = await setting.run()
        fleet.watch(run)
        while "moved" not in setting.journal.calls:
            await anyio.sleep(0.01)
        await anyio.sleep(0.01)
        setting.store.crash()
    return run


@pytest.mark.parametrize("after", [0, 30])
@pytest.mark.parametrize("watches_first", [False, True])
async def test_calls_of_a_response_that_was_followed_do_not_run_again(after: float, *, watches_first: bool) -> None:
    setting = Both("responses", Scenario(rounds=ROUNDS, working=5))
    run = await followed(setting)
    await anyio.sleep(after)
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.watch(run) if watches_first else None
        (resumed,) = await fleet.resume()
        outcome = await (watch or fleet.watch(run))
        assert isinstance(outcome, GaveUp if watches_first else Completed)
        assert isinstance(await resumed, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]
    assert len(setting.store) == 0


@pytest.mark.parametrize("shell", ["fleet", "single"])
async def test_calls_of_a_response_do_not_run_again_in_this_process(shell: str) -> None:
    class Stuck(MemoryJournal):
        async def release(self, watches: Any) -> None:
            raise JournalError("The disk is full")

    setting = Both("responses", Scenario(rounds=ROUNDS, working=0.1))
    async with Stuck(setting.store) as journal, Client(transport=setting.transport, journal=journal) as client:
        run = await setting.run()
        async with Fleet(client, tools=setting.tools) as fleet:
            fleet.watch(run)
        await anyio.sleep(30)
        if shell == "single":
            with pytest.raises(NotOwnerError, match=r"goes on as resp_\w+ in the journal"):
                await client.watch(run, tools=setting.tools)
        else:
            async with Fleet(client, tools=setting.tools, on_exit="leave") as fleet:
                outcome = await fleet.watch(run)
            assert outcome.reason is Reason.TAKEN_OVER
    assert sorted(setting.ran) == ["a", "b", "c"]


# What is left to resume


async def test_an_outcome_that_was_not_delivered_is_told_by_the_next_fleet(setting: Setting) -> None:
    async with setting.journal as journal:
        async with Fleet(setting.client, journal=journal, tools=setting.tools) as fleet:
            fleet.watch(await setting.run())
        async with Fleet(setting.client, journal=journal, tools=setting.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)
    assert len(setting.store) == 0


@pytest.mark.parametrize("passes", [1, 2, 4, 8])
async def test_a_resume_in_a_fleet_that_is_left_keeps_nothing_from_others(setting: Setting, passes: int) -> None:
    runs = [await setting.run() for _ in range(40)]
    async with setting.journal as journal:
        async with Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
            await fleet.add_many(runs)
        async with Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
            resuming = asyncio.create_task(fleet.resume())
            for _ in range(passes):
                await asyncio.sleep(0)
        with contextlib.suppress(InvalidRequestError):  # the fleet was left
            await resuming
        async with Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
            assert len(await fleet.resume()) == 40


async def test_outcomes_that_are_read_after_the_fleet_was_left_are_forgotten(setting: Setting) -> None:
    async with setting.journal as journal:
        async with Fleet(setting.client, journal=journal, tools=setting.tools) as fleet:
            await fleet.add_many([await setting.run() for _ in range(3)])
        assert len(setting.store) == 3
        assert len([outcome async for outcome in fleet]) == 3
        assert len(setting.store) == 0


async def test_a_watch_whose_caller_was_cancelled_while_it_was_written_is_left_to_resume(setting: Setting) -> None:
    class Slow(MemoryJournal):
        async def add(self, watches: Any) -> Any:
            added = await super().add(watches)
            await anyio.sleep(0.1)
            return added

    run = await setting.run()
    async with Slow(setting.store) as journal, Client(transport=setting.transport, journal=journal) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.watch(run, tools=setting.tools)
        await anyio.sleep(0.01)
        async with Fleet(client, tools=setting.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)
    assert len(setting.store) == 0


@wires
async def test_a_call_that_a_single_watch_left_to_its_caller_is_left_to_it_again(wire: WireName) -> None:
    setting = Both(wire, Scenario(rounds=ROUNDS[:1], working=0.1))
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        assert isinstance(await client.watch(await setting.run(), tools=surfacing()), NeedsCaller)
        async with Fleet(client, tools=setting.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, NeedsCaller)
    assert setting.ran == []


async def test_a_run_that_the_fleet_only_observes_is_not_resumed_by_it(setting: Setting) -> None:
    run = RunRef.of(await setting.run())
    async with setting.journal as journal:
        async with Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
            await fleet.watch(run).recorded()
        async with Fleet(setting.client, journal=journal, tools=setting.tools, on_exit="leave") as fleet:
            observing = fleet.watch(run, observe_only=True)
            assert await fleet.resume() == []
            observing.cancel()
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]


# Delivered, and recorded


@pytest.mark.parametrize("subscribes", [False, True])
async def test_an_outcome_is_delivered_when_the_reader_of_its_watch_comes_back(
    setting: Setting, *, subscribes: bool
) -> None:
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        async for event in watch.subscribe() if subscribes else watch:
            await anyio.sleep(0.1)
            assert len(setting.store) == 1
            if isinstance(event, Ended):
                assert isinstance(event.outcome, Completed)
    assert len(setting.store) == 0


@wires
async def test_an_output_of_the_caller_is_recorded_before_it_is_submitted(wire: WireName) -> None:
    setting = Both(wire, Scenario(rounds=ROUNDS[:1], working=0.1))
    setting.transport.inject(Fault(on="submit", status=503, times=None))
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.watch(await setting.run(), tools=surfacing())
        outcome = await watch
        await watch.submit({call.id: f"caller {call.arguments}" for call in outcome.calls})
        await anyio.sleep(0.2)
        setting.store.crash()
    (entry,) = setting.store._entries.values()
    assert [call.output for call in entry.calls.values()] == ['caller {"to":"a"}', 'caller {"to":"b"}']
