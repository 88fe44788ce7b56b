"""Under load a transaction waits for more to share it; it does not while that brings none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest

from asyncruns.journal.group_commit import BURST, MOST_PER_S, GroupCommit
from asyncruns.journal.own_thread import OwnThread


class Written:
    """What was written, in its transactions."""

    def __init__(self) -> None:
        self.transactions: list[list[int]] = []

    def run(self, statements: Sequence[int]) -> list[int]:
        self.transactions.append(list(statements))
        return list(statements)

    def read(self, statement: int) -> int:
        return statement

    def close(self) -> None:
        pass


@pytest.fixture
def database() -> Written:
    return Written()


@pytest.fixture
async def commits(database: Written) -> AsyncIterator[GroupCommit[int]]:
    commits = GroupCommit(database, OwnThread("asyncruns-test"))
    yield commits
    await commits.close()


async def took(work: Awaitable[object]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work
    return loop.time() - began


async def written_by_turns(commits: GroupCommit[int], count: int, pause: float = 0.0) -> None:
    for number in range(count):
        await commits.write(number)
        await asyncio.sleep(pause)


async def test_each_after_the_other_hardly_waits(commits: GroupCommit[int], database: Written) -> None:
    assert await took(written_by_turns(commits, 300)) < 6 / MOST_PER_S
    assert len(database.transactions) == 300


async def test_two_that_are_written_at_once_by_turns_hardly_wait(commits: GroupCommit[int]) -> None:
    async def pairs() -> None:
        for number in range(150):
            await asyncio.gather(commits.write(number), commits.write(-number))

    assert await took(pairs()) < 6 / MOST_PER_S


async def written_until(commits: GroupCommit[int], end: float, pause: float) -> int:
    count = 0
    while asyncio.get_running_loop().time() < end:
        await commits.write(1)
        count += 1
        await asyncio.sleep(pause)
    return count


async def written_by_many(commits: GroupCommit[int], seconds: float) -> list[int]:
    end = asyncio.get_running_loop().time() + seconds
    return await asyncio.gather(*(written_until(commits, end, 0.05 + number / 1000) for number in range(100)))


@pytest.mark.slow
async def test_many_share_transactions(commits: GroupCommit[int], database: Written) -> None:
    counts = await written_by_many(commits, 4.0)
    assert len(database.transactions) <= MOST_PER_S * 4.2 + BURST + 1
    assert sum(counts) > 1500
    assert min(counts) > 4.0 / (0.15 + 2 / MOST_PER_S)  # none waited longer than for the next transaction


async def test_they_hardly_wait_again_when_the_load_is_over(commits: GroupCommit[int]) -> None:
    await written_by_many(commits, 2.0)
    assert await took(written_by_turns(commits, 300)) < 6 / MOST_PER_S
