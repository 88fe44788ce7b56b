"""A journal in memory, for tests: it survives a watch or an event loop, but not the process.

It keeps copies, as a journal in a file would: what was given may be modified later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from asyncruns._loop import wake
from asyncruns.abc import Journal
from asyncruns.errors import JournalError
from asyncruns.journal.entries import (
    MAX_OUTPUT_BYTES,
    accepted,
    as_json,
    content_of,
    moved_to,
    not_there,
    of_another,
    packed,
    refs_of,
    run_texts,
    unpacked,
    watched_as,
    writable,
)
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef


@dataclass
class _Entry:
    owner: object | None
    record: WatchRecord  # without its calls
    calls: dict[str, CallRecord]
    refs: list[str]  # of all its runs, as texts
    wishes: list[Wish] = field(default_factory=list)

    @property
    def whole(self) -> WatchRecord:
        return replace(self.record, calls=tuple(self.calls.values()))


class MemoryStore:
    """Holds what journals in memory have written; give the same one to several, as to several processes."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._refs: dict[str, str] = {}  # the key of the watch of each run
        self._owners: set[object] = set()
        self._news: asyncio.Future[None] | None = None  # done when something was asked for

    def __len__(self) -> int:
        """Return the number of watches."""
        return len(self._entries)

    def crash(self) -> None:
        """Treat the processes of all open journals as dead: what they write from now on raises a JournalError."""
        self._owners.clear()
        self._news = None


class MemoryJournal(Journal):
    """Writes down what must survive in a `MemoryStore`.

    Args:
        store: What other journals have written to, or will; by default a new one.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store: MemoryStore = MemoryStore() if store is None else store
        self._owner: object | None = None

    def __repr__(self) -> str:
        return f"<MemoryJournal: {len(self.store)} watches{', open' * self.is_open}>"

    async def open(self) -> None:
        """Open the journal, and begin to own watches. May be called again when it was closed.

        Raises:
            JournalError: It is open already.
        """
        if self.is_open:
            raise JournalError("This journal is open already: open one journal for each client or fleet")
        self._owner = object()
        self.store._owners.add(self._owner)

    async def aclose(self) -> None:
        """Release the watches that are owned, and close. Never raises; may be called twice."""
        if self.is_open:
            for entry in self.store._entries.values():
                entry.owner = None if entry.owner is self._owner else entry.owner
        self.store._owners.discard(self._owner)
        self._owner = None
        wake(self.store._news)

    async def add(self, watches: Sequence[WatchRecord]) -> list[WatchRecord]:
        """Add watches, which this process owns then; return them as the journal has them now, in the order given."""
        entries = [self._entry_of(record) for record in watches]
        await self._written()
        added: dict[str, _Entry] = {}
        refs: dict[str, str] = {}
        for entry in entries:
            key = entry.record.key
            self._check_are_of(key, entry.refs, refs)
            if key in self.store._entries:
                self._own(key)
            elif key not in added:
                added[key] = entry
                refs |= dict.fromkeys(entry.refs, key)
        self.store._entries |= added
        self.store._refs |= refs
        return [self.store._entries[entry.record.key].whole for entry in entries]

    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        """Own the watches that no living process owns, and return all of them, or those of these, the oldest first."""
        keys = None if watches is None else frozenset(watches)
        await self._written()
        entries = [
            each
            for each in self.store._entries.values()
            if each.owner not in self.store._owners and (keys is None or each.record.key in keys)
        ]
        for entry in entries:
            entry.owner = self._owner
        return sorted((entry.whole for entry in entries), key=lambda record: record.created_at)

    async def read(self) -> list[WatchRecord]:
        """Return all watches, the oldest first, with who owns each; own none of them, and change nothing."""
        await self._written()
        owned = [(each, each.owner in self.store._owners) for each in self.store._entries.values()]
        records = [replace(entry.whole, owner="a journal in memory" if is_owned else "") for entry, is_owned in owned]
        return sorted(records, key=lambda record: record.created_at)

    async def release(self, watches: Sequence[str]) -> None:
        """Leave watches to any journal that claims them, this one too; skip those that are not owned or not there."""
        keys = tuple(watches)
        await self._written()
        for key in keys:
            entry = self.store._entries.get(key)
            if entry is not None and entry.owner is self._owner:
                entry.owner = None

    async def begin(self, watch: str, calls: Sequence[CallRecord]) -> list[CallRecord]:
        """Note that calls begin; return those of them that had begun before, as they are recorded."""
        calls = writable(calls, MAX_OUTPUT_BYTES)
        await self._written()
        begun = self._own(watch).calls
        before = []
        for call in calls:
            known = begun.get(call.key)
            if known is None:
                begun[call.key] = call
            elif known.accepted_at:
                begun[call.key] = CallRecord(key=call.key, call_id=call.call_id)
            else:
                before.append(known)
        return before

    async def answered(self, watch: str, calls: Sequence[CallRecord]) -> None:
        """Record the outputs of calls. An output that is recorded already is kept."""
        calls = writable(calls, MAX_OUTPUT_BYTES)
        await self._written()
        begun = self._own(watch).calls
        for call in calls:
            known = begun.setdefault(call.key, call)
            if known.output is None:
                begun[call.key] = replace(known, output=call.output, failed=call.failed)

    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        """Note that the outputs of the calls with these keys are about to be submitted; or, if none, are not."""
        keys = tuple(calls)
        await self._written()
        entry = self._own(watch)
        entry.record = replace(entry.record, submitting=keys)

    async def moved(self, watch: str, ref: RunRef, at: float) -> None:
        """Note that a submit was accepted, and which run the watch goes on with: the same, or another one."""
        await self._written()
        entry = self._own(watch)
        texts = run_texts(ref)
        self._check_are_of(watch, texts, {})
        self.store._refs |= dict.fromkeys(texts, watch)
        entry.refs += texts
        entry.record = moved_to(entry.record, ref)
        entry.calls = {call.key: call for call in accepted(entry.calls.values(), at)}

    async def finished(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Record how watches finished, by their keys: the outcomes are not delivered yet."""
        copies = {key: msgspec.json.decode(as_json(key, "outcome", outcome)) for key, outcome in outcomes.items()}
        await self._written()
        entries = {key: self._own(key) for key in copies}
        for key, entry in entries.items():
            entry.record = replace(entry.record, outcome=copies[key])

    async def delivered(self, watches: Sequence[str]) -> None:
        """Forget watches whose outcomes were delivered, or which the caller has left; skip those that are not there."""
        await self._written()
        there = [key for key in dict.fromkeys(watches) if key in self.store._entries]
        for key in there:
            self._own(key)
        for key in there:
            for ref in self.store._entries.pop(key).refs:
                self.store._refs.pop(ref, None)  # it may be there twice

    async def ask(self, ref: RunRef, wish: Wish) -> bool:
        """Ask the process that watches a run for something; return False if no other living process does."""
        (text,) = run_texts(ref)
        await self._written()
        entry = self.store._entries.get(self.store._refs.get(text, ""))
        if entry is None or entry.owner is self._owner or entry.owner not in self.store._owners:
            return False
        if wish not in entry.wishes:
            entry.wishes.append(wish)
        wake(self.store._news)
        return True

    async def wishes(self) -> list[tuple[str, Wish]]:
        """Wait until other processes ask something of watches that this one owns, and return it once, with the keys."""
        await self._written()
        while True:
            asked = [entry for entry in self.store._entries.values() if entry.wishes and entry.owner is self._owner]
            if asked:
                wishes = [(entry.record.key, wish) for entry in asked for wish in entry.wishes]
                for entry in asked:
                    entry.wishes.clear()
                return wishes
            if self.store._news is None or self.store._news.done():
                self.store._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.store._news)
            self._check_is_open()

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._owner is not None and self._owner in self.store._owners

    async def _written(self) -> None:
        """Yield to other tasks, as a write to a disk does, and check that the journal is open then."""
        await asyncio.sleep(0)
        self._check_is_open()

    def _check_is_open(self) -> None:
        if not self.is_open:
            raise JournalError("This journal is not open: use it inside of async with, or call open() first")

    def _own(self, key: str) -> _Entry:
        entry = self.store._entries.get(key)
        if entry is None:
            raise not_there(key)
        if entry.owner is not self._owner:
            raise of_another(key)
        return entry

    def _check_are_of(self, key: str, refs: Sequence[str], more: Mapping[str, str]) -> None:
        """Check that runs belong to no other watch, nor to one of those that are to be added."""
        for ref in refs:
            other = more.get(ref, self.store._refs.get(ref, key))
            if other != key:
                raise watched_as(ref, other)

    def _entry_of(self, record: WatchRecord) -> _Entry:
        outcome = None if record.outcome is None else as_json(record.key, "outcome", record.outcome)
        calls = {call.key: call for call in writable(record.calls, MAX_OUTPUT_BYTES)}
        copy = unpacked(record.key, packed(record), (), outcome, content_of(record))
        return _Entry(self._owner, copy, calls, run_texts(*refs_of(copy)))
