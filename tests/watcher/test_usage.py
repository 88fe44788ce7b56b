"""The tokens of an outcome, over all rounds and all responses of a watch."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from wires import TWO_ROUNDS, Tools, Wire

from asyncruns import Completed, GaveUp, TokenUsage
from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.wire import ModelResponse, Run, decode


async def counted_by_the_server(wire: Wire, outcome: Any) -> int:
    """Return the tokens of all runs that were watched, as each of them has them now."""
    if wire.name == "threads":
        return int(outcome.run.usage.total_tokens)
    found = [await wire.client.responses.retrieve(ref.ids[0]) for ref in outcome.refs]
    return sum(response.usage.total_tokens or 0 for response in found if response.usage)


async def test_the_usage_is_that_of_all_rounds(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.5)
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert outcome.usage.total_tokens == await counted_by_the_server(wire, outcome) > 0
    assert outcome.usage.input_tokens + outcome.usage.output_tokens == outcome.usage.total_tokens
    assert len(outcome.refs) == (3 if wire.has_new_run_each_round else 1)


async def test_a_watch_without_an_end_has_what_was_seen(wire: Wire) -> None:
    run = await wire.start(working=60.0)
    outcome = await wire.watch(run, timeout=1.0)
    assert isinstance(outcome, GaveUp)
    assert outcome.usage == TokenUsage()


# Reading


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (None, None),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_token_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15, cached_tokens=4, reasoning_tokens=3),
        ),
        ({"total_tokens": 7, "prompt_token_details": None}, TokenUsage(total_tokens=7)),
        ({"total_tokens": None, "completion_tokens_details": {"reasoning_tokens": "many"}}, TokenUsage()),
    ],
)
def test_the_usage_of_a_run_is_read(sent: Any, expected: TokenUsage | None) -> None:
    body = {"id": "run_1", "thread_id": "thread_1", "status": "completed", "usage": sent}
    assert ThreadRunDialect().snapshot(decode(msgspec.json.encode(body), Run)).usage == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (None, None),
        (
            {
                "input_tokens": 10,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 3},
                "total_tokens": 15,
            },
            TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15, cached_tokens=4, reasoning_tokens=3),
        ),
        ({"input_tokens": 1, "output_tokens_details": None}, TokenUsage(input_tokens=1)),
    ],
)
def test_the_usage_of_a_response_is_read(sent: Any, expected: TokenUsage | None) -> None:
    body = {"id": "resp_1", "status": "completed", "output": [], "usage": sent}
    assert ResponsesDialect().snapshot(decode(msgspec.json.encode(body), ModelResponse)).usage == expected


def test_usages_are_added_and_subtracted() -> None:
    one = TokenUsage(input_tokens=3, total_tokens=3, cached_tokens=2)
    other = TokenUsage(output_tokens=2, total_tokens=2, reasoning_tokens=1)
    both = TokenUsage(input_tokens=3, output_tokens=2, total_tokens=5, cached_tokens=2, reasoning_tokens=1)
    assert one + other == both
    assert both - other == one
