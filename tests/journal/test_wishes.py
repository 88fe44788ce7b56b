"""What one process asks another that watches a run: to poll it now, and to cancel it. And the trace of a watch."""

from __future__ import annotations

import asyncio
import logging
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from handing import Bank
from worlds import ROUNDS, WireName

from asyncruns import (
    Cadence,
    Cancelled,
    Client,
    Completed,
    Fleet,
    InvalidRequestError,
    JournalError,
    MemoryJournal,
    NeedsCaller,
    RunRef,
    RunWatcher,
)
from asyncruns.resources.webhooks import WebhookEvent
from asyncruns.watch.holders import _HOLDERS

ShellName = Literal["fleet", "single"]


@pytest.fixture(params=["threads", "responses"])
def wire(request: pytest.FixtureRequest) -> WireName:
    name: WireName = request.param
    return name


@pytest.fixture(params=["fleet", "single"])
def shell(request: pytest.FixtureRequest) -> ShellName:
    name: ShellName = request.param
    return name


@pytest.fixture(params=["memory", "sqlite"])
def bank(request: pytest.FixtureRequest, wire: WireName, tmp_path: Path) -> Bank:
    return Bank(wire, tmp_path / "runs.db" if request.param == "sqlite" else None, rounds=(), working=30.0)


@asynccontextmanager
async def watched(shell: ShellName, client: Client, run: Any, **options: Any) -> AsyncIterator[Any]:
    """Watch a run that is polled rarely."""
    options = {"cadence": Cadence.fixed(300.0), **options}
    if shell == "single":
        async with RunWatcher(client, run, **options) as watcher:
            yield watcher
        return
    async with Fleet(client, on_exit="leave", **options) as fleet:
        watch = fleet.watch(run)
        await watch.recorded()
        yield watch


async def asked(process: ShellName, client: Client, run: Any, *, cancel: bool = False) -> bool:
    """Ask for a poll, or a cancel, in another process; a fleet returns whether it watches the run itself."""
    if process == "single":
        return await (client.cancel_run(run) if cancel else client.poll_now(run))
    async with Fleet(client) as fleet:
        found = fleet.cancel_run(run) if cancel else fleet.poll_now(run)
        await asyncio.sleep(1)
    return found


@pytest.mark.parametrize("asker", ["fleet", "single"])
async def test_another_process_may_ask_for_a_poll(bank: Bank, shell: ShellName, asker: ShellName) -> None:
    run = await bank.run()
    loop = asyncio.get_running_loop()
    async with bank.journal() as journal, bank.client(journal) as client, watched(shell, client, run) as watch:
        began = loop.time()
        await asyncio.sleep(31)
        async with bank.journal() as other:
            assert await asked(asker, bank.client(other), run) is (asker == "single")
            assert isinstance(await watch.wait(), Completed)
    assert loop.time() - began < 60


@pytest.mark.parametrize("asker", ["fleet", "single"])
async def test_another_process_may_ask_for_a_cancel(bank: Bank, shell: ShellName, asker: ShellName) -> None:
    run = await bank.run()
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watched(shell, client, run) as watch,
        bank.journal() as other,
    ):
        assert await asked(asker, bank.client(other), run, cancel=True) is (asker == "single")
        outcome = await watch.wait()
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested


async def test_a_watch_that_waits_for_its_caller_may_be_cancelled(tmp_path: Path, shell: ShellName) -> None:
    bank = Bank("threads", tmp_path / "runs.db")
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watched(shell, client, await bank.run(), cadence=Cadence.fixed(1.0)) as watch,
        bank.journal() as other,
    ):
        assert isinstance(await watch.wait(), NeedsCaller)
        assert await bank.client(other).cancel_run(watch.ref)
        await asyncio.sleep(3)
        assert isinstance(await watch.wait(), Cancelled)


async def test_a_watch_that_is_not_entered_yet_is_cancelled_then(bank: Bank) -> None:
    async with bank.journal() as journal, bank.client(journal) as client, RunWatcher(client, await bank.run()):
        pass
    async with bank.journal() as journal, bank.client(journal) as client, bank.journal() as other:
        (watcher,) = await client.resume()
        assert await bank.client(other).poll_now(watcher.ref)
        assert await bank.client(other).cancel_run(watcher.ref)
        await asyncio.sleep(1)
        async with watcher:
            assert isinstance(await watcher.wait(), Cancelled)


async def test_a_client_asks_what_watches_in_its_own_process(bank: Bank, shell: ShellName) -> None:
    run = await bank.run()
    async with bank.journal() as journal, bank.client(journal) as client, watched(shell, client, run) as watch:
        assert await client.poll_now(run)
        assert await client.cancel_run(RunRef.of(run))
        assert isinstance(await watch.wait(), Cancelled)
        assert watch.polls < 5


async def test_a_webhook_may_arrive_at_any_worker(shell: ShellName) -> None:
    bank = Bank("responses", rounds=(), working=30.0)
    run = await bank.run()
    event = WebhookEvent(
        id="evt_1", type="response.completed", created_at=None, data={}, ref=RunRef.of(run), is_repeat=False
    )
    about_nothing = WebhookEvent(id="evt_2", type="x.y", created_at=None, data={}, ref=None, is_repeat=False)
    for asker in ("fleet", "single"):
        async with bank.journal() as journal, bank.client(journal) as client, watched(shell, client, run) as watch:
            await asyncio.sleep(31)
            async with bank.journal() as other:
                await asked(asker, bank.client(other), event)
                assert not await asked(asker, bank.client(other), about_nothing)
            async with asyncio.timeout(5):
                assert isinstance(await watch.wait(), Completed)


async def test_a_run_that_nothing_watches_is_not_asked_about(bank: Bank) -> None:
    run = await bank.run()
    async with bank.journal() as journal, bank.client(journal) as client:
        assert not await client.poll_now(run)
        assert not await client.cancel_run(run)
    with pytest.raises(InvalidRequestError, match="no journal, which says what watches a run"):
        await bank.client().poll_now(run)
    async with Fleet(bank.client()) as fleet:
        assert not fleet.poll_now(run)
        assert not fleet.cancel_run(run)


async def test_a_run_of_a_later_round_is_found(shell: ShellName) -> None:
    bank = Bank("responses", rounds=ROUNDS[:1], working=30.0)
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        bank.journal() as other,
        watched(shell, client, await bank.run(), cadence=Cadence.fixed(5.0), tools=bank.tools) as watch,
    ):
        first = watch.ref
        while watch.ref == first:
            await asyncio.sleep(1)
        for ref in (first, watch.ref):
            assert await bank.client(other).poll_now(ref)
        assert await client.cancel_run(watch.ref)
        assert isinstance(await watch.wait(), Cancelled)


async def test_nothing_listens_when_nothing_is_watched(bank: Bank, shell: ShellName) -> None:
    run = await bank.run()
    async with bank.journal() as journal, bank.client(journal) as client:
        async with watched(shell, client, run):
            assert sum("wishes" in task.get_name() for task in asyncio.all_tasks()) == 1
        await asyncio.sleep(0)
        assert not any("wishes" in task.get_name() for task in asyncio.all_tasks())
        assert not _HOLDERS[journal].by_key


class DeafJournal(MemoryJournal):
    """Cannot be asked for a while, or ever."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.errors: list[Exception] = [error]

    async def wishes(self) -> Any:
        if self.errors:
            raise self.errors.pop()
        return await super().wishes()

    async def ask(self, ref: RunRef, wish: Any) -> bool:
        raise JournalError("no disk")


async def test_a_journal_that_cannot_be_asked_is_asked_again(
    shell: ShellName, caplog: pytest.LogCaptureFixture
) -> None:
    bank = Bank("threads", rounds=(), working=30.0)
    run = await bank.run()
    other = MemoryJournal()
    async with DeafJournal(JournalError("locked")) as journal, bank.client(journal) as client:
        other = MemoryJournal(journal.store)
        async with watched(shell, client, run) as watch, other:
            await asyncio.sleep(10)
            assert await bank.client(other).cancel_run(run)
            assert isinstance(await watch.wait(), Cancelled)
    async with DeafJournal(ValueError("a bug")) as journal, bank.client(journal) as client:
        with caplog.at_level(logging.WARNING):
            async with watched(shell, client, await bank.run()):
                await asyncio.sleep(1)
                async with Fleet(client) as fleet:
                    fleet.poll_now(run)
                    await asyncio.sleep(1)
        assert "is not heard: the journal raised ValueError('a bug')" in caplog.text
        assert "what was asked of another process (poll): no disk" in caplog.text


# The trace of the caller


async def test_the_trace_of_the_caller_is_kept(shell: ShellName, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank("threads", rounds=(), working=30.0)
    context = types.SimpleNamespace(trace_id=0xABC, span_id=0xDEF, trace_flags=1, is_valid=True)
    span = types.SimpleNamespace(get_span_context=lambda: context)
    trace = types.SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    async with bank.journal() as journal, bank.client(journal) as client:
        async with watched(shell, client, await bank.run()) as watch:
            first = watch.traceparent
        context.is_valid = False
        async with watched(shell, client, await bank.run()) as watch:
            assert watch.traceparent == ""
        (resumed, _) = await client.resume()
        assert first == resumed.traceparent == "00-00000000000000000000000000000abc-0000000000000def-01"
    async with bank.client() as client, watched(shell, client, await bank.run()) as watch:
        assert watch.traceparent == ""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watched(shell, client, await bank.run()) as watch,
    ):
        assert watch.traceparent == ""
