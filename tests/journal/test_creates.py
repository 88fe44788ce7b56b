"""A run that is asked for with a journal is created once, whatever becomes of the process in between."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Struct
from msgspec.structs import replace
from test_watches_with_a_journal import Setting

from asyncruns import (
    APIConnectionError,
    Client,
    Completed,
    Fleet,
    GaveUp,
    InvalidRequestError,
    JournalError,
    MemoryJournal,
    NeedsCaller,
    NotOwnerError,
    Reason,
    SQLiteJournal,
)
from asyncruns.lifecycle.records import WatchRecord
from asyncruns.testing import Fault, FunctionCall, Scenario

ASK: dict[str, Any] = {"assistant_id": "asst_1", "message": "Hello"}


@pytest.fixture
def setting() -> Setting:
    return Setting(Scenario(working=0.1))


def operations(setting: Setting) -> Counter[str]:
    return Counter(seen.operation for seen in setting.transport.requests)


def the_body(setting: Setting, operation: str) -> dict[str, Any]:
    (body,) = [json.loads(seen.body) for seen in setting.transport.requests if seen.operation == operation]
    assert isinstance(body, dict)
    return body


def recorded(setting: Setting) -> list[Any]:
    return [entry.whole for entry in setting.store._entries.values()]


async def asked_only(setting: Setting, **more: Any) -> None:
    """Leave a run in the journal that was asked for, as a process that died before it sent anything."""
    async with setting.fleet(on_exit="leave") as fleet:
        ask: Any = {**ASK, "label": "asked", **more}
        watch = fleet.run(**ask)
        await watch.recorded()
        setting.store.crash()
        watch.cancel()


# What is written, and when


async def test_a_run_is_written_down_until_it_is_created(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.run(**ASK, label=7)
        await watch.recorded()
        (asked,) = recorded(setting)
        assert (asked.ref, asked.refs, asked.label) == (None, (), 7)
        assert asked.creating["content"] == "Hello"
        ref = await watch.created()
        await anyio.sleep(0.05)
        (created,) = recorded(setting)
        assert (created.ref, created.refs, created.creating, created.submitting) == (ref, (ref,), None, ())
        assert created.key == asked.key
        await watch
        await anyio.sleep(2.0)
        assert recorded(setting) == []


@pytest.mark.parametrize("has_thread", [True, False])
async def test_a_journal_costs_no_request(setting: Setting, has_thread: bool) -> None:
    counts = []
    thread = await setting.client.threads.create()
    more: dict[str, Any] = {"thread_id": thread.id} if has_thread else {}
    async with setting.journal as journal:
        for given in (None, journal):
            setting.transport.requests.clear()
            async with Client(transport=setting.transport, journal=given) as client:
                assert isinstance(await client.run(**ASK, **more), Completed)
                if has_thread:
                    await client.threads.update(thread.id, metadata={})
            counts.append(operations(setting))
    assert counts[0] == counts[1]
    assert len(setting.store) == 0


async def test_many_runs_are_written_together(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave") as fleet:
        for watch in [fleet.run(**ASK) for _ in range(300)]:
            await watch.recorded()
        assert len(setting.store) == 300
        assert setting.journal.calls.count("add") == 3
        asks: Any = [ASK] * 10
        assert await fleet.run_many(asks) == 10
        assert len(setting.store) > 300


async def test_what_cannot_be_written_down_is_refused(setting: Setting) -> None:
    thread = await setting.client.threads.create()
    setting.transport.requests.clear()
    metadata: Any = {f"key{number}": "" for number in range(16)}
    async with setting.fleet(on_exit="leave") as fleet:
        refused: list[tuple[Any, str]] = [
            ({"extra_headers": {"Authorization": "secret"}}, "extra_headers may be credentials"),
            ({"extra_body": {"a": object()}}, "can't be written as JSON"),
        ]
        for parameters, why in refused:
            with pytest.raises(InvalidRequestError, match=why) as caught:
                fleet.run(**ASK, parameters=parameters)
            assert "secret" not in str(caught.value)
        with pytest.raises(InvalidRequestError, match=r"a run on a thread has a key of its own.*16 pairs"):
            fleet.run(**ASK, thread_id=thread.id, parameters={"metadata": metadata})
        assert fleet.statistics().active == 0
    assert not setting.transport.requests
    async with setting.fleet() as fleet:
        assert isinstance(await fleet.run(**ASK, parameters={"metadata": metadata}), Completed)


async def test_what_is_read_once_is_sent(setting: Setting) -> None:
    definitions = setting.tools.definitions()
    async with setting.fleet() as fleet:
        message = iter([{"type": "text", "text": "Hello"}])
        await fleet.run(assistant_id="asst_1", message=message, parameters={"tools": iter(definitions)})
    assert the_body(setting, "create_run")["tools"] == definitions
    assert the_body(setting, "create_thread")["messages"][0]["content"] == [{"type": "text", "text": "Hello"}]


# After a crash


async def test_a_run_is_created_with_what_it_was_asked_for(setting: Setting) -> None:
    class Answer(Struct):
        text: str

    await asked_only(setting, output_type=Answer, parameters={"temperature": 0.5})
    assert not setting.transport.requests
    seen: list[Any] = []
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume(context_factory=lambda ref, label: seen.append((ref.ids, label)))
        outcome = await watch
    assert isinstance(outcome, Completed)
    assert outcome.label == "asked"
    assert seen == [((), "asked")]
    body = the_body(setting, "create_run")
    assert body["temperature"] == 0.5
    assert body["response_format"]["json_schema"]["name"] == "Answer"
    assert operations(setting)["runs"] == 0, "nothing was begun, so nothing can be found"
    assert len(setting.store) == 0


async def test_a_response_is_created_with_the_tools_that_it_was_asked_for() -> None:
    setting = Setting(Scenario())
    setting.transport.script(Scenario(rounds=((FunctionCall("pay", {"to": "a"}),),)), model="gpt-test")
    async with setting.fleet(on_exit="leave") as fleet:
        await fleet.run(model="gpt-test", message="Pay", label=1).recorded()
        setting.store.crash()
    async with setting.journal, Fleet(setting.client, journal=setting.journal) as fleet:
        (watch,) = await fleet.resume(tools=setting.tools)
        assert isinstance(await watch, Completed)
    assert the_body(setting, "create_response")["tools"] == setting.tools.definitions(wire="responses")
    assert setting.ran == ["a"]


async def test_a_run_on_a_thread_that_another_holds_waits_again(setting: Setting) -> None:
    busy = await setting.run()
    await asked_only(setting, thread_id=busy.thread_id, on_busy="wait")
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)


async def test_a_response_whose_answer_was_lost_is_said_to_be_lost() -> None:
    setting = Setting(Scenario())
    setting.transport.script(Scenario(), model="gpt-test")
    setting.transport.inject(Fault(on="create_response", delay_after=60.0))
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.run(model="gpt-test", message="Pay", label=1)
        await anyio.sleep(1.0)
        setting.store.crash()
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.label, outcome.ref.ids) == (Reason.NOT_CREATED, 1, ())
    assert isinstance(outcome.cause, APIConnectionError)
    assert outcome.cause.sent
    assert "so the answer was lost. It may exist" in str(outcome.cause)
    assert operations(setting)["create_response"] == 1
    assert len(setting.store) == 0


@pytest.mark.parametrize("dies", ["entered", "not entered", "cancelled"])
async def test_a_response_that_a_client_has_created_again_is_named_in_the_journal(dies: str) -> None:
    setting = Setting(Scenario(working=30.0))
    setting.transport.script(Scenario(working=30.0), model="gpt-test")
    async with setting.fleet(on_exit="leave") as fleet:
        await fleet.run(model="gpt-test", message="Pay", label=1).recorded()
        setting.store.crash()
    setting.transport.inject(Fault(on="create_response", delay_after=1.0))
    journal = MemoryJournal(setting.store)
    async with journal, Client(transport=setting.transport, journal=journal) as client:
        resuming = asyncio.create_task(client.resume())
        if dies == "cancelled":
            await anyio.sleep(0.5)
            resuming.cancel()
            await asyncio.wait({resuming})
            assert resuming.cancelled()
        else:
            (watcher,) = await resuming
            if dies == "entered":
                await watcher.__aenter__()
            setting.store.crash()
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)
    assert operations(setting)["create_response"] == 1


async def test_what_is_recorded_as_not_created_is_not_created_by_a_client(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.transport.inject(Fault(on="create_run", status=400, message="No such assistant"))
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.run(**ASK, label=1)
        await anyio.sleep(2.0)
        setting.store.crash()
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        assert await client.resume() == []
        assert "No such assistant" in caplog.text
        async with Fleet(client) as fleet:
            (watch,) = await fleet.resume()
            assert (await watch).reason is Reason.NOT_CREATED
    assert operations(setting)["create_run"] == 1


async def test_a_client_says_that_a_codec_has_dropped_what_was_asked_for(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        await journal.add([WatchRecord(key="dropped", ref=None)])
        await journal.release(["dropped"])
        assert await client.resume() == []
        assert "The codec of the journal has dropped what it takes" in caplog.text
        async with Fleet(client) as fleet:
            (watch,) = await fleet.resume()
            assert (await watch).reason is Reason.NOT_CREATED


@pytest.mark.parametrize("parameters", [{"novel": 1}, None])
async def test_what_a_newer_version_asked_for_holds_no_other_up(setting: Setting, parameters: Any) -> None:
    await asked_only(setting)
    async with setting.journal as journal:
        (record,) = await journal.claim()
        creating = {**(record.creating or {}), "parameters": parameters}
        await journal.add([replace(record, key="newer", creating=creating)])
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        (watcher,) = await client.resume()
        await client.close()
    async with setting.fleet(on_exit="leave") as fleet:
        (watch,) = await fleet.resume()
        assert watch.label == watcher.label == "asked"
        assert isinstance(await watch, Completed)


async def test_a_response_whose_caller_was_cancelled_before_it_was_sent_is_created() -> None:
    class Slow(MemoryJournal):
        async def submitting(self, watch: str, calls: Any) -> None:
            await super().submitting(watch, calls)
            await anyio.sleep(1.0)

    setting = Setting(Scenario())
    setting.transport.script(Scenario(), model="gpt-test")
    async with Slow(setting.store) as journal, Client(transport=setting.transport, journal=journal) as client:
        with anyio.move_on_after(0.5):
            await client.run(model="gpt-test", message="Pay")
        assert [record.submitting for record in recorded(setting)] == [("create",)]
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)


async def test_a_response_that_waited_for_the_budget_is_created() -> None:
    setting = Setting(Scenario())
    setting.transport.script(Scenario(), model="gpt-test")
    async with setting.fleet(on_exit="leave", requests_per_second=1.0) as fleet:
        for label in range(20):
            fleet.run(model="gpt-test", message="Pay", label=label)
        await anyio.sleep(2.5)
        setting.store.crash()
    sent = operations(setting)["create_response"]
    assert sent < 5
    async with setting.fleet() as fleet:
        outcomes = [await watch for watch in await fleet.resume()]
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert operations(setting)["create_response"] == 20


async def test_a_refused_create_is_told_again_if_nobody_has_read_of_it(setting: Setting) -> None:
    setting.transport.inject(Fault(on="create_run", status=400, message="No such assistant"))
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.run(**ASK, label=1)
        await anyio.sleep(2.0)
        setting.store.crash()
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
        assert isinstance(outcome, GaveUp)
        assert outcome.reason is Reason.NOT_CREATED
        assert "No such assistant" in str(outcome.cause)
        assert not isinstance(outcome.cause, APIConnectionError)
    assert operations(setting)["create_run"] == 1
    assert len(setting.store) == 0


async def test_a_create_in_transit_at_the_death_is_found(setting: Setting) -> None:
    """The server acts on it only after another process has looked for the run."""
    thread = await setting.client.threads.create()
    setting.transport.inject(Fault(on="create_run", delay_before=2.0))
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.run(**ASK, thread_id=thread.id)
        await anyio.sleep(0.5)
        setting.store.crash()
        async with MemoryJournal(setting.store) as other, Fleet(setting.client, journal=other) as second:
            (watch,) = await second.resume()
            assert isinstance(await watch, Completed)
    assert operations(setting)["create_run"] == operations(setting)["create_message"] == 1


async def test_a_journal_in_a_file_has_it_too(tmp_path: Path, setting: Setting) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as journal, Fleet(setting.client, journal=journal, on_exit="leave") as fleet:
        for watch in [fleet.run(**ASK, label=label) for label in range(20)]:
            await watch.recorded()
    async with SQLiteJournal(path) as journal, Fleet(setting.client, journal=journal) as fleet:
        await fleet.resume()
        labels = sorted([outcome.label async for outcome in fleet])
    async with SQLiteJournal(path) as journal:
        assert await journal.read() == []
    assert labels == list(range(20))
    assert operations(setting)["create_run"] == 20


# Leaving


async def test_creates_that_had_not_begun_are_left_to_resume(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave", requests_per_second=1.0) as fleet:
        watches = [fleet.run(**ASK, label=label) for label in range(5)]
        await watches[-1].recorded()
    assert any(isinstance(watch.outcome, GaveUp) for watch in watches)
    async with setting.fleet() as fleet:
        resumed = await fleet.resume()
        assert sorted([(await watch).label for watch in resumed]) == list(range(5))
    assert operations(setting)["create_run"] == 5
    assert len(setting.store) == 0


async def test_a_run_that_is_created_while_the_fleet_is_left_is_resumed(setting: Setting) -> None:
    setting.transport.inject(Fault(on="create_run", delay_after=1.0))
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.run(**ASK, label=1)
        await anyio.sleep(0.5)
    (left,) = recorded(setting)
    assert left.ref is not None
    assert left.creating is None
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)
    assert operations(setting)["create_run"] == 1


async def test_a_watch_that_is_cancelled_is_forgotten(setting: Setting) -> None:
    setting.transport.inject(Fault(on="create_run", delay_after=1.0, times=None))
    async with setting.fleet(on_exit="leave", max_in_flight=1) as fleet:
        watches = [fleet.run(**ASK) for _ in range(20)]
        await anyio.sleep(0.5)
        for watch in watches:
            watch.cancel()
        await anyio.sleep(10.0)
    assert len(setting.store) == 0


async def test_a_fleet_that_cancels_leaves_nothing_but_outcomes(setting: Setting) -> None:
    outcomes: list[Any] = []
    async with setting.fleet(on_exit="cancel", on_outcome=outcomes.append, requests_per_second=2.0) as fleet:
        for label in range(5):
            fleet.run(**ASK, label=label)
        await anyio.sleep(1.0)
    assert sorted(outcome.label for outcome in outcomes) == list(range(5))
    assert len(setting.store) == 0


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_a_cancelled_caller_leaves_a_create_as_on_exit_says(setting: Setting, on_exit: Any) -> None:
    setting.transport.inject(Fault(on="create_run", delay_after=1.0))
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.run(**ASK, label=1, on_exit=on_exit)
    assert len(setting.store) == (1 if on_exit == "leave" else 0)
    async with setting.fleet() as fleet:
        outcomes = [await watch for watch in await fleet.resume()]
    assert [type(outcome) for outcome in outcomes] == ([Completed] if on_exit == "leave" else [])
    assert operations(setting)["create_run"] == 1


async def test_a_create_that_failed_is_forgotten(setting: Setting) -> None:
    setting.transport.inject(Fault(on="create_thread", drop=True, times=None))
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        with pytest.raises(APIConnectionError):
            await client.run(**ASK)
    assert len(setting.store) == 0


# Keys


async def test_two_runs_with_one_key_are_one_watch(setting: Setting) -> None:
    thread = await setting.client.threads.create()
    async with setting.fleet() as fleet:
        first = fleet.run(**ASK, thread_id=thread.id, key="k", label=1)
        await first.created()
        second = fleet.run(**ASK, thread_id=thread.id, key="k", label=2)
        assert (await second).ref == (await first).ref
        await anyio.sleep(1.0)
        assert len(setting.store) == 0
    assert operations(setting)["create_run"] == 1


async def test_a_run_that_another_process_watches_is_left_to_it(setting: Setting) -> None:
    setting = Setting(Scenario(working=60.0))
    thread = await setting.client.threads.create()
    ask = {**ASK, "thread_id": thread.id, "key": "k"}
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.run(**ask)
        await watch.created()
        await anyio.sleep(0.1)
        async with MemoryJournal(setting.store) as other:
            async with Client(transport=setting.transport, journal=other) as client:
                with pytest.raises(NotOwnerError, match="goes on, and is not watched"):
                    await client.run(**ask)
            async with Fleet(setting.client, journal=other, on_exit="leave") as second:
                outcome = await second.run(**ask)
                assert outcome.reason is Reason.TAKEN_OVER
        assert watch.is_active
        assert len(setting.store) == 1


async def test_a_run_that_needs_its_caller_can_be_watched_again(setting: Setting) -> None:
    setting = Setting(Scenario(rounds=((FunctionCall("pay", {"to": "a"}),),)))
    async with setting.journal, Fleet(setting.client, journal=setting.journal, on_exit="leave") as fleet:
        outcome = await fleet.run(**ASK)
        assert isinstance(outcome, NeedsCaller)
        await anyio.sleep(1.0)
        again = fleet.watch(outcome.ref, tools=setting.tools)
        assert isinstance(await again, Completed)
        await anyio.sleep(0.1)
    assert len(setting.store) == 0


# A journal that fails


async def test_nothing_is_sent_before_it_is_written(setting: Setting) -> None:
    setting.journal.failing["add"] = JournalError("The disk is full")
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.run(**ASK)
        with pytest.raises(JournalError, match="The disk is full"):
            await watch.recorded()
        await anyio.sleep(20.0)
        assert not setting.transport.requests
        del setting.journal.failing["add"]
        assert isinstance(await watch, Completed)


async def test_a_run_that_is_not_written_for_long_is_given_up(setting: Setting) -> None:
    setting.journal.failing["add"] = JournalError("The disk is full")
    async with setting.fleet(max_outage=30.0) as fleet:
        outcome = await fleet.run(**ASK)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.NOT_CREATED
    assert isinstance(outcome.cause, JournalError)
    assert not setting.transport.requests


async def test_a_step_that_cannot_be_written_is_not_taken(setting: Setting) -> None:
    setting.journal.failing["submitting"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        outcome = await fleet.run(**ASK)
    assert isinstance(outcome.cause, JournalError)
    assert operations(setting) == {"create_thread": 1}
    async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
        with pytest.raises(JournalError, match="The disk is full"):
            await client.run(**ASK)
    assert operations(setting) == {"create_thread": 2}


@pytest.mark.parametrize("shell", ["fleet", "single"])
async def test_no_call_begins_before_the_run_is_named(shell: str) -> None:
    setting = Setting(Scenario(rounds=((FunctionCall("pay", {"to": "a"}),),)))
    setting.journal.failing["moved"] = JournalError("The disk is full")
    if shell == "fleet":
        async with setting.fleet(on_exit="leave") as fleet:
            outcome = await fleet.run(**ASK)
    else:
        async with setting.journal as journal, Client(transport=setting.transport, journal=journal) as client:
            outcome = await client.run(**ASK, tools=setting.tools)
    assert isinstance(outcome, NeedsCaller)
    assert isinstance(outcome.cause, JournalError)
    assert setting.ran == []


# What a codec does


class Dropping:
    def encode(self, content: bytes) -> bytes | None:
        return None

    def decode(self, content: bytes) -> bytes:
        return content


class Turning:
    def encode(self, content: bytes) -> bytes | None:
        return content[::-1]

    def decode(self, content: bytes) -> bytes:
        return content[::-1]


@pytest.mark.parametrize("codec", [Turning(), Dropping()], ids=lambda codec: type(codec).__name__)
async def test_what_is_asked_for_passes_through_the_codec(tmp_path: Path, setting: Setting, codec: Any) -> None:
    path = tmp_path / "runs.db"
    async with (
        SQLiteJournal(path, codec=codec) as journal,
        Fleet(setting.client, journal=journal, on_exit="leave") as fleet,
    ):
        await fleet.run(**ASK, label=1).recorded()
    assert b"Hello" not in path.read_bytes()
    async with SQLiteJournal(path, codec=codec) as journal, Fleet(setting.client, journal=journal) as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
    if isinstance(codec, Turning):
        assert isinstance(outcome, Completed)
        assert outcome.label == 1
    else:
        assert "has dropped what it takes to ask for the run" in str(outcome.cause)
        assert not setting.transport.requests
    async with SQLiteJournal(path, codec=codec) as journal:
        assert await journal.read() == []
