"""What the demo creates at a server, and its removal, also when the demo is interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

import anyio

from asyncruns.cli.board import Row
from asyncruns.cli.output import complain
from asyncruns.client.client import Client
from asyncruns.errors import AsyncRunsError, NotFoundError

CANCEL_PATIENCE_S: Final = 10.0
CANCELS_AT_ONCE: Final = 8


class Leftovers:
    """The ids of what was created; the demo appends to the lists."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.assistants: list[str] = []
        self.threads: list[str] = []

    async def remove(self, unfinished: Iterable[Row]) -> None:
        """Cancel these runs, then delete all that was created; report on stderr what could not be deleted.

        It is shielded from cancellation and takes at most 10 s.
        """
        # What is deleted is taken out; what remains has the reason. A timeout leaves the initial one.
        left = dict.fromkeys([*self.threads, *self.assistants], "no answer in time")
        with anyio.move_on_after(CANCEL_PATIENCE_S, shield=True):
            await _some_at_once([partial(self._cancel, row) for row in unfinished if row.run_id])
            await _some_at_once(
                [partial(_delete, self._client.threads.delete, id_, left) for id_ in self.threads]
                + [partial(_delete, self._client.assistants.delete, id_, left) for id_ in self.assistants]
            )
        if left:
            complain(f"could not delete {', '.join(left)}: {next(iter(left.values()))}")

    async def _cancel(self, row: Row) -> None:
        with contextlib.suppress(AsyncRunsError):  # it may have ended by now; its thread is deleted anyway
            await self._client.threads.runs.cancel(row.run_id, thread_id=row.thread_id)


async def _delete(request: Callable[[str], Awaitable[Any]], id_: str, left: dict[str, str]) -> None:
    try:
        await request(id_)
    except NotFoundError:
        pass  # already deleted
    except AsyncRunsError as error:
        left[id_] = str(error)
        return
    del left[id_]


async def _some_at_once(jobs: Iterable[Callable[[], Awaitable[None]]]) -> None:
    few = anyio.CapacityLimiter(CANCELS_AT_ONCE)

    async def perform(job: Callable[[], Awaitable[None]]) -> None:
        async with few:
            await job()

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(perform, job)
