"""Unusable options are refused before anything is sent; and the outcome of a watch that never reached its server."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import refused, scene
from shells import Shell

from asyncruns import Client, GaveUp, InvalidRequestError, Reason
from asyncruns.testing import Emulator

WRONG: dict[str, dict[str, Any]] = {
    "Toolset": {"tools": [print]},
    "timeout": {"timeout": "5"},
    "0 seconds": {"timeout": -1},
    "max_outage": {"max_outage": "1"},
    "Cadence": {"cadence": 1.0},
    "on_requires_action must be a function of the calls; got dict": {"on_requires_action": {"call": "x"}},
    "on_approval must be a function of the calls; got bool": {"on_approval": True},
    "on_status must be a function of the event; got str": {"on_status": "print"},
    "on_terminal must be a function of the outcome; got list": {"on_terminal": [print]},
    "on_require_action": {"on_require_action": print},
}


@pytest.mark.parametrize("says", WRONG)
async def test_a_wrong_option_is_refused_before_a_run_is_created(emulator: Emulator, says: str) -> None:
    async with Client(emulator.base_url) as client:
        with pytest.raises(InvalidRequestError, match=says):
            await client.run(assistant_id="asst_1", message="Hi", **WRONG[says])
    assert emulator.requests == []


async def test_a_wrong_parameter_is_refused_before_a_thread_is_created(emulator: Emulator) -> None:
    parameters: Any = {"temperatur": 1}
    async with Client(emulator.base_url) as client:
        with pytest.raises(TypeError, match="temperatur"):
            await client.run(assistant_id="asst_1", message="Hi", parameters=parameters)
    assert emulator.requests == []


async def test_the_outcome_of_a_watch_that_never_reached_the_server_says_why(shell: Shell) -> None:
    stage = scene(refused())
    async with shell(stage, stage.ref, timeout=3.0) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.TIMEOUT
    assert "refused" in str(outcome.cause)
