"""Values of a fleet: outcomes can be pickled, texts are bounded, and errors name the mistake."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from asyncruns import APIResponseValidationError, Client, Failed, Fleet, InvalidRequestError, RunFailedError
from asyncruns.abc import Transport
from asyncruns.http import Request, Response


class Ended(Transport):
    """Returns every run in one status, and an endless list of messages."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.pages = 0

    async def send(self, request: Request) -> Response:
        body: dict[str, Any] = {"id": request.path.rpartition("/")[2], "thread_id": "thread_1", "status": self.status}
        if request.path.endswith("/messages"):
            self.pages += 1
            body = {"data": [{"id": f"msg_{self.pages}", "role": "assistant", "content": "Hi"}], "has_more": True}
        return Response(200, {}, msgspec.json.encode(body))

    async def aclose(self) -> None:
        pass


async def test_the_outcomes_of_a_fleet_can_be_pickled() -> None:
    async with Fleet(Client(transport=Ended("failed"))) as fleet:
        for number in range(3):
            fleet.watch(thread_id="thread_1", run_id=f"run_{number}")
        found = [pickle.loads(pickle.dumps(outcome)) async for outcome in fleet]
    assert {outcome.run.id for outcome in found} == {"run_0", "run_1", "run_2"}
    for outcome in found:
        assert isinstance(outcome, Failed)
        with pytest.raises(RunFailedError) as raised:
            outcome.unwrap()
        assert pickle.loads(pickle.dumps(raised.value)).outcome.ref == outcome.ref


async def test_the_text_of_outcomes_does_not_follow_endless_pages() -> None:
    transport = Ended("completed")
    async with Fleet(Client(transport=transport)) as fleet:
        outcome = await fleet.watch(thread_id="thread_1", run_id="run_1")
    with pytest.raises(APIResponseValidationError, match="more than 100 pages"):
        await outcome.text()
    assert transport.pages == 100


async def test_a_fleet_names_the_mistakes() -> None:
    client = Client(transport=Ended("completed"))
    async with Fleet(client) as fleet:
        for run, message in (
            ("run_1", "thread_id="),
            (client.threads.runs.retrieve("r", thread_id="t"), "not awaited"),
        ):
            with pytest.raises(InvalidRequestError, match=message):
                fleet.watch(run)  # type: ignore[call-overload]
        assert fleet.statistics().active == 0
