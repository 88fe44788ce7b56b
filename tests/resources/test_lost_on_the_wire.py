"""Lost creates over real connections to the emulator."""

from __future__ import annotations

import pytest

from asyncruns import BearerAuth, Client
from asyncruns.testing import Emulator, Fault, Scenario


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault(on="create_run", drop=True, acts=True)], id="dropped"),
        pytest.param([Fault(on="create_run", drop=True)], id="never arrived"),
        pytest.param([Fault(on="create_run", delay_after=40.0)], id="late"),
        pytest.param([Fault(on="create_run", delay_before=33.0)], id="acted on late"),
        pytest.param([Fault(on="create_run", status=502, acts=True), Fault(on="runs", stale=3, times=None)], id="lag"),
        pytest.param([Fault(on="create_run", damage="html", acts=True), Fault(on="runs", status=503)], id="page"),
        pytest.param(
            [Fault(on="create_message", status=500, acts=True), Fault(on="create_thread", drop=True)], id="all"
        ),
    ],
)
async def test_one_run_and_one_message_are_created(emulator: Emulator, faults: list[Fault]) -> None:
    emulator.script(Scenario(working=60.0, answer="Hello."), assistant_id="asst_1")
    for fault in faults:
        emulator.inject(fault)
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        first = await client.run(assistant_id="asst_1", message="Hi")
        assert await first.text() == "Hello."
        thread_id = first.unwrap().thread_id
        second = await client.run(assistant_id="asst_1", message="More", thread_id=thread_id)
        assert await second.text() == "Hello."
        assert [message.role async for message in client.threads.messages.list(thread_id)] == ["assistant", "user"] * 2
    assert len(emulator.runs) == 2
