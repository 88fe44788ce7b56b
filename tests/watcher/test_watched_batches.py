"""Watches of batches: they last for hours, are polled at minutes, and outlast outages."""

from __future__ import annotations

import itertools
import json
import logging
from typing import Any, assert_type

import anyio
import pytest
from batch_server import BatchServer, MessageBatchServer, steady

from asyncruns import (
    AnyOutcome,
    Cancelled,
    Client,
    Completed,
    Counts,
    CurrentState,
    Ended,
    Expired,
    Failed,
    Fleet,
    GaveUp,
    InvalidRequestError,
    ProgressChanged,
    RunRef,
    RunWatcher,
    StatusChanged,
    Watch,
)
from asyncruns.wire import Batch, MessageBatch, decode

HOUR = 3600.0


async def watched(server: BatchServer, batch_id: str, way: str, **options: Any) -> Any:
    """Return the outcome of a watch by a watcher or a fleet."""
    client = Client(transport=server)
    if way == "watcher":
        return await client.watch(batch_id=batch_id, **options)
    async with Fleet(client) as fleet:
        return await fleet.watch(batch_id=batch_id, **options)


WAYS = pytest.mark.parametrize("way", ["watcher", "fleet"])


@WAYS
async def test_a_batch_of_hours_is_polled_rarely_and_its_end_is_seen_soon(way: str) -> None:
    server = BatchServer(batch_1=steady(5 * HOUR))
    outcome = await watched(server, "batch_1", way)
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.run, Batch)
    assert outcome.run_elapsed == 5 * HOUR
    assert server.now - 5 * HOUR < 331.0
    assert outcome.polls < (200 if way == "watcher" else 500)
    pauses = [later - earlier for earlier, later in itertools.pairwise(server.polls("batch_1"))]
    assert max(pauses) <= 331.0
    assert max(pauses[:5]) < 10.0


@WAYS
async def test_a_short_batch_is_noticed_within_a_few_seconds(way: str) -> None:
    server = BatchServer(batch_1=steady(30.0))
    assert isinstance(await watched(server, "batch_1", way), Completed)
    assert server.now < 36.0


@WAYS
async def test_an_outage_of_half_an_hour_is_survived(way: str) -> None:
    server = BatchServer(batch_1=steady(2 * HOUR))
    server.down = (HOUR, 1.5 * HOUR)
    assert isinstance(await watched(server, "batch_1", way), Completed)


@WAYS
async def test_results_may_be_written_for_an_hour_after_the_expiry(way: str) -> None:
    server = BatchServer(batch_1=steady(24.9 * HOUR, end="expired"))
    outcome = await watched(server, "batch_1", way)
    assert isinstance(outcome, Expired)


@WAYS
async def test_a_batch_that_never_ends_is_given_up_an_hour_after_its_expiry(way: str) -> None:
    server = BatchServer(batch_1=steady(100 * HOUR))
    outcome = await watched(server, "batch_1", way)
    assert isinstance(outcome, GaveUp)
    assert server.now == pytest.approx(25 * HOUR, abs=60.0)


@WAYS
async def test_what_the_caller_chooses_takes_precedence(way: str) -> None:
    server = BatchServer(batch_1=steady(2 * HOUR))
    server.down = (100.0, HOUR)
    outcome = await watched(server, "batch_1", way, max_outage=60.0)
    assert isinstance(outcome, GaveUp)
    assert server.now < 400.0


async def test_progress_is_an_event_of_a_watcher_and_part_of_the_state() -> None:
    server = BatchServer(batch_1=steady(60.0, total=10))
    async with RunWatcher(Client(transport=server), RunRef("batch", ("batch_1",))) as watcher:
        events = [event async for event in watcher]
        state = await anext(watcher.subscribe())
    progress = [event for event in events if isinstance(event, ProgressChanged)]
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    assert (progress[-1].done, progress[-1].failed, progress[-1].total) == (10, 0, 10)
    assert [event.status for event in events if isinstance(event, StatusChanged)] == ["in_progress", "completed"]
    assert isinstance(events[-1], Ended)
    assert isinstance(state, CurrentState)
    assert state.counts == Counts(done=10, total=10)


async def test_a_fleet_sums_up_the_progress_of_its_batches() -> None:
    server = BatchServer(batch_1=steady(60.0, total=10), batch_2=steady(1e6, total=100), batch_3=steady(60.0, total=7))
    async with Fleet(Client(transport=server), on_exit="leave") as fleet:
        assert fleet.statistics().progress is None
        first, second, third = (fleet.watch(batch_id=f"batch_{n}") for n in (1, 2, 3))
        await first
        await third
        assert fleet.statistics().progress == Counts(done=17, total=117)
        for watch in (second, first, second):
            watch.cancel()
        assert fleet.statistics().progress == Counts(done=17, total=17)


async def test_the_answer_to_a_cancel_does_not_bring_back_a_batch_that_is_left_out() -> None:
    server = BatchServer(batch_1=steady(100.0, total=1000))
    async with Fleet(Client(transport=server), on_exit="leave") as fleet:
        watch = fleet.watch(batch_id="batch_1")
        await anyio.sleep(10.0)
        await watch.cancel_run()
        watch.cancel()
        await anyio.sleep(10.0)
        assert "batch_1" in server.cancelled
        assert fleet.statistics().progress == Counts()


async def test_a_cancel_may_take_minutes() -> None:
    server = BatchServer(batch_1=steady(5 * HOUR))
    async with RunWatcher(Client(transport=server), RunRef("batch", ("batch_1",))) as watcher:
        await anyio.sleep(10.0)
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    assert 300.0 < server.now < 340.0


@WAYS
async def test_leaving_with_a_cancel_under_way_warns_of_nothing(way: str, caplog: pytest.LogCaptureFixture) -> None:
    server = BatchServer(batch_1=steady(5 * HOUR))
    client, ref = Client(transport=server), RunRef("batch", ("batch_1",))
    if way == "watcher":
        async with RunWatcher(client, ref, on_exit="cancel") as watcher:
            await anyio.sleep(10.0)
        outcome: Any = watcher.outcome
    else:
        async with Fleet(client, on_exit="cancel") as fleet:
            watch = fleet.watch(ref)
            await anyio.sleep(10.0)
        outcome = watch.outcome
    assert isinstance(outcome, GaveUp)
    assert (outcome.status, outcome.cancel_requested, outcome.cancel_error) == ("cancelling", True, None)
    assert "batch_1" in server.cancelled
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_batch_has_results_and_no_messages() -> None:
    server = BatchServer(batch_1=steady(5.0), batch_2=steady(5.0, end="failed"))
    outcome = await Client(transport=server).batches.watch("batch_1")
    for read in (outcome.messages, outcome.text, outcome.refusal):
        with pytest.raises(InvalidRequestError, match=r"The batch batch_1 has results, not messages.*outcome.results"):
            await read()
    assert isinstance(await Client(transport=server).batches.watch("batch_2"), Failed)


@pytest.mark.parametrize("kind", ["struct", "openai", "dict", "ref", "ref_dict"])
@WAYS
async def test_a_batch_is_given_in_any_form(kind: str, way: str) -> None:
    from openai.types import Batch as Theirs

    server = BatchServer(batch_1=steady(5.0))
    body: dict[str, Any] = server.batch("batch_1") | {"completion_window": "24h", "input_file_id": "file_1"}
    given: Any = {
        "struct": decode(json.dumps(body).encode(), Batch),
        "openai": Theirs.model_validate(body),
        "dict": body,
        "ref": RunRef("batches", ("batch_1",)),
        "ref_dict": RunRef.of({"dialect": "batch", "ids": ["batch_1"]}),
    }[kind]
    client = Client(transport=server)
    assert RunRef.of(given) == RunRef("batch", ("batch_1",))
    if way == "watcher":
        assert isinstance(await client.watch(given), Completed)
        async with RunWatcher(client, given) as watcher:
            assert isinstance(await watcher.wait(), Completed)
    else:
        async with Fleet(client) as fleet:
            assert isinstance(await fleet.watch(given), Completed)


@pytest.mark.parametrize("kind", ["struct", "dict", "ref", "id"])
@WAYS
async def test_a_message_batch_is_given_in_any_form(kind: str, way: str) -> None:
    server = MessageBatchServer()
    body = server.batch()
    given: Any = {
        "struct": decode(json.dumps(body).encode(), MessageBatch),
        "dict": body,
        "ref": RunRef("messages.batches", ("msgbatch_1",)),
        "id": None,
    }[kind]
    named: Any = {"batch_id": "msgbatch_1"} if given is None else {}
    client = Client(transport=server)
    if way == "watcher":
        outcome = await client.watch(given, **named)
    else:
        async with Fleet(client) as fleet:
            outcome = await fleet.watch(given, **named)
            assert fleet.statistics().progress == Counts(done=9, failed=1, total=10)
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.run, MessageBatch)
    assert outcome.status == "ended"
    assert RunRef.of(outcome.run) == outcome.ref == RunRef("message_batch", ("msgbatch_1",))


@WAYS
async def test_a_message_batch_that_is_cancelled_ends_with_what_it_has(way: str) -> None:
    server = MessageBatchServer()
    client, ref = Client(transport=server), RunRef("message_batch", ("msgbatch_1",))
    if way == "watcher":
        async with RunWatcher(client, ref) as watcher:
            await watcher.cancel_run()
            outcome: Any = await watcher.wait()
    else:
        async with Fleet(client) as fleet:
            watch = fleet.watch(ref)
            await anyio.sleep(3.0)
            await watch.cancel_run()
            outcome = await watch
    assert isinstance(outcome, Cancelled)
    assert outcome.run.request_counts.succeeded == 4


async def test_mistakes_are_named() -> None:
    client = Client(transport=BatchServer())
    with pytest.raises(InvalidRequestError, match=r"pass batch_id='batch_1' to client\.watch or fleet\.watch"):
        await client.watch("batch_1")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match=r"RunRef\('message_batch', \('msgbatch_1',\)\)"):
        await client.watch("msgbatch_1")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="batch_id names a batch by itself: leave out run, thread_id"):
        await client.watch(batch_id="batch_1", run_id="run_1")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="batch_id must be a non-empty string"):
        await client.watch(batch_id=" ")
    with pytest.raises(InvalidRequestError, match="is not an id"):
        await client.watch(batch_id="..")
    with pytest.raises(InvalidRequestError, match="Expected a batch or a RunRef; got int"):
        await client.batches.watch(7)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="does not name a batch of this API"):
        await client.batches.watch(RunRef("response", ("resp_1",)))


async def test_outcomes_have_the_type_of_their_batch() -> None:
    server = BatchServer(batch_1=steady(5.0))
    client = Client(transport=server)
    batch = await client.batches.retrieve("batch_1")
    outcome = await client.watch(batch)
    assert_type(outcome, AnyOutcome[Batch])
    assert_type(await client.batches.watch("batch_1"), AnyOutcome[Batch])
    async with Fleet(client) as fleet:
        assert_type(fleet.watch(batch), Watch[Batch])
    assert outcome.unwrap().id == "batch_1"
