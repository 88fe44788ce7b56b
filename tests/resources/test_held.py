"""The wait for a thread that stays locked is bounded, and polls slowly."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import anyio
import msgspec
import pytest
from lossy import client_through

from asyncruns import InvalidRequestError, ThreadBusyError
from asyncruns.abc import Transport
from asyncruns.http import Request, Response


class BusyServer(Transport):
    """A server with a thread that is always locked, by a run that never changes."""

    def __init__(self, *, date: bool = True, run_id: str = "run_7", **run: Any) -> None:
        self.run = {"id": "run_7", "status": "in_progress", "thread_id": "thread_1", **run}
        self.date, self.run_id = date, run_id
        self.asked: list[tuple[float, str]] = []

    async def send(self, request: Request) -> Response:
        now = anyio.current_time()
        self.asked.append((now, request.method))
        headers = {"date": formatdate(1_000_000 + now, usegmt=True)} if self.date else {}
        if request.method == "POST":
            text = f"Thread thread_1 already has an active run {self.run_id}."
            return Response(409, headers, msgspec.json.encode({"error": {"message": text}}))
        return Response(200, headers, msgspec.json.encode(self.run))

    async def aclose(self) -> None:
        pass

    async def wait(self) -> tuple[ThreadBusyError, float]:
        start = anyio.current_time()
        with pytest.raises(ThreadBusyError) as caught:
            await client_through(self).threads.runs.create("thread_1", assistant_id="a", on_busy="wait")
        return caught.value, anyio.current_time() - start

    def count(self, method: str) -> int:
        return sum(1 for _, asked in self.asked if asked == method)


async def test_the_wait_ends_a_minute_after_the_runs_expiry_by_the_servers_clock() -> None:
    held = BusyServer(expires_at=1_000_000 + int(anyio.current_time()) + 100)
    error, seconds = await held.wait()
    assert 159.0 <= seconds <= 162.0
    assert "That run has not ended after a wait of 160 s." in str(error)
    assert (error.active_run_id, error.status) == ("run_7", 409)
    assert held.count("POST") == 1


@pytest.mark.parametrize(("date", "run"), [(False, {}), (False, {"expires_at": 1}), (True, {"expires_at": None})])
async def test_without_an_expiry_the_wait_ends_after_15_minutes(date: bool, run: dict[str, Any]) -> None:
    _, seconds = await BusyServer(date=date, **run).wait()
    assert 899.0 <= seconds <= 902.0


@pytest.mark.parametrize("status", ["requires_action", "completed", "warming_up"])
async def test_a_hopeless_wait_polls_slowly_and_is_bounded(status: str) -> None:
    held = BusyServer(status=status)
    _, seconds = await held.wait()
    assert seconds <= 902.0
    assert len(held.asked) <= 1000


async def test_a_hint_of_hours_does_not_extend_the_wait() -> None:
    held = BusyServer(status="queued")
    client = client_through(held)
    send = held.send

    async def hinting(request: Request) -> Response:
        response = await send(request)
        return Response(response.status, {"retry-after": "86400"}, response.body)

    held.send = hinting  # type: ignore[method-assign]
    start = anyio.current_time()
    with pytest.raises(ThreadBusyError):
        await client.threads.runs.create("thread_1", assistant_id="a", on_busy="wait")
    assert 899.0 <= anyio.current_time() - start <= 902.0
    assert len(held.asked) <= 20


async def test_a_wait_that_slept_past_its_end_polls_once_more() -> None:
    held = BusyServer(status="queued")
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(held.wait())
    await anyio.sleep(10.0)
    polls = held.count("GET")
    loop._virtual.now += 10_000.0  # type: ignore[attr-defined]  # the laptop's lid was closed
    await waiting
    assert held.count("GET") > polls


async def test_an_invalid_run_id_is_not_polled() -> None:
    held = BusyServer(run_id="%2e%2e")
    error, seconds = await held.wait()
    assert isinstance(error.__cause__, InvalidRequestError)
    assert (seconds, len(held.asked)) == (0.0, 1)


async def test_a_server_that_alternates_between_two_runs_is_polled_slowly() -> None:
    held = BusyServer(status="completed")
    send = held.send

    async def alternating(request: Request) -> Response:
        held.run_id = "run_8" if held.run_id == "run_7" else "run_7"
        return await send(request)

    held.send = alternating  # type: ignore[method-assign]
    _, seconds = await held.wait()
    assert seconds <= 902.0
    assert len(held.asked) <= 1000
