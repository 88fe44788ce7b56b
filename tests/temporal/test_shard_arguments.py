"""What `start_shards` says of arguments that are unusable, before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns import InvalidRequestError, RunRef, Toolset
from asyncruns.temporal import start_shards

NOT_CONNECTED: Any = None
RUN = RunRef("thread_run", ("thread_1", "run_1"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 2000; got 0"),
        ({"size": 2_001}, "size must be a whole number"),
        ({"size": 1.5}, "size must be a whole number"),
        ({"size": True}, "size must be a whole number"),
        ({"tools": Toolset()}, "tools must be the name of a toolset of the workers, .*; got Toolset"),
        ({"people": "refund"}, "people must be a list of names"),
        ({"people": [1]}, "people must be a list of names"),
        ({"requests_per_second": 0}, "requests_per_second must be more than 0, or None"),
        ({"requests_per_second": "10"}, "requests_per_second must be more than 0"),
        ({"gather": 0}, "gather must be more than 0 seconds"),
        ({"heartbeat_timeout": -1.0}, "heartbeat_timeout must be more than 0 seconds"),
        ({"heartbeat_timeout": None}, "heartbeat_timeout must be more than 0 seconds"),
        ({"search_attributes": {}}, "search_attributes must be True or False"),
        ({"on_exit": "stop"}, 'on_exit must be "leave" or "cancel"'),
        ({"on_lost_submit": "ask"}, 'on_lost_submit must be "give_up" or "resend"'),
        ({"observe_only": 1}, "observe_only must be True or False"),
        ({"max_rounds": 0}, "max_rounds must be 1 or more"),
        ({"observe_only": True, "tools": "weather"}, "leave out tools and people"),
        ({"observe_only": True, "people": ["refund"]}, "leave out tools and people"),
    ],
)
async def test_unusable_arguments(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await start_shards(NOT_CONNECTED, [RUN], id="s", task_queue="q", **given)


async def test_no_runs() -> None:
    with pytest.raises(InvalidRequestError, match="no runs"):
        await start_shards(NOT_CONNECTED, [], id="s", task_queue="q")
