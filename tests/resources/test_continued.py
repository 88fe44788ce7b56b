"""The parameters of a response and its follow-ups: checked before anything is sent, and the same in each round."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from asyncruns import Client, Completed, GaveUp, InvalidRequestError, Toolset
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

ROUNDS = ((FunctionCall("f"),), (FunctionCall("f", {"n": 1}),))


async def f(n: int = 0) -> str:
    return str(n)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    emulator.script(Scenario(rounds=ROUNDS), model="m")
    async with Client(emulator.base_url) as client:
        yield client


async def test_each_round_has_the_options_of_the_call_and_none_of_them_in_its_body(
    emulator: Emulator, client: Client
) -> None:
    parameters: Any = {
        "extra_headers": {"x-tenant": "7"},
        "extra_query": {"q": "1"},
        "extra_body": {"top_k": 5},
        "request_timeout": 9.0,
        "tools": iter([{"type": "function", "name": "f", "parameters": {}}]),
    }
    outcome = await client.run(model="m", message="Go", tools=Toolset([f]), parameters=parameters)
    assert isinstance(outcome, Completed)
    assert await outcome.text()
    bodies = [msgspec.json.decode(seen.body) for seen in emulator.requests if seen.method == "POST"]
    assert len(bodies) == 3
    for body in bodies:
        assert body["top_k"] == 5
        assert [tool["name"] for tool in body["tools"]] == ["f"]
        assert not body.keys() & {"extra_headers", "extra_query", "extra_body", "request_timeout"}
    assert all(seen.headers["x-tenant"] == "7" and seen.query == "q=1" for seen in emulator.requests)


async def test_parameters_that_were_not_passed_are_not_sent_in_later_rounds(emulator: Emulator, client: Client) -> None:
    await client.run(model="m", message="Go", tools=Toolset([f]))
    first, *others = [msgspec.json.decode(seen.body) for seen in emulator.requests if seen.method == "POST"]
    for other in others:
        assert other.keys() - {"previous_response_id"} == first.keys()


@pytest.mark.parametrize(
    "given",
    [
        "abc",
        ["a"],
        5,
        {"modell": "m"},
        {"tools": Toolset([f])},
        pytest.param({"metadata": {"a": object()}}, id="object"),
    ],
    ids=repr,
)
async def test_invalid_parameters_are_refused_before_anything_is_sent(
    emulator: Emulator, client: Client, given: Any
) -> None:
    with pytest.raises(InvalidRequestError):
        await client.responses.watch("resp_1", continue_with=given)
    assert emulator.requests == []


@pytest.mark.parametrize("name", ["model", "input"])
async def test_a_parameter_that_is_passed_twice_is_refused(client: Client, name: str) -> None:
    parameters: Any = {name: "x"}
    with pytest.raises(InvalidRequestError, match=name):
        await client.run(model="m", message="Go", parameters=parameters)


async def test_a_follow_up_that_was_created_after_the_timeout_is_in_the_outcome(
    emulator: Emulator, client: Client
) -> None:
    emulator.inject(Fault(on="submit", delay_after=4.0))
    outcome = await client.run(model="m", message="Go", tools=Toolset([f]), timeout=2.0)
    assert isinstance(outcome, GaveUp)
    assert len(outcome.refs) == 2
    assert outcome.ref == outcome.refs[-1]
    assert outcome.ref.ids[0] in emulator.responses
