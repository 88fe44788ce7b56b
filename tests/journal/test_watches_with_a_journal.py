"""When a journal has a watch, when it forgets it, and what happens if it cannot be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from worlds import ROUNDS

from asyncruns import (
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
    RunRef,
    RunWatcher,
    Toolset,
)
from asyncruns.journal.memory import MemoryStore
from asyncruns.lifecycle import Call
from asyncruns.lifecycle.records import CallRecord, key_of_call, ref_of
from asyncruns.testing import Fault, InMemoryTransport, Scenario


class FailingJournal(MemoryJournal):
    """Raises what `failing` has for a method, before it is called, or `failing_after` has, when it was."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.failing: dict[str, Exception] = {}
        self.failing_after: dict[str, Exception] = {}
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("add", "begin", "answered", "submitting", "moved", "finished", "delivered"):
            return found

        async def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.failing:
                await asyncio.sleep(0)
                raise self.failing[name]
            result = await found(*arguments)
            if name in self.failing_after:
                raise self.failing_after[name]
            return result

        return call


class SlowJournal(FailingJournal):
    """Writes what was called in the meantime together, in its order, as a journal in a file does."""

    _batch: asyncio.Future[None] | None = None

    async def _written(self) -> None:
        if self._batch is None or self._batch.done():
            self._batch = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.05, self._batch.set_result, None)
        await asyncio.shield(self._batch)
        await super()._written()


class Setting:
    def __init__(self, scenario: Scenario) -> None:
        self.transport = InMemoryTransport(latency=0.01)
        self.transport.script(scenario, assistant_id="asst_1")
        self.store = MemoryStore()
        self.journal = FailingJournal(self.store)
        self.client = Client(transport=self.transport)
        self.tools = Toolset()
        self.ran: list[str] = []

        @self.tools.tool
        async def pay(to: str) -> str:
            self.ran.append(to)
            return f"paid {to}"

    async def run(self) -> Any:
        thread = await self.client.threads.create(messages=[{"role": "user", "content": "Pay"}])
        return await self.client.threads.runs.create(thread.id, assistant_id="asst_1")

    @asynccontextmanager
    async def fleet(self, **options: Any) -> AsyncIterator[Fleet[Any]]:
        async with self.journal, Fleet(self.client, journal=self.journal, tools=self.tools, **options) as fleet:
            yield fleet

    def submits(self) -> int:
        return sum(seen.operation == "submit" for seen in self.transport.requests)


@pytest.fixture
def setting() -> Setting:
    return Setting(Scenario(rounds=ROUNDS, working=0.1))


async def recorded_only(setting: Setting) -> None:
    """Leave a watch in the journal, as a process that died."""
    async with setting.fleet(on_exit="leave") as fleet:
        await fleet.watch(await setting.run(), label="left").recorded()


# When it is there


async def test_a_watch_is_recorded_soon(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        assert len(setting.store) == 0
        await watch.recorded()
        assert len(setting.store) == 1
    async with Fleet(setting.client) as fleet:
        await fleet.watch(await setting.run()).recorded()  # at once, without a journal


async def test_many_watches_are_recorded_together(setting: Setting) -> None:
    runs = [await setting.run() for _ in range(40)]
    async with setting.fleet(on_exit="leave") as fleet:
        await fleet.add_many(runs)
        assert len(setting.store) == 40
        assert setting.journal.calls.count("add") < 6


async def test_a_run_of_the_fleet_is_recorded_before_it_is_created(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.run(assistant_id="asst_1", message="Pay")
        await watch.recorded()
        assert not setting.transport.requests
        await watch.created()
        assert len(setting.store) == 1


async def test_a_run_that_is_watched_twice_is_recorded_once(setting: Setting) -> None:
    run = await setting.run()
    async with setting.fleet() as fleet:
        watches = [fleet.watch(run, label=1), fleet.watch(run, label=2)]
        await watches[1].recorded()
        assert len(setting.store) == 1
        assert [(await watch).label for watch in watches] == [1, 1]
    assert len(setting.store) == 0


async def test_the_journal_of_a_client_is_that_of_its_watches(setting: Setting) -> None:
    store = MemoryStore()
    async with MemoryJournal(store) as journal, Client(transport=setting.transport, journal=journal) as client:
        async with RunWatcher(client, await setting.run(), tools=setting.tools, label="x") as watcher:
            assert len(store) == 1
            assert isinstance(await watcher.wait(), Completed)
        assert len(store) == 0
        async with Fleet(client, on_exit="leave") as fleet:
            await fleet.watch(await setting.run()).recorded()
            assert len(store) == 1
        async with Fleet(client, journal=None, on_exit="leave") as fleet:
            await fleet.watch(await setting.run()).recorded()
            assert len(store) == 1


@pytest.mark.parametrize("label", [object(), {"at": {1, 2}}, b"x"])
async def test_a_label_that_is_no_json_is_refused(setting: Setting, label: object) -> None:
    run = await setting.run()
    async with setting.fleet() as fleet:
        with pytest.raises(InvalidRequestError, match="label must be a plain JSON value when there is a journal"):
            fleet.watch(run, label=label)
    async with setting.journal, Client(transport=setting.transport, journal=setting.journal) as client:
        with pytest.raises(InvalidRequestError, match="label must be a plain JSON value"):
            await client.watch(run, label=label)


def test_a_journal_must_be_one(setting: Setting) -> None:
    with pytest.raises(InvalidRequestError, match="journal must be a Journal"):
        Fleet(setting.client, journal="runs.db")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="journal must be a Journal"):
        Client(transport=setting.transport, journal="runs.db")  # type: ignore[arg-type]


# When it is forgotten


async def by_iterating(fleet: Fleet[Any], watch: Any) -> None:
    async for _ in fleet:
        pass


async def by_awaiting(fleet: Fleet[Any], watch: Any) -> None:
    await watch


async def by_events(fleet: Fleet[Any], watch: Any) -> None:
    async for _ in watch:
        pass


@pytest.mark.parametrize("delivering", [by_iterating, by_awaiting, by_events])
async def test_an_outcome_that_was_delivered_is_forgotten(
    setting: Setting, delivering: Callable[..., Awaitable[None]]
) -> None:
    async with setting.fleet() as fleet:
        await delivering(fleet, fleet.watch(await setting.run()))
    assert len(setting.store) == 0


async def test_an_outcome_that_no_caller_got_is_told_again(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        fleet.watch(await setting.run(), label="left")
    assert len(setting.store) == 1
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
    assert isinstance(outcome, Completed)
    assert outcome.label == "left"
    assert len(setting.store) == 0


async def test_a_reader_that_stops_at_an_outcome_gets_it_again(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave") as fleet:
        fleet.watch(await setting.run())
        async for _ in fleet:
            break
    assert len(setting.store) == 1


async def test_an_outcome_may_be_awaited_after_the_fleet_was_left(setting: Setting) -> None:
    async with setting.journal:
        async with Fleet(setting.client, journal=setting.journal, tools=setting.tools) as fleet:
            watch = fleet.watch(await setting.run())
        assert len(setting.store) == 1
        assert isinstance(await watch, Completed)
        assert len(setting.store) == 0


@pytest.mark.parametrize("option", ["on_outcome", "on_terminal"])
@pytest.mark.parametrize("raises", [False, True])
async def test_an_observer_that_returned_has_the_outcome(setting: Setting, option: str, *, raises: bool) -> None:
    async def observe(outcome: Any) -> None:
        await anyio.sleep(0.1)
        if raises:
            raise ValueError("no disk")

    async with setting.fleet(**{option: observe}) as fleet:
        fleet.watch(await setting.run())
    assert len(setting.store) == (1 if raises else 0)


async def test_a_watch_that_the_caller_cancels_is_forgotten(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        await watch.recorded()
        watch.cancel()
    assert len(setting.store) == 0


async def test_a_run_that_needs_its_caller_is_kept_until_it_ends() -> None:
    setting = Setting(Scenario(rounds=ROUNDS[:1], working=0.1))
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run(), tools=None)
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        await anyio.sleep(1)
        assert len(setting.store) == 1
        await watch.submit({call.id: "paid" for call in outcome.calls})
        assert isinstance(await watch, Completed)
    assert len(setting.store) == 0


async def test_an_outcome_of_a_run_that_is_gone_is_told_as_it_was_recorded(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        run = await setting.run()
        fleet.watch(run, label="left")
    setting.transport.inject(Fault(on="poll", status=404, times=None))
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
    assert isinstance(outcome, Completed)
    assert outcome.unwrap().id == run.id
    assert outcome.run is not None
    assert outcome.usage.total_tokens > 0


# Who watches


async def test_a_run_that_was_left_is_gone_on_with_when_it_is_watched(setting: Setting) -> None:
    """It had begun a call, whose outcome is not known: that does not run again."""
    await recorded_only(setting)
    entry = next(iter(setting.store._entries.values()))
    async with MemoryJournal(setting.store) as journal:
        (record,) = await journal.claim()
        thread_id, run_id = ref_of(record).ids
        run: Any = None
        while run is None or run.required_action is None:
            await asyncio.sleep(1)
            run = await setting.client.threads.runs.retrieve(run_id, thread_id=thread_id)
        call = run.required_action.submit_tool_outputs.tool_calls[0]
        key = key_of_call(Call(id=call.id, name=call.function.name, arguments=call.function.arguments))
        await journal.begin(record.key, [CallRecord(key=key, call_id=call.id)])
    async with setting.fleet() as fleet:
        watch = fleet.watch(ref_of(entry.record), label="again")
        await watch.recorded()
        outcome = await watch
        assert isinstance(outcome, Completed)
        assert outcome.label == "again"
    assert sorted(setting.ran) == ["b", "c"]
    assert len(setting.store) == 0


async def test_a_client_goes_on_with_a_run_that_needed_it(setting: Setting) -> None:
    async with setting.journal, Client(transport=setting.transport, journal=setting.journal) as client:
        run = await setting.run()
        assert isinstance(await client.watch(run), NeedsCaller)
        assert isinstance(await client.watch(run, tools=setting.tools), Completed)
        outcome = await client.run(assistant_id="asst_1", message="Pay")  # its watch has a key of its own
        assert isinstance(outcome, NeedsCaller)
        assert isinstance(await client.watch(outcome.ref, tools=setting.tools), Completed)
    assert len(setting.store) == 0


async def test_a_fleet_goes_on_with_a_run_that_another_process_created(setting: Setting) -> None:
    async with setting.fleet(on_exit="leave") as fleet:
        watch = fleet.run(assistant_id="asst_1", message="Pay")
        ref = await watch.created()
    async with setting.fleet() as fleet:
        assert isinstance(await fleet.watch(ref), Completed)
        assert isinstance(await fleet.watch(ref), Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]
    assert len(setting.store) == 0


async def test_two_processes_never_watch_the_same_run(setting: Setting) -> None:
    run = await setting.run()
    other = MemoryJournal(setting.store)
    async with setting.fleet() as fleet, other, Fleet(setting.client, journal=other, tools=setting.tools) as second:
        watch = fleet.watch(run)
        await watch.recorded()
        refused = await second.watch(run)
        assert isinstance(refused, GaveUp)
        assert refused.reason is Reason.TAKEN_OVER
        assert await second.resume() == []
        assert isinstance(await watch, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]
    other = MemoryJournal(setting.store)
    async with other, Client(transport=setting.transport, journal=other) as client, setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        await watch.recorded()
        with pytest.raises(NotOwnerError):
            await client.watch(watch.ref)
        await watch


@pytest.mark.parametrize("name", ["begin", "submitting"])
async def test_a_watch_that_was_taken_over_does_nothing_more(setting: Setting, name: str) -> None:
    error = setting.journal.failing[name] = NotOwnerError("It is another's")
    async with setting.fleet(on_exit="cancel") as fleet:
        outcome = await fleet.watch(await setting.run())
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.cause) == (Reason.TAKEN_OVER, error)
    assert setting.submits() == 0
    assert len(setting.ran) == (0 if name == "begin" else 2)
    assert not any(seen.operation == "cancel" for seen in setting.transport.requests)
    assert "delivered" not in setting.journal.calls


# A journal that fails


async def test_no_tool_runs_if_its_calls_cannot_be_written(setting: Setting) -> None:
    error = setting.journal.failing["begin"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        assert (outcome.reason, outcome.cause) == (Reason.HANDLER_FAILED, error)
        assert setting.ran == []
        watch.cancel()


async def test_a_tool_waits_for_a_journal_that_fails_for_a_while(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.journal.failing["begin"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        await asyncio.sleep(60)
        assert watch.is_active
        assert setting.ran == []
        del setting.journal.failing["begin"]
        assert isinstance(await watch, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]
    assert "that calls begin, which is tried again: The disk is full" in caplog.text


async def test_calls_that_no_journal_took_are_not_left_to_the_caller_after_a_restart() -> None:
    """The journal had taken them, and could not say so: they may have begun, and the model is told so."""
    setting = Setting(Scenario(rounds=ROUNDS[:1], working=0.1))
    setting.journal.failing_after["begin"] = JournalError("The connection broke")
    async with setting.fleet(on_exit="leave") as fleet:
        assert isinstance(await fleet.watch(await setting.run()), NeedsCaller)
        await asyncio.sleep(1)
    setting.journal.failing_after.clear()
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        assert isinstance(await watch, Completed)
    assert setting.ran == []


async def test_another_error_of_a_journal_is_a_journal_error(setting: Setting) -> None:
    setting.journal.failing["begin"] = KeyError("x")
    async with setting.fleet() as fleet:
        outcome = await fleet.watch(await setting.run())
    assert isinstance(outcome.cause, JournalError)
    assert str(outcome.cause) == "The journal raised a KeyError: 'x'"


async def test_outputs_that_cannot_be_written_are_sent_nevertheless(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.journal.failing["answered"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        assert isinstance(await fleet.watch(await setting.run()), Completed)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("could not be written: the outputs of calls: The disk is full" in text for text in said)


async def test_each_output_is_written_once(setting: Setting) -> None:
    setting.journal = SlowJournal(setting.store)
    async with setting.fleet() as fleet:
        assert isinstance(await fleet.watch(await setting.run()), Completed)
    assert setting.submits() == 2
    assert setting.journal.calls.count("answered") == len(setting.ran)


async def test_an_output_that_could_not_be_written_is_written_before_it_is_sent(setting: Setting) -> None:
    journal = setting.journal = SlowJournal(setting.store)
    journal.failing["answered"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        assert isinstance(await fleet.watch(await setting.run()), Completed)
    first = journal.calls.index("moved")
    assert journal.calls[:first].count("answered") > 1
    assert journal.calls[first - 1] == "answered"


async def test_nothing_is_submitted_before_that_is_written(setting: Setting) -> None:
    setting.journal.failing["submitting"] = JournalError("The disk is full")
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        await anyio.sleep(20)
        assert setting.submits() == 0
        assert setting.journal.calls.count("submitting") > 2
        del setting.journal.failing["submitting"]
        assert isinstance(await watch, Completed)
    assert setting.submits() == 2


async def test_watches_go_on_while_they_cannot_be_added(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.journal.failing["add"] = JournalError("The disk is full")
    quick = Setting(Scenario())
    quick.journal, quick.store = setting.journal, setting.store
    async with quick.fleet() as fleet:
        watch = fleet.watch(await quick.run())
        with pytest.raises(JournalError, match="The disk is full"):
            await watch.recorded()
        assert isinstance(await watch, Completed)
        kept = fleet.watch(await quick.run())
        await anyio.sleep(5)
        del setting.journal.failing["add"]
        await kept.recorded()
        await kept
    assert len(setting.store) == 0
    assert sum("could not be written, which is tried again" in record.getMessage() for record in caplog.records) >= 1


async def test_a_fleet_without_a_journal_has_nothing_to_resume(setting: Setting) -> None:
    async with Fleet(setting.client) as fleet:
        with pytest.raises(InvalidRequestError, match="no journal to resume from"):
            await fleet.resume()


async def test_the_context_of_a_resumed_watch_is_made_anew(setting: Setting) -> None:
    await recorded_only(setting)

    def session(ref: RunRef, label: Any) -> tuple[str, Any]:
        return ref.dialect, label

    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume(context_factory=session)
        assert (await watch).context == ("thread.run", "left")


async def test_a_pending_submit_of_a_watch_that_is_cancelled_is_sent_and_not_written(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.transport.inject(Fault(on="submit", delay_after=1.0))
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        while not setting.submits():
            await anyio.sleep(0.01)
        watch.cancel()
        await anyio.sleep(3)
    assert setting.submits() == 1
    assert len(setting.store) == 0
    assert "could not be written" not in caplog.text


async def test_an_outcome_is_recorded_if_it_is_not_delivered_soon(setting: Setting) -> None:
    async with setting.fleet() as fleet:
        watch = fleet.watch(await setting.run())
        async for _ in fleet:
            pass
        assert "finished" not in setting.journal.calls
        watch = fleet.watch(await setting.run())
        while watch.is_active:
            await anyio.sleep(0.1)
        await anyio.sleep(1)
        assert setting.journal.calls.count("finished") == 1
        await watch
    assert len(setting.store) == 0


# A single watch


@pytest.mark.parametrize("name", ["begin", "submitting"])
async def test_a_single_watch_that_was_taken_over_does_nothing_more(setting: Setting, name: str) -> None:
    error = setting.journal.failing[name] = NotOwnerError("It is another's")
    async with setting.journal, Client(transport=setting.transport, journal=setting.journal) as client:
        outcome = await client.watch(await setting.run(), tools=setting.tools, on_exit="cancel")
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.cause) == (Reason.TAKEN_OVER, error)
    assert setting.submits() == 0
    assert len(setting.ran) == (0 if name == "begin" else 2)
    assert not any(seen.operation == "cancel" for seen in setting.transport.requests)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("error", [JournalError("The disk is full"), NotOwnerError("It is another's"), OSError("x")])
async def test_a_single_watch_that_cannot_be_written_names_its_run(
    setting: Setting, error: Exception, *, streams: bool
) -> None:
    setting.journal.failing["add"] = error
    async with setting.journal, Client(transport=setting.transport, journal=setting.journal) as client:
        thread = await client.threads.create(messages=[{"role": "user", "content": "Pay"}])
        if streams:
            run: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
        else:
            run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        with pytest.raises(JournalError, match=rf"The run {thread.id}/run_\w+ goes on, and is not watched") as caught:
            await client.watch(run)
        assert isinstance(caught.value, NotOwnerError) is isinstance(error, NotOwnerError)


async def test_leaving_a_single_watch_leaves_it_to_resume(setting: Setting) -> None:
    async with setting.journal, Client(transport=setting.transport, journal=setting.journal) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.run(assistant_id="asst_1", message="Pay", label="left", on_exit="leave")
        async with RunWatcher(client, await setting.run(), label="left"):
            pass
    async with setting.fleet() as fleet:
        watches = await fleet.resume()
        assert [(await watch).label for watch in watches] == ["left"] * len(watches)
        assert watches
    assert len(setting.store) == 0


async def test_a_batch_is_resumed(setting: Setting) -> None:
    requests = [{"model": "gpt-4o", "input": "Hello"}]
    batch: Any = await setting.client.batches.create(requests=requests, endpoint="/v1/responses")
    async with setting.fleet(on_exit="leave") as fleet:
        await fleet.watch(batch, label="batch").recorded()
    async with setting.fleet() as fleet:
        (watch,) = await fleet.resume()
        outcome = await watch
        assert isinstance(outcome, Completed)
        assert len([result async for result in outcome.results()]) == 1
    assert len(setting.store) == 0


async def test_a_streamed_run_is_recorded_once_it_is_named(setting: Setting) -> None:
    thread = await setting.client.threads.create(messages=[{"role": "user", "content": "Pay"}])
    stream = await setting.client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
    async with setting.fleet() as fleet:
        watch = fleet.watch(stream, label="streamed")
        await watch.recorded()
        assert len(setting.store) == 1
        assert isinstance(await watch, Completed)
    assert sorted(setting.ran) == ["a", "b", "c"]
    assert setting.journal.calls.count("moved") == 2
    assert len(setting.store) == 0
