"""The fleets of a worker: they outlive the activities that use them, so that the next one goes on without new polls.

A fleet here has no tools and no journal: it only polls, and submits outputs that it is given. It must not cancel a run
when it is left.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from asyncruns._loop import loop_time
from asyncruns.client.client import Client
from asyncruns.fleet import Fleet
from asyncruns.temporal.messages import ShardJob
from asyncruns.temporal.shard_fleet import OnOutcome, ShardFleet
from asyncruns.watch.logs import FLEET_LOG

UNUSED_S: Final = 120.0
"""How long the fleet of a shard goes on without an activity; then it is left."""
TIDY_EVERY_S: Final = 5.0


class ResidentFleets:
    """The fleets of one worker: one for the watches of workflows, and one for each shard.

    Args:
        client: Polls the runs.
        per_second: The budget of the fleet for the watches of workflows, in requests per second, and of that for their
            watches with `observe_only`; None for no limit.
        on_outcome: Told how each run of a shard ended.
    """

    def __init__(self, client: Client, per_second: float | None, on_outcome: OnOutcome | None) -> None:
        self._client = client
        self._per_second = per_second
        self._on_outcome = on_outcome
        self._shared: dict[bool, Fleet[Any]] = {}
        self._shards: dict[str, ShardFleet] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None

    async def shared(self, *, observes: bool) -> Fleet[Any]:
        """Return the fleet for the watches of workflows, or that for those with `observe_only`.

        Watches of one fleet share the polls of a run, and then it is the first one's options that hold.
        """
        async with self._lock:
            if observes not in self._shared:
                fleet: Fleet[Any] = Fleet(
                    self._client, requests_per_second=self._per_second, on_exit="leave", journal=None
                )
                self._shared[observes] = await fleet.__aenter__()
            return self._shared[observes]

    def shard(self, name: str) -> ShardFleet | None:
        """Return the fleet of a shard, if there is one here."""
        return self._shards.get(name)

    async def new_shard(self, job: ShardJob, largest_report: float = math.inf) -> ShardFleet:
        """Make a new fleet for a shard, in place of an old one.

        Args:
            job: Names the shard, and says what its share of the budget is.
            largest_report: The bytes that the report of a run may have.
        """
        await self.leave(job.shard)  # what it is submitting is waited for, so that nothing is submitted twice
        fleet = ShardFleet(self._client, job.per_second, self._on_outcome, largest_report)
        await fleet.open()
        await self.leave(job.shard)  # another activity may have been as quick
        self._shards[job.shard] = fleet
        if self._tidying is None:
            self._tidying = asyncio.create_task(self._tidy(), name="asyncruns shards")
        return fleet

    async def _tidy(self) -> None:
        """Leave the fleets that no activity has used for a while: their shards have ended, or are elsewhere."""
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            for name in [name for name, each in self._shards.items() if _is_unused(each)]:
                await self.leave(name)

    async def leave(self, name: str) -> None:
        """Leave the fleet of a shard, if there is one here; the runs go on at the server.

        Returns when it is left, also if another task has begun that. Safe to cancel: it is left in any case.
        """
        if (fleet := self._shards.pop(name, None)) is not None:
            self._leaving[name] = asyncio.create_task(self._closed(name, fleet), name="asyncruns shard is left")
        if (leaving := self._leaving.get(name)) is not None:
            await asyncio.shield(leaving)

    async def _closed(self, name: str, fleet: ShardFleet) -> None:
        try:
            await fleet.aclose()
        except Exception as error:  # the other shards go on
            FLEET_LOG.error("The fleet of the shard %s was not left in order", name, exc_info=error)
        finally:
            if self._leaving.get(name) is asyncio.current_task():
                del self._leaving[name]

    async def aclose(self) -> None:
        """Leave all fleets; the runs go on at the server."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        for name in [*self._shards, *self._leaving]:
            await self.leave(name)
        async with self._lock:
            while self._shared:
                await self._shared.popitem()[1].__aexit__(None, None, None)


def _is_unused(fleet: ShardFleet) -> bool:
    return fleet.users == 0 and loop_time() > fleet.used_at + UNUSED_S
