"""A journal in a file does what one in memory does, whatever is called on two of them in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from writers import IN_MEMORY

from asyncruns import JournalError, MemoryJournal, RunRef, SQLiteJournal
from asyncruns.abc import Journal
from asyncruns.journal.memory import MemoryStore
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.testing import VirtualTimeLoop

Operation = Callable[[Journal], Awaitable[object]]

texts = st.text(max_size=5)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
refs = st.builds(RunRef, st.sampled_from(["thread_run", "responses"]), st.sampled_from([("a",), ("b", "c")]))
keys = st.sampled_from(["w1", "w2"])
calls = st.lists(
    st.builds(CallRecord, key=st.sampled_from("ab"), call_id=texts, output=st.none() | st.text(), failed=st.booleans()),
    max_size=3,
)
# Calls within the record that is added have keys of their own, and outcomes are dicts.
own_calls = st.lists(st.builds(CallRecord, key=texts, call_id=texts), max_size=2, unique_by=lambda call: call.key)
outcomes = st.dictionaries(texts, plain, max_size=2)
watches = st.builds(
    WatchRecord,
    key=keys,
    ref=refs,
    refs=st.lists(refs, max_size=2).map(tuple),
    label=plain,
    toolset=texts,
    created_at=st.sampled_from([0.0, 0.5]),
    traceparent=texts,
    calls=own_calls.map(tuple),
    submitting=st.lists(texts, max_size=2).map(tuple),
    outcome=st.none() | outcomes,
)


async def reopen(journal: Journal) -> None:
    await journal.aclose()
    await journal.open()


async def readable(journal: Journal) -> list[WatchRecord]:
    return [replace(record, owner="owned" * bool(record.owner)) for record in await journal.read()]


async def asked(journal: Journal) -> list[tuple[str, Wish]]:
    """Return what is asked, in any order; nothing if it would have to wait."""
    waiting = asyncio.ensure_future(journal.wishes())
    done, _ = await asyncio.wait({waiting}, timeout=1.0)
    waiting.cancel()
    await asyncio.wait({waiting})
    return sorted(waiting.result(), key=str) if done else []


def operations(*, waits: bool = True) -> st.SearchStrategy[Operation]:
    """Return operations; those that wait for a wish only if they do that by the time of the loop."""
    return st.one_of(
        *([st.just(asked)] if waits else []),
        st.lists(watches, max_size=3, unique_by=lambda watch: watch.key).map(lambda given: lambda j: j.add(given)),
        st.just(lambda j: j.claim()),
        st.lists(keys, max_size=2).map(lambda given: lambda j: j.claim(given)),
        st.just(readable),
        st.tuples(refs, st.sampled_from(Wish)).map(lambda given: lambda j: j.ask(*given)),
        st.tuples(keys, calls).map(lambda given: lambda j: j.begin(*given)),
        st.tuples(keys, calls).map(lambda given: lambda j: j.answered(*given)),
        st.tuples(keys, st.lists(texts, max_size=2)).map(lambda given: lambda j: j.submitting(*given)),
        st.tuples(keys, refs).map(lambda given: lambda j: j.moved(*given, 1.0)),
        st.dictionaries(keys, outcomes, max_size=2).map(lambda given: lambda j: j.finished(given)),
        st.lists(keys, max_size=3).map(lambda given: lambda j: j.delivered(given)),
        st.lists(keys, max_size=3).map(lambda given: lambda j: j.release(given)),
        st.just(reopen),
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), operations()), max_size=30))
def test_a_journal_in_a_file_does_what_one_in_memory_does(history: Sequence[tuple[bool, Operation]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        path, store = Path(folder) / "journal.db", MemoryStore()
        in_file = runner.run(results_of(lambda: SQLiteJournal(path), history))
        in_memory = runner.run(results_of(lambda: MemoryJournal(store), history))
    assert in_file == in_memory


async def results_of(factory: Callable[[], Journal], history: Sequence[tuple[bool, Operation]]) -> list[Any]:
    """Return what each operation returned, or the class of what it raised; at the end, what is there."""
    results: list[Any] = []
    async with factory() as one, factory() as other:
        await one.add([WatchRecord(key="w1", ref=RunRef("thread_run", ("a",)))])
        for is_other, operation in history:
            try:
                results.append(await operation(other if is_other else one))
            except JournalError as error:
                results.append(type(error))
    async with factory() as last:
        return [*results, await last.claim()]
