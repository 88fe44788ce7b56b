"""What `Client.resume` takes up, and what becomes of watches that are not entered."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from handing import Bank
from worlds import WireName

from asyncruns import Client, Completed, Fleet, InvalidRequestError, NotOwnerError, RunRef, RunWatcher
from asyncruns.lifecycle.records import WatchRecord
from asyncruns.testing import Fault


@pytest.fixture(params=["threads", "responses"])
def wire(request: pytest.FixtureRequest) -> WireName:
    name: WireName = request.param
    return name


@pytest.fixture(params=["memory", "sqlite"])
def bank(request: pytest.FixtureRequest, wire: WireName, tmp_path: Path) -> Bank:
    return Bank(wire, tmp_path / "runs.db" if request.param == "sqlite" else None)


async def left(bank: Bank, label: object = "left") -> None:
    """Leave a watch in the journal while its calls are under way."""
    bank.pays.clear()
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        RunWatcher(client, await bank.run(), tools=bank.tools, label=label),
    ):
        await bank.until_it_pays()
    bank.pays.set()


async def test_a_client_goes_on_with_what_was_left(bank: Bank) -> None:
    await left(bank, {"order": 7})
    async with bank.journal() as journal, bank.client(journal) as client:
        (watcher,) = await client.resume(tools=bank.tools, context_factory=lambda ref, label: label["order"])
        assert watcher.label == {"order": 7}
        async with watcher:
            outcome = await watcher.wait()
        assert isinstance(outcome, Completed)
        assert (outcome.label, outcome.context) == ({"order": 7}, 7)
        assert await client.resume() == []
    assert bank.began == {"a": 1, "b": 1}
    assert b"not known" in bank.submits()[0]  # of the call that was under way


async def test_what_is_not_entered_is_left_when_the_client_is_closed(bank: Bank) -> None:
    await left(bank)
    async with bank.journal() as journal, bank.journal() as other:
        async with bank.client(journal) as client:
            (watcher,) = await client.resume(tools=bank.tools)
            assert await other.claim() == []
        assert [record.label for record in await other.claim()] == ["left"]
        with pytest.raises(InvalidRequestError, match="The client was closed since this watch was resumed"):
            await watcher.__aenter__()


async def test_a_watcher_that_is_left_is_resumed_again(bank: Bank) -> None:
    await left(bank)
    async with bank.journal() as journal, bank.client(journal) as client:
        for _ in range(2):
            (watcher,) = await client.resume()
            async with watcher:
                pass
        async with Fleet(client, tools=bank.tools) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)
    assert bank.began == {"a": 1, "b": 1}


async def test_a_resumed_run_is_watched_once_in_a_process(bank: Bank) -> None:
    await left(bank)
    async with bank.journal() as journal, bank.client(journal) as client:
        (watcher,) = await client.resume(tools=bank.tools)
        with pytest.raises(NotOwnerError, match="watched with this journal already"):
            await client.watch(watcher.ref)
        async with watcher:
            assert isinstance(await watcher.wait(), Completed)


async def test_what_a_client_cannot_watch_stays_in_the_journal(bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    await left(bank)
    async with bank.journal() as journal:
        await journal.add([WatchRecord(key="odd", ref=RunRef("odd", ("x",)))])
        await journal.release(["odd"])
        async with bank.client(journal) as client:
            with caplog.at_level(logging.WARNING):
                assert len(await client.resume()) == 1
            assert "cannot be watched here" in caplog.text
            assert [record.key for record in await journal.claim()] == ["odd"]


async def test_a_factory_that_raises_leaves_all_in_the_journal(bank: Bank) -> None:
    def fail(ref: object, label: object) -> object:
        raise ValueError("no such order")

    await left(bank)
    async with bank.journal() as journal, bank.client(journal) as client:
        with pytest.raises(ValueError, match="no such order"):
            await client.resume(context_factory=fail)
        assert len(await client.resume()) == 1


async def test_a_run_that_is_gone_has_the_outcome_that_was_recorded(bank: Bank) -> None:
    run = await bank.run()
    async with bank.journal() as journal, Fleet(bank.client(), journal=journal, tools=bank.tools) as fleet:
        fleet.watch(run, label="told")
    bank.transport.inject(Fault(on="poll", status=404, times=None))
    async with bank.journal() as journal, bank.client(journal) as client:
        (watcher,) = await client.resume()
        async with watcher:
            outcome: Any = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.label == "told"


async def test_a_client_without_a_journal_resumes_nothing() -> None:
    with pytest.raises(InvalidRequestError, match="no journal to resume from"):
        await Bank("threads").client().resume()


async def test_a_closed_journal_does_not_hold_up_the_client(bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    await left(bank)
    async with bank.journal() as journal:
        client: Client = bank.client(journal)
        assert len(await client.resume()) == 1
    await client.close()
    assert caplog.records == []


# Observers that got the outcome


@pytest.mark.parametrize("raises", [False, True])
async def test_an_observer_of_a_single_watch_acknowledges_its_outcome(bank: Bank, *, raises: bool) -> None:
    async def note(outcome: object) -> None:
        if raises:
            raise ValueError("no disk")

    async with bank.journal() as journal, bank.client(journal) as client:
        async with RunWatcher(client, await bank.run(), tools=bank.tools, on_terminal=note) as watcher:
            while watcher.outcome is None:
                await asyncio.sleep(0.05)
        assert len(await journal.read()) == (1 if raises else 0)
