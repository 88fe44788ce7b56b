"""A run has one watch for each journal, which goes on from what is recorded, and is left to others in the end."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import anyio
import pytest
from test_watches_with_a_journal import FailingJournal, Setting, recorded_only
from worlds import ROUNDS

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
)
from asyncruns.fleet.member import Member
from asyncruns.lifecycle.records import key_of_run
from asyncruns.testing import Scenario
from asyncruns.watch.begin_recording import record_of


@pytest.fixture
def setting() -> Setting:
    return Setting(Scenario(rounds=ROUNDS, working=0.1))


async def left_in_a_call(setting: Setting) -> Any:
    """Leave a watch in the journal, as a process that died while tools ran; return the ref."""
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.watch(await setting.run())
        while not setting.ran:
            await anyio.sleep(0.001)
        setting.store.crash()
    return watch.ref


# Going on from what is recorded


async def test_resume_gives_its_record_to_a_watch_that_is_not_written_yet(setting: Setting) -> None:
    ref = await left_in_a_call(setting)
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.watch(ref)
        (resumed,) = await fleet.resume()
        assert resumed.ref == watch.ref
        assert isinstance(await watch, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]


async def test_a_run_that_is_watched_again_runs_no_call_again() -> None:
    setting = Setting(Scenario(rounds=ROUNDS[:1], working=0.1))

    async def handler(calls: Any) -> Any:
        setting.ran.append("handler")
        return {calls[0].id: "paid"}

    async with setting.journal as journal, Fleet(setting.client, journal=journal, on_requires_action=handler) as fleet:
        run = await setting.run()
        assert isinstance(await fleet.watch(run), NeedsCaller)
        again = await fleet.watch(run)
        assert setting.ran == ["handler"]
        assert isinstance(again, Completed)  # the model was told that it is not known what became of the other call


# A submit whose acceptance could not be written


async def test_no_call_begins_before_it_is_written_that_a_submit_was_accepted(setting: Setting) -> None:
    setting.journal.failing["moved"] = JournalError("The disk is full")
    async with setting.fleet(max_outage=0.0) as fleet:
        watch = fleet.watch(await setting.run())
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        assert isinstance(outcome.cause, JournalError)
        assert sorted(setting.ran) == ["a", "b"]
        del setting.journal.failing["moved"]
        await watch.submit({call.id: "paid" for call in outcome.calls})
        assert isinstance(await watch, Completed)
    assert setting.journal.calls.count("moved") == 4


# One watch of each run


async def test_a_second_watch_in_this_process_is_refused(setting: Setting) -> None:
    run = await setting.run()
    async with (
        setting.journal as journal,
        Client(transport=setting.transport, journal=journal) as client,
        RunWatcher(client, run, tools=setting.tools) as watcher,
    ):
        with pytest.raises(NotOwnerError, match="is watched with this journal already, in this process"):
            await client.watch(run)
        async with Fleet(client, on_exit="leave") as fleet:
            refused = await fleet.watch(run)
        assert isinstance(refused, GaveUp)
        assert refused.reason is Reason.TAKEN_OVER
        assert isinstance(await watcher.wait(), Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]


async def test_a_resume_leaves_to_a_watch_what_that_goes_on_with(setting: Setting) -> None:
    run, other = await setting.run(), await setting.run()
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        async with Fleet(client, on_exit="leave") as fleet:
            await fleet.watch(other).recorded()
        async with RunWatcher(client, run, tools=setting.tools) as watcher:
            await journal.aclose()  # leaves the watch to any that claims it
            await journal.open()
            async with Fleet(client, tools=setting.tools) as fleet:
                (watch,) = await fleet.resume()
                assert watch.ref != watcher.ref
                assert isinstance(await watcher.wait(), Completed)
    assert sorted(setting.ran) == ["a", "a", "b", "b", "c", "c"]


async def test_a_watch_that_is_taken_over_can_be_resumed_by_the_client(setting: Setting) -> None:
    async with (
        setting.journal as journal,
        Client(transport=setting.transport, journal=journal) as client,
        Fleet(client, tools=setting.tools) as fleet,
    ):
        watch = fleet.watch(await setting.run())
        await watch.recorded()
        await journal.release([key_of_run(watch.ref)])  # as if another process had claimed it, and left it again
        assert (await watch).reason is Reason.TAKEN_OVER
        (watcher,) = await client.resume(tools=setting.tools)
        async with watcher:
            assert isinstance(await watcher.wait(), Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]


@pytest.mark.slow
async def test_a_run_that_another_process_watches_is_not_kept_in_memory(setting: Setting) -> None:
    ref = RunRef.of(await setting.run())
    async with MemoryJournal(setting.store) as other, setting.journal as journal:
        await other.add([record_of(ref, None)])
        async with Fleet(Client(transport=setting.transport, journal=journal), on_exit="leave") as fleet:
            runner = fleet._hub.runner
            for _ in range(20):
                assert (await fleet.watch(ref)).reason is Reason.TAKEN_OVER
                await anyio.sleep(0.1)  # its poll is answered
            async for _ in fleet:
                pass
            gc.collect()
            kept = [each for each in gc.get_objects() if isinstance(each, Member) and each._host is runner]
            assert len(kept) < 5  # those that tasks have handled last


async def test_a_watch_that_was_left_may_be_watched_again(setting: Setting) -> None:
    run = await setting.run()
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        async with RunWatcher(client, run):
            pass
        async with Fleet(client, tools=setting.tools, on_exit="leave") as fleet:
            (watch,) = await fleet.resume()
        async with Fleet(client, tools=setting.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)


async def test_who_only_observes_records_nothing(setting: Setting) -> None:
    run = await setting.run()
    async with (
        setting.journal as journal,
        Client(transport=setting.transport, journal=journal) as client,
        RunWatcher(client, run, observe_only=True),
        Fleet(client, on_exit="leave") as fleet,
    ):
        fleet.watch(run, observe_only=True, label=object())
        await anyio.sleep(0.05)
        assert setting.journal.calls == []
        assert isinstance(await client.watch(run, tools=setting.tools), Completed)


# When a single watch is forgotten


async def test_a_single_watch_is_forgotten_once_the_caller_has_the_outcome(setting: Setting) -> None:
    class Slow(FailingJournal):
        async def delivered(self, watches: Any) -> None:
            if watches:
                assert task.done()
            await super().delivered(watches)

    async with Slow(setting.store) as journal, Client(transport=setting.transport, journal=journal) as client:
        task = asyncio.create_task(client.watch(await setting.run(), tools=setting.tools))
        assert isinstance(await task, Completed)
    assert len(setting.store) == 0


async def test_an_event_that_the_reader_did_not_get_past_is_told_again(setting: Setting) -> None:
    run = await setting.run()
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        async with RunWatcher(client, run, tools=setting.tools) as watcher:
            async for _ in watcher:
                assert len(setting.store) == 1
        assert len(setting.store) == 0


# Before something is created, and after


@pytest.mark.parametrize("label", [object(), "\ud800"])
async def test_nothing_is_created_for_a_label_that_cannot_be_written(setting: Setting, label: object) -> None:
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        with pytest.raises(InvalidRequestError, match="label must be a plain JSON value"):
            await client.run(assistant_id="asst_1", message="Pay", label=label)
    assert not setting.transport.requests


async def test_nothing_is_created_without_an_open_journal(setting: Setting) -> None:
    async with Client(transport=setting.transport, journal=MemoryJournal()) as client:
        with pytest.raises(JournalError, match="not open"):
            await client.run(assistant_id="asst_1", message="Pay")
    assert not setting.transport.requests


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_a_run_that_cannot_be_written_is_left_as_on_exit_says(setting: Setting, on_exit: Any) -> None:
    setting.journal.failing["add"] = JournalError("The disk is full")
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        said = "was cancelled" if on_exit == "cancel" else "goes on"
        with pytest.raises(JournalError, match=f"The run .* {said}.*The disk is full"):
            await client.watch(await setting.run(), on_exit=on_exit)
    cancels = sum(seen.operation == "cancel" for seen in setting.transport.requests)
    assert cancels == (1 if on_exit == "cancel" else 0)


# One that cannot be written


async def test_a_watch_that_cannot_be_written_does_not_hold_others_up(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    class Choosy(MemoryJournal):
        async def add(self, watches: Any) -> Any:
            if any(watch.label == "bad" for watch in watches):
                await asyncio.sleep(0)
                raise JournalError("This one is bad")
            return await super().add(watches)

    runs = [await setting.run() for _ in range(3)]
    caplog.set_level(logging.ERROR)
    async with Choosy(setting.store) as journal, Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
        bad, *others = [fleet.watch(run, label=label) for run, label in zip(runs, ("bad", "good", "good"), strict=True)]
        for watch in others:
            await watch.recorded()
        with pytest.raises(JournalError, match="This one is bad"):
            await bad.recorded()
        assert len(setting.store) == 2
        await anyio.sleep(30)
        late = fleet.watch(await setting.run())
        async with asyncio.timeout(0.5):
            await late.recorded()


# What is not watched is left to others


async def test_a_run_that_needs_its_caller_is_forgotten_by_cancel() -> None:
    setting = Setting(Scenario(rounds=ROUNDS[:1], working=0.1))
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run(), tools=None)
        assert isinstance(await watch, NeedsCaller)
        assert len(setting.store) == 1
        assert not watch.cancel()
    assert len(setting.store) == 0


async def test_a_fleet_that_is_left_leaves_its_runs_to_the_next(setting: Setting) -> None:
    async with setting.journal as journal:
        async with Fleet(setting.client, journal=journal, tools=setting.tools, on_exit="leave") as fleet:
            await fleet.watch(await setting.run()).recorded()
        async with Fleet(setting.client, journal=journal, tools=setting.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)


async def test_a_resume_whose_factory_raises_leaves_the_others(setting: Setting) -> None:
    await recorded_only(setting)

    def broken(ref: object, label: object) -> object:
        raise ZeroDivisionError

    async with setting.fleet() as fleet:
        with pytest.raises(ZeroDivisionError):
            await fleet.resume(context_factory=broken)
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)


async def test_an_outcome_is_told_again_if_the_caller_was_cancelled_before_it_had_it(setting: Setting) -> None:
    seen = asyncio.Event()

    async def slow(event: object) -> None:
        if isinstance(event, Ended):
            seen.set()
            await anyio.sleep(1)

    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        watching = client.watch(await setting.run(), tools=setting.tools, on_event=slow)
        task = asyncio.create_task(watching)
        await seen.wait()
        await anyio.sleep(0.1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with Fleet(client) as fleet:
            while not (watches := await fleet.resume()):
                await anyio.sleep(0.1)
            assert isinstance(await watches[0], Completed)
    assert len(setting.store) == 0
