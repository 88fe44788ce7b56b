"""Tokens: texts with which another process goes on with a watch, with a journal and without."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import pickle
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from handing import Bank
from worlds import ROUNDS, WireName

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
    WatchGaveUpError,
)
from asyncruns.abc import Journal
from asyncruns.lifecycle.records import WatchRecord
from asyncruns.testing import Fault
from asyncruns.watch.handover import Token, token_in
from asyncruns.watch.outcome import AnyOutcome

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
    return Bank(wire, tmp_path / "runs.db" if request.param == "sqlite" else None)


@pytest.fixture
def alone(wire: WireName) -> Bank:
    return Bank(wire)


@asynccontextmanager
async def watching(shell: ShellName, client: Client, *run: Any, **options: Any) -> AsyncIterator[Any]:
    """Watch a run, or what a token names, and leave the run as it is."""
    if shell == "single":
        async with RunWatcher(client, *run, **options) as watcher:
            yield watcher
        return
    async with Fleet(client, on_exit="leave") as fleet:
        watch = fleet.watch(*run, **options)
        with contextlib.suppress(WatchGaveUpError):
            await watch.created()
        await watch.recorded()
        yield watch


async def gone_on(shell: ShellName, bank: Bank, token: str, journal: Journal | None = None, **options: Any) -> Any:
    """Go on with a token in another process, and return the outcome."""
    options = {"tools": bank.tools, **options}
    async with bank.client(journal) as client, watching(shell, client, token=token, **options) as watch:
        return await watch.wait()


def said_by(token: str) -> dict[str, Any]:
    data = token.removeprefix("asyncruns1.")
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))
    return said


# With a journal


async def test_another_process_goes_on_with_a_watch_of_a_journal(bank: Bank, shell: ShellName) -> None:
    bank.pays.clear()
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watching(shell, client, await bank.run(), tools=bank.tools, label=[1]) as watch,
    ):
        await bank.until_it_pays()
        token = watch.token()
        async with bank.journal() as other:
            outcome: Any = None
            with pytest.raises((NotOwnerError, WatchGaveUpError), match=r"goes on in .*: it can be claimed when"):
                outcome = await gone_on(shell, bank, token, other)
            assert outcome is None
    bank.pays.set()
    async with bank.journal() as other:
        outcome = await gone_on(shell, bank, token, other)
        assert isinstance(outcome, Completed)
        assert outcome.label == [1]
        with pytest.raises((NotOwnerError, WatchGaveUpError), match="is not in this journal: its outcome was"):
            await gone_on(shell, bank, token, other)
    assert bank.began == {"a": 1, "b": 1}
    assert set(said_by(token)) == {"ref", "key"}


async def test_a_token_names_the_watch_and_not_one_of_its_runs(wire: WireName, shell: ShellName) -> None:
    bank = Bank(wire, rounds=ROUNDS, working=0.2)
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watching(shell, client, await bank.run(), tools=bank.tools) as watch,
    ):
        token = watch.token()
        while not bank.submits():
            await bank.until_it_pays()
            await _pause()
        await _pause()
    async with bank.journal() as journal:
        outcome = await gone_on(shell, bank, token, journal)
    assert isinstance(outcome, Completed)
    assert outcome.refs[0] == token_in(token).ref
    assert len(outcome.refs) == (3 if wire == "responses" else 1)
    assert set(bank.began.values()) == {1}


async def test_the_token_of_a_watch_that_needs_its_caller_is_kept_in_the_journal(bank: Bank, shell: ShellName) -> None:
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        watching(shell, client, await bank.run()) as watch,
    ):
        outcome = await watch.wait()
    assert isinstance(outcome, NeedsCaller)
    async with bank.journal() as journal:
        assert isinstance(await gone_on(shell, bank, outcome.token, journal), Completed)
    assert set(said_by(outcome.token)) == {"ref", "key"}


async def test_the_token_of_a_watch_that_gave_up_outlives_its_delivery(bank: Bank, shell: ShellName) -> None:
    bank.pays.clear()
    async with bank.journal() as journal, bank.client(journal) as client:
        async with watching(shell, client, await bank.run(), tools=bank.tools, timeout=3, label="x") as watch:
            outcome = await watch.wait()
        assert isinstance(outcome, GaveUp)
        assert await journal.read() == []
        bank.pays.set()
        done = await gone_on(shell, bank, outcome.token, journal)
        assert isinstance(done, Completed)
        assert done.label == "x"
        assert await journal.read() == []
    assert bank.began == {"a": 1, "b": 1}
    assert b"paid b" in bank.submits()[0]


@pytest.mark.parametrize("timeout", [0.0, 60.0])
async def test_the_process_that_has_the_outcome_may_use_its_token_at_once(
    bank: Bank, shell: ShellName, timeout: float
) -> None:
    async with bank.journal() as journal, bank.client(journal) as client:
        if shell == "single":
            outcome = await client.watch(await bank.run(), timeout=timeout)
            done = await client.watch(token=outcome.token, tools=bank.tools)
        else:
            async with Fleet(client, on_exit="leave") as fleet:
                outcome = await fleet.watch(await bank.run(), timeout=timeout, label="mine")
                done = await fleet.watch(token=outcome.token, tools=bank.tools)
            assert done.label == "mine"
        assert isinstance(outcome, NeedsCaller if timeout else GaveUp)
        assert isinstance(done, Completed)
    async with bank.journal() as journal:
        assert await journal.read() == []


async def test_a_run_may_be_watched_again_as_soon_as_its_outcome_is_there(bank: Bank) -> None:
    async with bank.journal() as journal, bank.client(journal) as client:
        run = await bank.run()
        for _ in range(3):
            assert isinstance(await client.watch(run, tools=bank.tools, timeout=0), GaveUp)
        assert isinstance(await client.watch(run, tools=bank.tools), Completed)


async def test_a_token_of_a_journal_needs_a_journal(alone: Bank, shell: ShellName) -> None:
    async with (
        alone.journal() as journal,
        alone.client(journal) as client,
        watching(shell, client, await alone.run()) as watch,
    ):
        token = watch.token()
    with pytest.raises(InvalidRequestError, match="of a watch in a journal, and there is none here"):
        await gone_on(shell, alone, token)


async def test_who_only_observes_needs_no_journal(alone: Bank, shell: ShellName) -> None:
    async with (
        alone.journal() as journal,
        alone.client(journal) as client,
        watching(shell, client, await alone.run(), tools=alone.tools) as watch,
    ):
        token = watch.token()
        outcome = await gone_on(shell, alone, token, tools=None, observe_only=True)
    assert isinstance(outcome, Completed if alone.wire == "threads" else NeedsCaller)


# Without a journal


async def test_another_process_goes_on_with_what_is_known(alone: Bank, shell: ShellName) -> None:
    alone.pays.clear()
    async with (
        alone.client() as client,
        watching(shell, client, await alone.run(), tools=alone.tools, label=7) as watch,
    ):
        await alone.until_it_pays()
        with pytest.raises(InvalidRequestError, match=r"goes on, and has no journal: two watches would run its tools"):
            watch.token()
    alone.pays.set()
    outcome = await gone_on(shell, alone, watch.token())
    assert isinstance(outcome, Completed)
    assert outcome.label == 7
    assert alone.began == {"a": 1, "b": 1}
    (body,) = alone.submits()
    assert b"paid b" in body
    assert b"not known" in body


async def test_a_token_may_be_passed_on_before_anything_was_polled(alone: Bank, shell: ShellName) -> None:
    alone.pays.clear()
    async with alone.client() as client, watching(shell, client, await alone.run(), tools=alone.tools) as watch:
        await alone.until_it_pays()
    async with alone.client() as client, watching(shell, client, token=watch.token(), tools=alone.tools) as second:
        pass
    assert isinstance(await gone_on(shell, alone, second.token()), Completed)
    assert alone.began == {"a": 1, "b": 1}


async def test_it_is_stored_in_the_journal_of_the_next(bank: Bank, shell: ShellName) -> None:
    bank.pays.clear()
    async with bank.client() as client, watching(shell, client, await bank.run(), tools=bank.tools, label=7) as watch:
        await bank.until_it_pays()
    async with bank.journal() as journal, bank.client(journal) as client:
        async with watching(shell, client, token=watch.token()):
            (record,) = await journal.read()
            assert (record.label, len(record.calls)) == (7, 2)
        (again,) = await client.resume(tools=bank.tools)
        async with again:
            assert isinstance(await again.wait(), Completed)
    assert bank.began == {"a": 1, "b": 1}


async def test_outcomes_and_errors_carry_a_token(alone: Bank, shell: ShellName) -> None:
    async with alone.client() as client, watching(shell, client, await alone.run()) as watch:
        outcome = await watch.wait()
    assert isinstance(outcome, NeedsCaller)
    with pytest.raises(Exception, match="open calls") as caught:
        outcome.unwrap()
    error: Any = caught.value
    assert error.outcome.token == outcome.token == watch.token()
    assert pickle.loads(pickle.dumps(outcome)).token == copy.deepcopy(outcome).token == outcome.token
    assert "token" not in outcome.to_dict()
    done = await gone_on(shell, alone, outcome.token)
    assert isinstance(done, Completed)
    assert done.token == ""


async def test_the_calls_of_a_handler_that_failed_are_left_to_the_caller_again(alone: Bank, shell: ShellName) -> None:
    def fail(calls: object) -> None:
        raise ValueError("the bank is closed")

    async with alone.client() as client:
        async with watching(shell, client, await alone.run(), on_requires_action=fail) as watch:
            assert isinstance(await watch.wait(), NeedsCaller)
        async with watching(shell, client, token=watch.token(), tools=alone.tools) as watch:
            outcome = await watch.wait()
            assert isinstance(outcome, NeedsCaller)
            await watch.submit({call.id: "paid" for call in outcome.calls})
            assert isinstance(await watch.wait(), Completed)
    assert not alone.began


async def test_a_submit_whose_answer_was_lost_is_not_sent_again(shell: ShellName) -> None:
    bank = Bank("responses")
    bank.transport.inject(Fault(on="submit", drop=True, acts=True))
    async with bank.client() as client, watching(shell, client, await bank.run(), tools=bank.tools) as watch:
        outcome = await watch.wait()
    assert outcome.reason is Reason.SUBMIT_LOST
    again = await gone_on(shell, bank, outcome.token)
    assert again.reason is Reason.SUBMIT_LOST
    assert len(bank.submits()) == 1
    assert isinstance(await gone_on(shell, bank, again.token, on_lost_submit="resend"), Completed)
    assert bank.began == {"a": 1, "b": 1}


async def test_follow_ups_have_the_parameters_of_the_first_response(shell: ShellName) -> None:
    bank = Bank("responses")
    parameters: Any = {"model": "gpt-test", "include": ["reasoning.encrypted_content"]}
    async with bank.client() as client:
        continued: Any = client.responses.continued(parameters)
        async with watching(shell, continued, await bank.run()) as watch:
            await watch.wait()
    assert isinstance(await gone_on(shell, bank, watch.token()), Completed)
    assert b"reasoning.encrypted_content" in bank.submits()[0]


@pytest.mark.parametrize(
    "secret",
    [
        {"tools": [{"type": "mcp", "server_label": "x", "authorization": "s3cret"}]},
        {"tools": [{"type": "mcp", "server_label": "x", "headers": {"X-Key": "s3cret"}}]},
        {"extra_headers": {"X-Key": "s3cret"}},
        {"extra_query": {"key": "s3cret"}},
        {"extra_body": {"api_key": "s3cret"}},
    ],
)
async def test_a_token_has_no_credential(secret: Any, shell: ShellName) -> None:
    bank = Bank("responses")
    async with bank.client() as client:
        continued: Any = client.responses.continued({"model": "gpt-test", **secret})
        async with watching(shell, continued, await bank.run()) as watch:
            await watch.wait()
        assert "s3cret" not in json.dumps(said_by(watch.token()))
        with pytest.raises(InvalidRequestError, match=r"pass client\.responses\.continued\(parameters\) as the client"):
            await gone_on(shell, bank, watch.token())
        async with watching(shell, continued, token=watch.token(), tools=bank.tools) as watch:
            assert isinstance(await watch.wait(), Completed)
    body = json.loads(bank.submits()[0])
    assert "extra_body" in secret or "extra_headers" in secret or "extra_query" in secret or body["tools"]


async def test_a_label_that_is_no_json_is_left_out(alone: Bank, shell: ShellName) -> None:
    async with alone.client() as client, watching(shell, client, await alone.run(), label=object()) as watch:
        await watch.wait()
    assert (await gone_on(shell, alone, watch.token())).label is None


async def test_client_watch_takes_a_token(alone: Bank) -> None:
    async with alone.client() as client:
        outcome = await client.watch(await alone.run())
        assert isinstance(await client.watch(token=outcome.token, tools=alone.tools), Completed)


async def test_a_fleet_that_watches_the_run_shares_its_watch(alone: Bank) -> None:
    async with alone.journal() as journal, Fleet(alone.client(), journal=journal, tools=alone.tools) as fleet:
        watch = fleet.watch(await alone.run())
        await watch.recorded()
        assert isinstance(await fleet.watch(token=watch.token()), Completed)
    assert alone.began == {"a": 1, "b": 1}


async def token_in_a_journal(bank: Bank) -> str:
    async with (
        bank.journal() as journal,
        bank.client(journal) as client,
        RunWatcher(client, await bank.run()) as watcher,
    ):
        return watcher.token()


class SlowJournal(MemoryJournal):
    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        await asyncio.sleep(1)
        return await super().claim(watches)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_watch_that_is_cancelled_while_it_is_claimed_stays_there(alone: Bank, *, leaves: bool) -> None:
    token = await token_in_a_journal(alone)
    async with SlowJournal(alone.store) as journal, alone.journal() as other:
        async with Fleet(alone.client(), journal=journal, on_exit="leave") as fleet:
            watch = fleet.watch(token=token)
            await asyncio.sleep(0.5)
            assert not watch.ref.ids
            if not leaves:
                watch.cancel()
                await asyncio.sleep(2)
                assert len(await other.claim()) == 1
        if leaves:
            assert len(await other.claim()) == 1


async def test_a_journal_that_cannot_be_read_is_an_outcome(alone: Bank) -> None:
    token = await token_in_a_journal(alone)
    async with MemoryJournal() as journal, Fleet(alone.client(), journal=journal) as fleet:
        await journal.aclose()
        watch = fleet.watch(token=token)
        outcome = await watch
        assert isinstance(outcome, GaveUp)
        assert outcome.reason is Reason.TAKEN_OVER
        assert outcome.ref == token_in(token).ref
        assert outcome.token == ""
        with pytest.raises(JournalError, match="not open"):
            await watch.recorded()
    with pytest.raises(JournalError, match="not open"):
        await alone.client(MemoryJournal()).watch(token=token)


# What is no token


async def test_a_run_that_has_ended_has_no_token(alone: Bank, shell: ShellName) -> None:
    async with alone.client() as client, watching(shell, client, await alone.run(), tools=alone.tools) as watch:
        await watch.wait()
        with pytest.raises(InvalidRequestError, match="nothing to go on with"):
            watch.token()


async def test_a_watch_that_has_not_begun_has_no_token(alone: Bank) -> None:
    async with alone.client() as client:
        with pytest.raises(InvalidRequestError, match="was not entered"):
            RunWatcher(client, await alone.run()).token()
        async with Fleet(client) as fleet:
            watch = fleet.run(assistant_id="asst_1", message="Pay", tools=alone.tools)
            with pytest.raises(InvalidRequestError, match="not created yet"):
                watch.token()


async def test_a_watch_of_a_fleet_that_was_cancelled(alone: Bank) -> None:
    alone.pays.clear()
    async with Fleet(alone.client(), tools=alone.tools) as fleet:
        watch = fleet.watch(await alone.run())
        await alone.until_it_pays()
        watch.cancel()
        assert isinstance(await gone_on("single", alone, watch.token()), Completed)
    assert alone.began == {"a": 1, "b": 1}
    async with alone.journal() as journal, Fleet(alone.client(), journal=journal) as fleet:
        watch = fleet.watch(await alone.run())
        watch.cancel()
        with pytest.raises(InvalidRequestError, match="the journal forgets it"):
            watch.token()


async def token_of(bank: Bank) -> str:
    async with bank.client() as client:
        run: Any = await bank.run()
        outcome: AnyOutcome[Any] = await client.watch(run)
        return outcome.token


async def test_what_is_no_token_is_refused(alone: Bank) -> None:
    token = await token_of(alone)
    client: Any = alone.client()
    watcher: Any = RunWatcher
    newer = token.replace("asyncruns1.", "asyncruns2.")
    for text, words in (
        ("", "must be what watcher.token"),
        (7, "got int"),
        ("asyncruns1.", "a part of one"),
        (token[:-9], "damaged, or not whole"),
        (token[:20] + "____" + token[24:], "damaged, or not whole"),
        ("asyncruns1.e30", "damaged, or not whole"),
        (newer, "has version 2, and this asyncruns reads version 1: install a newer"),
    ):
        with pytest.raises(InvalidRequestError, match=words):
            watcher(client, token=text)
    for others in ({"thread_id": "t"}, {"response_id": "r"}, {"run": RunRef("response", ("r",))}):
        with pytest.raises(InvalidRequestError, match="A token names a watch by itself"):
            await client.watch(token=token, **others)
        async with Fleet(client) as fleet:
            watch: Any = fleet.watch
            with pytest.raises(InvalidRequestError, match="A token names a watch by itself"):
                watch(token=token, **others)


async def test_a_token_of_another_wire_is_refused() -> None:
    threads, responses = Bank("threads"), Bank("responses")
    token = await token_of(threads)
    client: Any = responses.client().responses.continued()
    with pytest.raises(InvalidRequestError, match="does not name a response"):
        RunWatcher(client, token=token)
    async with Fleet(client) as fleet:
        with pytest.raises(InvalidRequestError, match="does not name a response"):
            fleet.watch(token=token)


async def test_a_token_is_small_and_has_what_it_says(alone: Bank) -> None:
    token = await token_of(alone)
    assert len(token) < 600
    assert isinstance(token_in(f" {token}\n"), Token)
    assert "http" not in json.dumps(said_by(token))


async def _pause() -> None:
    await asyncio.sleep(0.05)
