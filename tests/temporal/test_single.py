from __future__ import annotations

from typing import Any

import flows
import pytest
from dev_server import Stage

from asyncruns import Cancelled, Completed, Expired, Failed, GaveUp, Incomplete, NeedsCaller, RunRef, Toolset
from asyncruns.testing import FunctionCall, Scenario

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
QUICK = Scenario(queued=0.02, working=0.05)


async def test_completed(stage: Stage) -> None:
    stage.emulator.script(QUICK, assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        outcome = await stage.run(flows.Ask.run, RunRef.of(run), {})
    assert isinstance(outcome, Completed)
