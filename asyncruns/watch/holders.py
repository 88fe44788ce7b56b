"""What watches which run with a journal, in this process, and what is asked of these watches from elsewhere.

A journal has one task here, which waits for what other processes ask; it ends when nothing is watched. It must not
decide what becomes of a run: it only passes wishes on.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from asyncruns.abc import Journal
from asyncruns.errors import JournalError, NotOwnerError
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import Wish, key_of_run
from asyncruns.watch.logs import WATCH_LOG

DEAF_S: Final = 5.0  # the pause after wishes could not be read


class Holder(Protocol):
    """A fleet, or a single watch."""

    def grant(self, wish: Wish, run: str | RunRef) -> bool:
        """Do what is asked of the watch with this key, or of this run; return False if it is not watched. No wait."""
        ...


class Holders:
    """The holders of one journal, by the keys of their watches."""

    def __init__(self) -> None:
        self.by_key: dict[str, Holder] = {}
        self._listening: asyncio.Task[None] | None = None

    def listen(self, journal: Journal) -> None:
        """Wait for wishes from now on."""
        loop, task = asyncio.get_running_loop(), self._listening
        if task is None or task.done() or task.get_loop() is not loop:
            listening = self._listen(journal)
            self._listening = loop.create_task(listening, name="asyncruns journal wishes", context=Context())

    def stop(self) -> None:
        """Wait for wishes no more."""
        task, self._listening = self._listening, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()

    async def _listen(self, journal: Journal) -> None:
        while True:
            try:
                wishes = await journal.wishes()
            except JournalError:  # it is closed, or cannot be read, which the watches notice by themselves
                await asyncio.sleep(DEAF_S)
                continue
            except Exception as error:
                WATCH_LOG.warning("What other processes ask is not heard: the journal raised %r", error)
                return
            for key, wish in wishes:
                if (holder := self.by_key.get(key)) is not None:
                    holder.grant(wish, key)


_HOLDERS: Final[WeakKeyDictionary[Journal, Holders]] = WeakKeyDictionary()


def hold(journal: Journal, key: str, holder: Holder) -> None:
    """Note what watches a run with a journal in this process.

    Raises:
        NotOwnerError: Something else watches it already.
    """
    holders = _HOLDERS.setdefault(journal, Holders())
    if holders.by_key.setdefault(key, holder) is not holder:
        raise NotOwnerError(
            f"The run of {key!r} is watched with this journal already, in this process: watch it through the fleet "
            "that watches it, or wait for the other watch. Its calls would run twice"
        )
    holders.listen(journal)


def let_go(journal: Journal, key: str, holder: Holder) -> None:
    """Note that this holder does not watch a run any more."""
    holders = _HOLDERS.get(journal)
    if holders is not None and holders.by_key.get(key) is holder:
        del holders.by_key[key]
        if not holders.by_key:
            holders.stop()


def holder_of(journal: Journal, key: str) -> Holder | None:
    """Return what watches this with the journal in this process; None for nothing."""
    holders = _HOLDERS.get(journal)
    return None if holders is None else holders.by_key.get(key)


async def ask_watch(journal: Journal, ref: RunRef, wish: Wish) -> bool:
    """Ask what watches a run with the journal for something, in this process or in another; return if there is one.

    Safe to cancel; it is then asked or not.

    Raises:
        JournalError: The journal could not be read or written.
    """
    by_key = holders.by_key if (holders := _HOLDERS.get(journal)) is not None else {}
    first = by_key.get(key_of_run(ref))
    here = [*([] if first is None else [first]), *by_key.values()]
    if any(holder.grant(wish, ref) for holder in dict.fromkeys(here)):
        return True
    return await journal.ask(ref, wish)
