"""Processes on one PostgreSQL: leases that run out, processes that are killed or stopped, and what they may do."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from holders import hammer, open_at_once, watch
from killed_fleet import kill_some as kill_some_programs
from postgres_server import PostgresServer
from worlds import World
from writers import LEASE_S, claimed, journal_at, kill_some, received, started

from asyncruns import Client, Completed, Fleet, NotOwnerError, PostgresJournal, Reason, RunRef, Toolset
from asyncruns.abc import Journal
from asyncruns.journal.memory import MemoryStore
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish, ref_of
from asyncruns.testing import FunctionCall

pytestmark = pytest.mark.slow

OTHER = RunRef("thread_run", ("thread_1", "other"))
CALL = CallRecord(key="1", call_id="1")


def end_lease(postgres: PostgresServer, dsn: str) -> None:
    """Let the lease of the owner of all watches run out, as if it had not been renewed; the server began long ago."""
    of_owner = "WHERE id IN (SELECT owner FROM asyncruns_journal.watches)"
    postgres.execute(dsn, f"UPDATE asyncruns_journal.owners SET until = 'epoch', lease = '-1 year' {of_owner}")


async def test_a_claim_ends_the_lease_that_has_run_out(dsn: str, postgres: PostgresServer) -> None:
    async with PostgresJournal(dsn) as mine, PostgresJournal(dsn) as other:
        await mine.add([watch("w"), watch("v")])
        await mine.begin("w", [CALL])
        assert await other.claim() == []
        end_lease(postgres, dsn)
        assert await other.claim(["w"]) == [WatchRecord(key="w", ref=watch("w").ref, calls=(CALL,))]
        for key in ("w", "v"):  # also of the one that nobody has taken
            for attempt in (
                mine.begin(key, [CallRecord(key="2", call_id="2")]),
                mine.answered(key, [CallRecord(key="1", call_id="1", output="late")]),
                mine.submitting(key, ["1"]),
                mine.moved(key, OTHER, 1.0),
                mine.finished({key: {"outcome": "Completed"}}),
                mine.delivered([key]),
                mine.add([watch(key)]),
            ):
                with pytest.raises(NotOwnerError):
                    await attempt
        await mine.release(["w"])
        assert await mine.add([watch("new")]) == [watch("new")]
        assert await mine.claim() == [watch("v")]
        assert await mine.begin("v", [CALL]) == []
        assert [record.owner[:8] for record in await other.read()] == ["process "] * 3
        assert await other.begin("w", [CALL]) == [CALL]


async def test_a_lease_that_has_run_out_goes_on_if_nobody_has_claimed(dsn: str, postgres: PostgresServer) -> None:
    async with PostgresJournal(dsn) as mine, PostgresJournal(dsn) as other:
        await mine.add([watch("w")])
        end_lease(postgres, dsn)
        assert [record.owner for record in await other.read()] == [""]
        assert not await other.ask(ref_of(watch("w")), Wish.POLL)
        assert await mine.begin("w", [CALL]) == []


async def test_a_server_that_has_just_started_ends_no_lease(dsn: str, postgres: PostgresServer) -> None:
    async with PostgresJournal(dsn) as mine, PostgresJournal(dsn) as other:
        await mine.add([watch("w")])
        postgres.execute(dsn, "UPDATE asyncruns_journal.owners SET until = 'epoch', lease = '1 year'")
        assert await other.claim() == []


@pytest.mark.real_time
async def test_a_lease_is_renewed(dsn: str) -> None:
    async with PostgresJournal(dsn, lease=0.3) as mine, PostgresJournal(dsn) as other:
        await mine.add([watch("w")])
        await asyncio.sleep(1.0)
        assert await other.claim() == []


@pytest.mark.real_time
async def test_a_journal_that_is_abandoned_is_free(dsn: str) -> None:
    journal = PostgresJournal(dsn, lease=0.3)
    await journal.open()
    await journal.add([watch("w")])
    del journal
    gc.collect()
    async with PostgresJournal(dsn) as other:
        end = time.monotonic() + 5.0
        while not (records := await other.claim()) and time.monotonic() < end:
            await asyncio.sleep(0.05)
    assert records == [watch("w")]


# Processes


@pytest.mark.parametrize("attempt", range(3))
def test_a_process_that_was_stopped_begins_nothing_more(dsn: str, attempt: int) -> None:
    """It is stopped in the middle of a transaction, as often as not."""
    process, connection = started(hammer, dsn)
    assert received(connection) == "owned"
    time.sleep(0.2 + 0.01 * attempt)
    os.kill(process.pid or 0, signal.SIGSTOP)
    assert asyncio.run(claimed_and_kept(dsn)) == []
    time.sleep(LEASE_S + 0.2)

    async def take_over() -> None:
        async with journal_at(dsn) as journal:
            taken = await journal.claim()
            assert sorted(record.key for record in taken) == ["v", "w"]
            begun = max(len(record.calls) for record in taken)
            os.kill(process.pid or 0, signal.SIGCONT)
            number, error = await asyncio.to_thread(received, connection)
            # Or it was stopped before it read the answer to a COMMIT: then the connection is lost.
            assert error in ("NotOwnerError", "JournalError")
            assert number >= begun - 1
            calls = {record.key: record.calls for record in await journal.read()}
            assert calls == {record.key: record.calls for record in taken}

    asyncio.run(take_over())
    process.join()


async def claimed_and_kept(dsn: str) -> list[WatchRecord]:
    async with journal_at(dsn) as journal:
        return await journal.claim()


def test_what_was_returned_is_there_after_a_kill(dsn: str) -> None:
    chance = random.Random(1)
    steps = sum(kill_some(dsn, f"w{number}", chance) for number in range(2))
    assert steps > 40


def test_processes_may_create_the_tables_at_once(dsn: str) -> None:
    others = [started(open_at_once, dsn) for _ in range(6)]
    assert {received(connection) for _, connection in others} == {"ready"}
    for _, connection in others:
        connection.send("go")
    assert {received(connection) for _, connection in others} == {""}
    for process, _ in others:
        process.join()
    assert len(asyncio.run(claimed(dsn))) == 6


@pytest.mark.real_time
async def test_fleets_that_are_killed_and_stopped_lose_nothing(tmp_path: Path, dsn: str) -> None:
    counted = await kill_some_programs(tmp_path, "threads", random.Random(2), runs=10, at_most=1, stops=1, dsn=dsn)
    assert counted.is_well, counted
    assert (counted.kills, counted.stops) == (1, 1)
    assert counted.begun > 0


# Deaths at any point


class PostgresStore(MemoryStore):
    """What the worlds ask of a store, of a journal in PostgreSQL."""

    def __init__(self, postgres: PostgresServer, dsn: str) -> None:
        super().__init__()
        self.postgres, self.dsn = postgres, dsn

    def __len__(self) -> int:
        ((count,),) = self.postgres.execute(self.dsn, "SELECT count(*) FROM asyncruns_journal.watches")
        assert isinstance(count, int)
        return count

    def crash(self) -> None:
        self.postgres.execute(self.dsn, "DELETE FROM asyncruns_journal.owners")


class PostgresWorld(World):
    def __init__(self, wire: Any, shell: Any, postgres: PostgresServer, dsn: str) -> None:
        super().__init__(wire, shell)
        self.store = PostgresStore(postgres, dsn)
        self._dsn = dsn

    def new_journal(self) -> Journal:
        return PostgresJournal(self._dsn)

    def _note_what_is_there(self) -> None:
        labels = "SELECT (convert_from(content, 'UTF8')::json->>'label')::int FROM asyncruns_journal.watches"
        self.recorded |= {label for (label,) in self.store.postgres.execute(self._dsn, labels)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("wire", ["threads", "responses"])
@pytest.mark.parametrize("seed", range(6))
async def test_a_program_may_die_again_and_again(wire: Any, seed: int, postgres: PostgresServer, dsn: str) -> None:
    chance = random.Random(seed)
    world = PostgresWorld(wire, "fleet", postgres, dsn)
    await world.create()
    deaths: Sequence[int | None] = [chance.randrange(1, 60) for _ in range(chance.randrange(2, 5))]
    for dies_at in (*deaths, None):
        await world.live(dies_at)
    world.check()


async def test_a_fleet_whose_lease_ran_out_submits_nothing_and_tells_it(
    dsn: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As a process that was stopped while a call ran: the call goes on, and its output is not submitted."""
    world = World("threads", "fleet", runs=1, rounds=((FunctionCall("pay", {"to": "a"}),),))
    await world.create()
    tools = Toolset()

    @tools.tool
    async def pay(to: str) -> str:
        await asyncio.sleep(5.0)
        return "paid late"

    client = Client(transport=world.transport)
    async with (
        PostgresJournal(dsn) as journal,
        PostgresJournal(dsn) as other,
        client,
        Fleet(client, journal=journal, tools=tools) as first,
        Fleet(client, journal=other, tools=tools) as following,
    ):
        watch_of_first = first.watch(world.runs[0])
        await asyncio.sleep(2.0)  # the call has begun
        end_lease(postgres, dsn)
        (resumed,) = await following.resume()
        assert isinstance(await resumed, Completed)
        outcome = await watch_of_first
    assert outcome.reason is Reason.TAKEN_OVER or isinstance(outcome, Completed)
    (submit,) = [seen for seen in world.transport.requests if seen.operation == "submit"]
    assert b"is not known" in submit.body
    assert b"paid late" not in submit.body
    assert "the lease of this process had run out" in caplog.text
