"""A limit within another: the holder of a place in the inner one has a place in the outer one, and releases both."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from asyncruns.tools import ConcurrencyLimit


class Room:
    """Work that holds a limit until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.running = 0

    async def work(self, limit: ConcurrencyLimit) -> None:
        async with limit:
            self.running += 1
            try:
                await self.release.wait()
            finally:
                self.running -= 1


async def several_steps(steps: int = 10) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


def taken(*limits: ConcurrencyLimit) -> list[int]:
    return [limit.running for limit in limits]


async def all_work(*limits: ConcurrencyLimit) -> None:
    """Check that each limit still has all its places."""
    for limit in limits:
        room = Room()
        tasks = [asyncio.ensure_future(room.work(limit)) for _ in range(3)]
        await several_steps()
        room.release.set()
        await asyncio.gather(*tasks)
    assert not any(taken(*limits))


@pytest.mark.parametrize(
    ("inner", "outer", "most"), [(2, 4, 2), (4, 2, 2), (None, 3, 3), (3, None, 3), (None, None, 6)]
)
async def test_a_call_holds_and_releases_a_place_in_both_limits(
    inner: int | None, outer: int | None, most: int
) -> None:
    around = ConcurrencyLimit(outer)
    limit, room = ConcurrencyLimit(inner, within=around), Room()
    tasks = [asyncio.ensure_future(room.work(limit)) for _ in range(6)]
    await several_steps()
    assert room.running == most
    assert around.running == most
    room.release.set()
    await asyncio.gather(*tasks)
    assert taken(limit, around) == [0, 0]


async def test_all_inner_limits_share_the_places_of_the_outer_one() -> None:
    around, room = ConcurrencyLimit(3), Room()
    limits = [ConcurrencyLimit(2, within=around), ConcurrencyLimit(2, within=around)]
    tasks = [asyncio.ensure_future(room.work(limit)) for limit in limits for _ in range(2)]
    await several_steps()
    assert room.running == 3
    room.release.set()
    await asyncio.gather(*tasks)
    assert taken(*limits, around) == [0, 0, 0]


async def test_a_waiter_for_the_inner_limit_holds_no_place_in_the_outer_one() -> None:
    around, room = ConcurrencyLimit(2), Room()
    limit = ConcurrencyLimit(1, within=around)
    crowd = [asyncio.ensure_future(room.work(limit)) for _ in range(5)]
    await several_steps()
    other = asyncio.ensure_future(room.work(around))
    await several_steps()
    assert room.running == 2
    room.release.set()
    await asyncio.gather(*crowd, other)


async def test_a_waiter_for_the_outer_limit_that_is_cancelled_releases_its_inner_place() -> None:
    around, room = ConcurrencyLimit(1), Room()
    limit = ConcurrencyLimit(1, within=around)
    await around.acquire()
    first, second = (asyncio.ensure_future(room.work(limit)) for _ in range(2))
    await several_steps()
    assert taken(limit, around) == [1, 1]
    first.cancel()
    await several_steps()
    assert taken(limit, around) == [1, 1]  # now the second holds the inner place and waits for the outer one
    around.release()
    await several_steps()
    assert room.running == 1
    room.release.set()
    await second
    assert taken(limit, around) == [0, 0]
    await all_work(limit, around)


async def test_acquire_and_release_use_both_limits() -> None:
    around = ConcurrencyLimit(1)
    limit, other = ConcurrencyLimit(2, within=around), ConcurrencyLimit(2, within=around)
    await limit.acquire()
    waiting = asyncio.ensure_future(other.acquire())
    await several_steps()
    assert taken(limit, around, other) == [1, 1, 1]
    assert not waiting.done()
    limit.release()
    await waiting
    other.release()
    assert taken(limit, around, other) == [0, 0, 0]
    await all_work(limit, other, around)


async def test_a_failure_releases_both_places() -> None:
    around = ConcurrencyLimit(1)
    limit = ConcurrencyLimit(1, within=around)
    with pytest.raises(ValueError, match="inside"):
        async with limit:
            raise ValueError("inside")
    assert taken(limit, around) == [0, 0]


async def test_limits_can_be_nested_in_three_levels() -> None:
    outer = ConcurrencyLimit(1)
    middle = ConcurrencyLimit(2, within=outer)
    limit, room = ConcurrencyLimit(3, within=middle), Room()
    tasks = [asyncio.ensure_future(room.work(limit)) for _ in range(4)]
    await several_steps()
    assert taken(limit, middle, outer) == [3, 2, 1]
    tasks[1].cancel()  # it waits for the outermost limit
    await several_steps()
    assert taken(limit, middle, outer) == [3, 2, 1]
    room.release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert taken(limit, middle, outer) == [0, 0, 0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (2, 1), (1, 2), (None, 1)])
async def test_all_places_are_released_in_whatever_order_waiters_are_cancelled(
    order: tuple[int, ...], steps: int, inner: int | None, outer: int | None
) -> None:
    around = ConcurrencyLimit(outer)
    limit, room = ConcurrencyLimit(inner, within=around), Room()
    tasks = [asyncio.ensure_future(room.work(limit)) for _ in range(4)]
    await several_steps()
    for index in order:
        tasks[index].cancel()
        await several_steps(steps)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert taken(limit, around) == [0, 0]
    await all_work(limit, around)
