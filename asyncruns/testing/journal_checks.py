"""Checks whether a journal keeps what `asyncruns.abc.Journal` promises; for each journal here, and for a user's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.abc import Journal
from asyncruns.errors import JournalError, NotOwnerError
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef

Factory = Callable[[], Journal]
_REF: Final = RunRef("thread_run", ("thread_1", "run_1"))
_OTHER: Final = RunRef("thread_run", ("thread_1", "run_2"))
_FULL: Final = RunRef("thread_run", ("thread_1", "full"))
_LABEL: Final = {"order": 17, "of": ["a", 1.5, None, True, "žluťoučký 🐎"]}
_OUTCOME: Final = {"outcome": "Completed", "ref": {"dialect": "thread_run", "ids": ["thread_1", "run_1"]}}


async def check_journal(factory: Factory) -> None:
    """Check a journal against the interface.

    Args:
        factory: Returns a new journal, not opened, on what the ones before have written to: as another process would
            have it. Nothing may be written there at first, and nothing is in the end.

    Raises:
        AssertionError: A promise is not kept; the message says which.
    """
    for check in _CHECKS:
        await check(factory)
        async with factory() as journal:
            await journal.delivered([record.key for record in await journal.claim()])


async def _is_opened_and_closed(factory: Factory) -> None:
    journal = factory()
    await journal.aclose()
    await _raises(JournalError, journal.claim(), "a journal that was never opened can be used")
    async with journal:
        await _raises(JournalError, journal.open(), "a journal that is open can be opened again")
        assert await journal.claim() == [], "a new journal has watches: it must be empty at first"
        await journal.add([_watch("opened")])
    await journal.aclose()
    await _raises(JournalError, journal.begin("opened", [_call("1")]), "a journal that was closed can be used")
    async with journal:
        assert await _claimed(journal) == ["opened"], "a journal that is opened again does not have its watches"


async def _keeps_everything(factory: Factory) -> None:
    label: dict[str, Any] = {**_LABEL}
    outcome = {**_OUTCOME}
    plain = _watch("plain")
    full = WatchRecord(
        key="full", ref=_FULL, refs=(_FULL,), label=label, toolset="tools", created_at=3.25, traceparent="00-a-b-01"
    )
    async with factory() as journal:
        await journal.add([plain, full])
        label["order"] = 18  # the caller may modify what it gave
        await journal.begin("full", [_call("1"), _call("2")])
        await journal.answered("full", [_call("2", "two 🐎\0\n", failed=True)])
        await journal.submitting("full", ["1", "2"])
        await journal.finished({"full": outcome})
        outcome["outcome"] = "Failed"
    calls = (_call("1"), _call("2", "two 🐎\0\n", failed=True))
    expected = replace(full, label=_LABEL, calls=calls, submitting=("1", "2"), outcome=_OUTCOME)
    async with factory() as journal:
        records = await journal.claim()
    assert records == [plain, expected], f"what was written is not what is read: {records}"


async def _changes_a_watch(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w")])
        await journal.submitting("w", ["1"])
        await journal.submitting("w", [])
        assert (await _reread(journal, factory))[0].submitting == (), "submitting nothing does not clear what was"
    async with factory() as journal:
        await journal.claim()
        await journal.submitting("w", ["1"])
        await journal.moved("w", _REF, 1.0)
        await journal.submitting("w", ["2"])
        await journal.moved("w", _OTHER, 1.0)
        record = (await _reread(journal, factory))[0]
    assert record.submitting == (), "a watch that has moved is still submitting"
    assert (record.ref, record.refs) == (_OTHER, (_ref("w"), _REF, _OTHER)), "a watch that has moved does not name all"


async def _creates(factory: Factory) -> None:
    creating = {"dialect": "thread.run", "message": "Hi"}
    first = WatchRecord(key="w", ref=None, label=1, creating=creating)
    async with factory() as journal:
        await journal.add([first, replace(first, key="v"), _watch("u")])
        creating["message"] = "changed"  # the caller may modify what it gave
        await journal.submitting("w", ["thread", "thread_1"])
        (read, *_) = await _reread(journal, factory)
    assert read == replace(first, creating={**creating, "message": "Hi"}, submitting=("thread", "thread_1")), (
        f"what it takes to create a run is not what is read: {read}"
    )
    async with factory() as journal:
        await journal.claim()
        otherwise = "a run was created for a watch that another watch has"
        await _raises(NotOwnerError, journal.moved("v", _ref("u"), 1.0), otherwise)
        await journal.moved("w", _REF, 1.0)
        await _raises(NotOwnerError, journal.add([replace(_watch("t"), ref=_REF)]), otherwise)
        (read, *_) = await _reread(journal, factory)
    assert read == WatchRecord(key="w", ref=_REF, refs=(_REF,), label=1), f"its run was created, and it is: {read}"


async def _begins_once(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w"), _watch("v")])
        assert await journal.begin("w", [_call("1"), _call("2")]) == [], "calls that are new had begun before"
        await journal.answered("w", [_call("1", "one")])
        before = await journal.begin("w", [_call("2"), _call("3"), _call("1")])
        assert before == [_call("2"), _call("1", "one")], f"not the calls that had begun before: {before}"
        assert await journal.begin("v", [_call("1")]) == [], "a call had begun that began in another watch"
        both = await asyncio.gather(*(journal.begin("w", [_call("4")]) for _ in range(20)))
        assert sum(not before for before in both) == 1, "a call began more than once, or not at all, concurrently"
    async with factory() as journal:
        await journal.claim()
        assert await journal.begin("w", [_call("3")]) == [_call("3")], "a call began again after reopening"


async def _keeps_the_first_output(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w")])
        await journal.begin("w", [_call("1")])
        await journal.answered("w", [_call("1", "first")])
        await journal.answered("w", [_call("1", "second", failed=True), _call("2", "")])
        before = await journal.begin("w", [_call("1"), _call("2")])
    assert before == [_call("1", "first"), _call("2", "")], f"not the outputs that were recorded first: {before}"


async def _orders(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("c", 2.0), _watch("b", 1.0)])
        await journal.add([_watch("a", 1.0)])
        await journal.add([_watch("b", 3.0)])
        await journal.begin("c", [_call(str(number)) for number in range(10, 0, -1)])
    async with factory() as journal:
        records = await journal.claim()
    keys = [record.key for record in records]
    assert keys == ["b", "a", "c"], f"watches are not in the order of their age, then of being added: {keys}"
    ids = [call.call_id for call in records[2].calls]
    assert ids == [str(number) for number in range(10, 0, -1)], f"calls are not in the order in which they began: {ids}"


async def _keeps_what_it_has(factory: Factory) -> None:
    async with factory() as journal:
        new = await journal.add([_watch("w", 1.0, label="first"), _watch("v")])
        await journal.finished({"v": _OUTCOME})
        await journal.moved("v", _ref("v"), 1.0)
        assert new == [_watch("w", 1.0, label="first"), _watch("v")], f"add does not return what is there: {new}"
        await journal.begin("w", [_call("1")])
        await journal.answered("w", [_call("1", "one")])
        await journal.moved("w", _OTHER, 1.0)
        await journal.submitting("w", ["1"])
        await journal.finished({"w": _OUTCOME})
        again = await journal.add([_watch("u"), _watch("w", 2.0, label="second"), _watch("u", label=2)])
        one = replace(_call("1", "one"), accepted_at=1.0)
        kept = _watch("w", 1.0, label="first", calls=(one,), submitting=("1",), outcome=_OUTCOME)
        kept = replace(kept, ref=_OTHER, refs=(_ref("w"), _OTHER))
        assert again == [_watch("u"), kept, _watch("u")], f"a watch that is owned is not kept as it is: {again}"
        records = await _reread(journal, factory)
    moved = replace(_watch("v"), refs=(_ref("v"),))
    assert records[0] == moved, f"a watch that goes on still has the outcome that it had before: {records[0]}"
    assert records[1:] == [_watch("u"), kept], f"a watch that was added again is not kept: {records}"


async def _has_one_watch_of_a_run(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([replace(_watch("w"), refs=(_REF, _ref("w"))), _watch("v")])
        await mine.moved("w", _OTHER, 1.0)
        await mine.moved("w", _OTHER, 1.0)
        second = _watch("second")
        for ref in (_ref("w"), _REF, _OTHER):
            for journal in (mine, other):
                for record in (replace(second, refs=(ref, second.ref)), replace(second, ref=ref)):
                    refused = journal.add([_watch("own"), record])
                    await _raises(NotOwnerError, refused, "a run has two watches")
        await _raises(NotOwnerError, mine.add([replace(_watch("v"), ref=_REF)]), "a run has two watches")
        await _raises(NotOwnerError, mine.add([_watch("t"), replace(_watch("s"), ref=_ref("t"))]), "added at once")
        await mine.submitting("v", ["1"])
        await _raises(NotOwnerError, mine.moved("v", _OTHER, 1.0), "a watch moves to a run that has another watch")
        await mine.delivered(["w"])
        await other.add([replace(second, refs=(_ref("w"), _REF, _OTHER))])
        records = await _reread(mine, factory)
    assert records == [_watch("v", submitting=("1",))], f"calls that failed have changed something: {records}"


async def _releases(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("w"), _watch("v"), _watch("u")])
        await mine.begin("w", [_call("1")])
        await other.release(["w"])
        assert await other.claim() == [], "a journal releases watches that another one owns"
        await mine.release(["w", "v", "never there"])
        await mine.release(["w"])
        for attempt in (mine.begin("w", [_call("2")]), mine.add([_watch("w")]), mine.delivered(["w"])):
            await _raises(NotOwnerError, attempt, "a watch can be changed that was released")
        whole = _watch("w", calls=(_call("1"),))
        assert await mine.claim() == [whole, _watch("v")], "a journal does not claim what it has released"
        await mine.release(["w"])
        assert await other.claim() == [whole], "a journal does not claim what another one has released"


async def _releases_what_a_cancelled_claim_has_taken(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w")])
        for passes in range(12):
            await journal.release(["w"])
            claim = asyncio.ensure_future(journal.claim())
            for _ in range(passes):
                await asyncio.sleep(0)
            claim.cancel()
            with suppress(asyncio.CancelledError):
                assert await claim == [_watch("w")], "a claim did not return what was released"
                continue
            assert await _claimed(journal) == ["w"], "a claim that was cancelled has kept what it has taken"


async def _forgets(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w"), _watch("v")])
        await journal.begin("w", [_call("1")])
        await journal.delivered(["w", "never there"])
        await journal.delivered(["w"])
        await _raises(NotOwnerError, journal.begin("w", [_call("2")]), "a call begins in a watch that was forgotten")
        await journal.add([_watch("w")])
        assert await journal.begin("w", [_call("1")]) == [], "a watch has the calls of one that was forgotten"


async def _has_one_owner(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("w"), _watch("v")])
        await mine.begin("w", [_call("1")])
        await other.add([_watch("theirs")])
        assert await other.claim() == [], "a journal claims watches that another one owns"
        assert await mine.claim() == [], "a journal claims watches again that it owns"
        await _is_refused(other)
        await _is_refused(mine, "theirs")
        await mine.aclose()
        taken = await other.claim()
        assert taken == [_watch("w", calls=(_call("1"),)), _watch("v")], f"not what the owner had written: {taken}"
        await mine.open()
        assert await mine.claim() == [], "a journal that is opened again still owns what another one has claimed"
        await _is_refused(mine)


async def _is_refused(journal: Journal, key: str = "w") -> None:
    """Check that nothing can be changed, not even together with a watch of the journal's own."""
    await journal.add([_watch("own")])
    for attempt in (
        journal.add([_watch("own", label=1), _watch(key)]),
        journal.begin(key, [_call("9")]),
        journal.answered(key, [_call("1", "stolen")]),
        journal.submitting(key, ["1"]),
        journal.moved(key, _OTHER, 1.0),
        journal.finished({"own": _OUTCOME, key: _OUTCOME}),
        journal.delivered(["own", key]),
    ):
        await _raises(NotOwnerError, attempt, "a watch can be changed that another one owns")
    assert await journal.begin("own", [_call("1")]) == [], "a watch is gone after a call that raised"
    await journal.delivered(["own"])


async def _claims_for_one(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch(str(number)) for number in range(20)])
    journals = [factory() for _ in range(4)]
    await asyncio.gather(*(journal.open() for journal in journals))
    claimed = await asyncio.gather(*(_claimed(journal) for journal in journals))
    await asyncio.gather(*(journal.aclose() for journal in journals))
    keys = sorted(key for keys in claimed for key in keys)
    assert keys == sorted(map(str, range(20))), f"watches were claimed twice, or not at all: {keys}"


async def _fails_alone(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch("w")])
        results = await asyncio.gather(
            journal.begin("w", [_call("1")]),
            journal.begin("not there", [_call("1")]),
            journal.begin("w", [_call("1"), _call("2")]),
            journal.add([_watch("v"), _watch("u", label=object())]),
            journal.finished({"w": {"not": object()}}),
            journal.submitting("w", ["1"]),
            return_exceptions=True,
        )
        failures = [type(result) for result in results if isinstance(result, BaseException)]
        assert failures == [NotOwnerError, JournalError, JournalError], f"not the calls that must fail: {results}"
        assert (results[0], results[2]) == ([], [_call("1")]), f"calls that failed spoiled others: {results}"
        records = await _reread(journal, factory)
    expected = _watch("w", calls=(_call("1"), _call("2")), submitting=("1",))
    assert records == [expected], f"calls that failed have changed something: {records}"


async def _is_safe_to_cancel(factory: Factory) -> None:
    async with factory() as journal:
        await journal.add([_watch(str(number)) for number in range(8)])
        for passes in range(8):
            begin = asyncio.ensure_future(journal.begin(str(passes), [_call("1"), _call("2")]))
            for _ in range(passes):
                await asyncio.sleep(0)
            begin.cancel()
            with suppress(asyncio.CancelledError):
                await begin
            assert await journal.begin("0", [_call("3")]) in ([], [_call("3")]), "a cancel spoils later calls"
        others = [factory() for _ in range(4)]
        cancelled = [asyncio.ensure_future(other.open()) for other in others]
        for passes, opening in enumerate(cancelled):
            for _ in range(passes):
                await asyncio.sleep(0)
            opening.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        for other in others:
            await other.aclose()
        records = await _reread(journal, factory)
    for record in records[1:]:
        ids = [call.call_id for call in record.calls]
        assert ids in ([], ["1", "2"]), f"a call that was cancelled is written by halves: {ids}"


async def _claims_by_key(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("b", 2.0), _watch("a", 3.0), _watch("c", 1.0), _watch("owned")])
        await mine.begin("a", [_call("1")])
        await mine.release(["a", "b", "c"])
        assert await other.claim([]) == [], "a journal that claims no watch claims some"
        whole = _watch("a", 3.0, calls=(_call("1"),))
        claimed = await other.claim(["a", "never there", "b", "owned", "a"])
        assert claimed == [_watch("b", 2.0), whole], f"not the watches that were to be claimed: {claimed}"
        assert await other.claim(["a"]) == [], "a journal claims a watch again that it owns"
        assert await mine.claim() == [_watch("c", 1.0)], "a watch is claimed that was not to be"


async def _reads(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("b", 2.0), _watch("a", 1.0, label=_LABEL), _watch("free", 3.0)])
        await mine.begin("a", [_call("1")])
        await mine.answered("a", [_call("1", "one")])
        await mine.finished({"a": _OUTCOME})
        await mine.release(["free"])
        for journal in (mine, other):
            records = await journal.read()
            whole = _watch("a", 1.0, label=_LABEL, calls=(_call("1", "one"),), outcome=_OUTCOME)
            expected = [whole, _watch("b", 2.0), _watch("free", 3.0)]
            assert [replace(record, owner="") for record in records] == expected, f"not what is there: {records}"
            owned = [bool(record.owner) for record in records]
            assert owned == [True, True, False], f"a record does not say whether a living process owns it: {records}"
        assert await other.claim() == [_watch("free", 3.0)], "reading has changed who owns what"
        await mine.aclose()
        owned = [bool(record.owner) for record in await other.read()]
        assert owned == [False, False, True], "a journal that was closed still owns watches"


async def _begins_again_what_was_accepted(factory: Factory) -> None:
    accepted, later = replace(_call("1", "one"), accepted_at=5.0), replace(_call("2", "two"), accepted_at=7.0)
    async with factory() as journal:
        await journal.add([_watch("w"), _watch("v")])
        for key in ("w", "v"):
            await journal.begin(key, [_call("1")])
        await journal.answered("w", [_call("1", "one")])
        await journal.moved("w", _OTHER, 5.0)
        records = {record.key: record for record in await journal.read()}
        assert records["w"].calls == (accepted,), f"it is not noted when a call was accepted: {records['w']}"
        assert records["v"].calls == (_call("1"),), f"a call of another watch counts as accepted: {records['v']}"
        await journal.begin("w", [_call("2")])
        await journal.answered("w", [_call("2", "two")])
        await journal.moved("w", _OTHER, 7.0)
        (record,) = [record for record in await journal.read() if record.key == "w"]
        assert record.calls == (later,), f"not the calls of the last submit alone: {record}"
        assert await journal.begin("w", [_call("2")]) == [], "a call with the key of one that was accepted is not new"
        assert await journal.begin("w", [_call("2")]) == [_call("2")], "it has what the accepted one had"


async def _asks(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("w"), _watch("v"), _watch("left")])
        await mine.moved("w", _OTHER, 1.0)
        await mine.release(["left"])
        for ref in (_ref("never there"), _ref("left")):
            assert not await other.ask(ref, Wish.POLL), "a process was asked that does not watch the run"
        assert not await mine.ask(_ref("v"), Wish.POLL), "a journal asks itself"
        waiting = asyncio.ensure_future(mine.wishes())
        await asyncio.sleep(0)
        assert await other.ask(_OTHER, Wish.POLL), "the process that watches a run cannot be asked"
        assert await waiting == [("w", Wish.POLL)], "a process that waits is not told what is asked"
        for ref, wish in ((_ref("v"), Wish.CANCEL), (_ref("w"), Wish.POLL), (_ref("v"), Wish.CANCEL)):
            assert await other.ask(ref, wish), "a run cannot be asked for by the ref that it had at first"
        wishes = await mine.wishes()
        assert sorted(wishes, key=itemgetter(0)) == [("v", Wish.CANCEL), ("w", Wish.POLL)], (
            f"not what was asked: {wishes}"
        )
        assert await other.ask(_ref("v"), Wish.CANCEL), "what was asked once cannot be asked again"
        assert await mine.wishes() == [("v", Wish.CANCEL)], "what was asked again is not told"
        await _returns_what_a_cancelled_caller_did_not_get(mine, other)


async def _returns_what_a_cancelled_caller_did_not_get(mine: Journal, other: Journal) -> None:
    for passes in range(12):
        waiting = asyncio.ensure_future(mine.wishes())
        for _ in range(passes):
            await asyncio.sleep(0)
        assert await other.ask(_ref("v"), Wish.POLL), "the process that watches a run cannot be asked"
        for _ in range(passes):
            await asyncio.sleep(0)
        waiting.cancel()
        try:
            wishes = await waiting
        except asyncio.CancelledError:
            wishes = await mine.wishes()
        assert wishes == [("v", Wish.POLL)], f"a caller that was cancelled took what was asked: {wishes}"


async def _keeps_wishes_for_the_next_owner(factory: Factory) -> None:
    async with factory() as mine, factory() as other:
        await mine.add([_watch("w"), _watch("v")])
        assert await other.ask(_ref("w"), Wish.CANCEL)
        assert await other.ask(_ref("v"), Wish.CANCEL)
        await mine.delivered(["v"])
        await mine.aclose()
        assert not await other.ask(_ref("w"), Wish.POLL), "a process was asked that has closed its journal"
        await other.claim()
        await other.add([_watch("v")])
        assert await other.wishes() == [("w", Wish.CANCEL)], "the next owner is not told what was asked"


_CHECKS: Final[Sequence[Callable[[Factory], Awaitable[None]]]] = (
    _is_opened_and_closed,
    _keeps_everything,
    _changes_a_watch,
    _creates,
    _begins_once,
    _keeps_the_first_output,
    _orders,
    _keeps_what_it_has,
    _has_one_watch_of_a_run,
    _releases,
    _releases_what_a_cancelled_claim_has_taken,
    _forgets,
    _has_one_owner,
    _claims_for_one,
    _claims_by_key,
    _reads,
    _begins_again_what_was_accepted,
    _asks,
    _keeps_wishes_for_the_next_owner,
    _fails_alone,
    _is_safe_to_cancel,
)


def _watch(key: str, created_at: float = 0.0, **fields: Any) -> WatchRecord:
    return WatchRecord(key=key, ref=_ref(key), created_at=created_at, **fields)


def _ref(key: str) -> RunRef:
    return RunRef("thread_run", ("thread_1", key))


def _call(name: str, output: str | None = None, *, failed: bool = False) -> CallRecord:
    return CallRecord(key=name, call_id=name, output=output, failed=failed)


async def _claimed(journal: Journal) -> list[str]:
    return [record.key for record in await journal.claim()]


async def _reread(journal: Journal, factory: Factory) -> list[WatchRecord]:
    """Close a journal, and return what another one reads."""
    await journal.aclose()
    async with factory() as other:
        return await other.claim()


async def _raises(kind: type[Exception], attempt: Awaitable[object], otherwise: str) -> None:
    try:
        await attempt
    except kind:
        return
    raise AssertionError(otherwise)
