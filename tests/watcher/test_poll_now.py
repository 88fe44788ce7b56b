"""A poll on request: at once, in place of the planned one, and none beside one that is in flight."""

from __future__ import annotations

import anyio
import pytest
from wires import Wire, about_polls

from asyncruns import Cadence, Client, Completed, Fleet, InvalidRequestError, RunRef, RunWatcher
from asyncruns._loop import loop_time

SLOW = Cadence.fixed(30.0)


@about_polls
async def test_a_poll_is_sent_at_once(wire: Wire) -> None:
    run = await wire.start(queued=0.1, working=1.0)
    async with wire.watcher(run, cadence=SLOW) as watcher:
        await anyio.sleep(2.0)
        polls, began = watcher.polls, loop_time()
        watcher.poll_now()
        watcher.poll_now()
        assert isinstance(await watcher.wait(), Completed)
        assert loop_time() - began < 1.0
        assert watcher.polls == polls + 1
        watcher.poll_now()
        await anyio.sleep(1.0)
        assert watcher.polls == polls + 1


@about_polls
async def test_a_run_that_goes_on_is_polled_at_its_pace_again(wire: Wire) -> None:
    run = await wire.start(working=70.0)
    async with wire.watcher(run, cadence=SLOW) as watcher:
        for _ in range(3):
            await anyio.sleep(5.0)
            watcher.poll_now()
        await anyio.sleep(1.0)
        polls = watcher.polls
        assert polls >= 4
        assert isinstance(await watcher.wait(), Completed)
        assert watcher.polls - polls <= 3


async def test_a_watcher_that_is_not_entered_refuses() -> None:
    async with Client("http://127.0.0.1:1/v1", api_key="key") as client:
        watcher = RunWatcher(client, thread_id="thread_1", run_id="run_1")
        with pytest.raises(InvalidRequestError, match="Enter the watcher first"):
            watcher.poll_now()
        with pytest.raises(InvalidRequestError, match="Enter the fleet first"):
            Fleet(client).poll_now(RunRef("thread.run", ("thread_1", "run_1")))
