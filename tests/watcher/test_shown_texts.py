"""Texts of a server stay on one line in errors, reprs and logs, and contain no terminal commands."""

from __future__ import annotations

import json
import logging

import pytest
from scripted import Scene, ScriptedTransport, error, ok
from shells import Shell, watched

from asyncruns import RunError, RunRef
from asyncruns.http import Response
from asyncruns.resources.start_run import warn_of_unknown_tools
from asyncruns.tools import Toolset
from asyncruns.wire import Run, decode

EVIL = "a\x1b[31m\x9b2J\u202eb\nWARNING all is well"
RAW = ("\x1b", "\x9b", "\u202e", "\n")


def is_clean(text: str) -> bool:
    return not any(character in text for character in RAW)


@pytest.mark.parametrize(
    "poll",
    [
        ok("failed", last_error={"code": EVIL, "message": EVIL}),
        ok("incomplete", incomplete_details={"reason": EVIL}),
        ok("requires_action", (EVIL, EVIL, "{}")),
        ok("requires_action", (EVIL, "", "{}")),
        error(403, EVIL, code=EVIL),
        Response(404, {"x-request-id": EVIL}, EVIL.encode()),
        Response(302, {"location": EVIL}, b""),
        Response(200, {"content-type": EVIL}, EVIL.encode()),
    ],
    ids=["failed", "incomplete", "calls", "calls without a name", "error", "text", "redirect", "page"],
)
async def test_the_message_and_the_repr_of_an_outcome_are_clean(shell: Shell, poll: Response) -> None:
    stage = Scene(ScriptedTransport([poll]))
    stage.ref = RunRef("thread.run", ("thread_1", f"run_{EVIL}"))
    async with shell(stage, stage.ref, timeout=30.0) as watch:
        outcome = await watch.wait()
        assert is_clean(repr(watch))
    with pytest.raises(RunError) as raised:
        outcome.unwrap()
    assert is_clean(str(raised.value))
    assert is_clean(repr(outcome))


async def test_the_texts_of_the_server_are_kept_as_they_came(shell: Shell) -> None:
    stage = Scene(ScriptedTransport([ok("failed", last_error={"code": "c", "message": EVIL})]))
    outcome = await watched(shell, stage, stage.ref)
    assert outcome.error is not None
    assert outcome.error.message == EVIL


def test_a_warning_quotes_the_server_cleaned(caplog: pytest.LogCaptureFixture) -> None:
    run = decode(json.dumps({"id": f"run_{EVIL}", "status": "queued", "tools": []}).encode(), Run)
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_tools(run, Toolset({"f": lambda: None}))
    assert len(caplog.messages) == 1
    assert is_clean(caplog.messages[0])
