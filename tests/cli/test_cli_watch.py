"""`asyncruns watch` against an emulator in virtual time: its output and its exit codes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from asyncruns import APIConnectionError, BearerAuth, Client, InvalidRequestError, RunRef
from asyncruns.cli.reports import JsonReport, LineReport
from asyncruns.cli.watch import watch_runs
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.wire import Message, ModelResponse, Run

CALLS = ((FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("bell", "\x1b[31m\x07red")),)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url) as client:
        yield client


async def start(emulator: Emulator, client: Client, scenario: Scenario) -> Run:
    emulator.script(scenario, assistant_id="asst_1")
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1")


@pytest.mark.parametrize(
    ("scenario", "code", "expected"),
    [
        (Scenario(answer="Good day."), 0, "is completed after"),
        (Scenario(end="failed"), 1, "is failed: server_error: Sorry, something went wrong."),
        (Scenario(end="never", lifetime=20), 4, "is expired"),
        (Scenario(end="incomplete"), 5, "is incomplete: max_completion_tokens"),
        (Scenario(rounds=CALLS), 6, "is requires_action; the watch finished after"),
    ],
    ids=lambda value: value.end if isinstance(value, Scenario) else None,
)
async def test_the_exit_code_and_a_sentence_state_how_the_run_ended(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str], scenario: Scenario, code: int, expected: str
) -> None:
    run = await start(emulator, client, scenario)
    assert await watch_runs(client, run.thread_id, run.id, LineReport()) == code
    out, err = capsys.readouterr()
    assert expected in out
    assert f"The run {run.thread_id}/{run.id}" in out
    assert err == ""


async def test_a_cancelled_run_is_3(emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run = await start(emulator, client, Scenario(end="never"))
    await client.threads.runs.cancel(run.id, thread_id=run.thread_id)
    assert await watch_runs(client, run.thread_id, run.id, LineReport()) == 3
    assert "cancelling" in capsys.readouterr().out


async def test_a_watch_that_times_out_is_7(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(end="never"))
    assert await watch_runs(client, run.thread_id, run.id, LineReport(), timeout=5) == 7
    assert "the timeout passed" in capsys.readouterr().out


async def test_a_run_that_does_not_exist_is_7(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert await watch_runs(client, "thread_x", "run_x", LineReport()) == 7
    assert "there is no such run" in capsys.readouterr().out


async def test_invalid_ids_raise(client: Client) -> None:
    with pytest.raises(InvalidRequestError):
        await watch_runs(client, "..", "run_x", LineReport())


async def test_the_lines_show_the_time_each_status_and_the_answer(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(queued=3, working=3, answer="Good\nday."))
    await watch_runs(client, run.thread_id, run.id, LineReport())
    lines = capsys.readouterr().out.splitlines()
    assert [line[10:] for line in lines[:3]] == ["queued", "in_progress", "completed"]
    assert all(line[2] == line[5] == ":" for line in lines[:3])
    assert lines[-2:] == ["Good", "day."]


async def test_the_calls_are_listed_and_cannot_command_the_terminal(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(rounds=CALLS))
    await watch_runs(client, run.thread_id, run.id, LineReport())
    out = capsys.readouterr().out
    assert "2 calls to answer:" in out
    assert 'get_weather({"city":"Paris"}) call_' in out
    assert "\x1b" not in out
    assert "\x07" not in out


async def test_json_lines_are_for_programs(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(rounds=CALLS))
    assert await watch_runs(client, run.thread_id, run.id, JsonReport()) == 6
    events = json_lines(capsys)
    assert [event["event"] for event in events] == ["status", "status", "status", "calls", "end"]
    assert events[0]["phase"] == "pending"
    assert events[0]["previous"] is None
    assert [call["name"] for call in events[3]["calls"]] == ["get_weather", "bell"]
    end = events[-1]
    assert (end["outcome"], end["status"], end["reason"]) == ("needs_caller", "requires_action", "unanswered")
    assert end["calls"] == events[3]["calls"]
    assert end["text"] is None


async def test_the_last_json_line_has_the_answer_or_the_fault(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(answer="Good day."))
    await watch_runs(client, run.thread_id, run.id, JsonReport())
    completed = json_lines(capsys)[-1]
    assert (completed["outcome"], completed["text"], completed["error"]) == ("completed", "Good day.", None)
    async with Client(emulator.base_url) as client:
        run = await start(emulator, client, Scenario(end="failed"))
        await watch_runs(client, run.thread_id, run.id, JsonReport())
    failed = json_lines(capsys)[-1]
    assert failed["error"] == {"code": "server_error", "message": "Sorry, something went wrong."}
    assert failed["polls"] >= 1


async def test_a_lost_connection_is_distinguished_from_a_failed_run(capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator() as emulator:
        gone = emulator.base_url  # after the block, no server listens on its port
    client = Client(gone)
    assert await watch_runs(client, "thread_x", "run_x", LineReport(), max_outage=20) == 7
    out, err = capsys.readouterr()
    assert "could not be reached" in out
    assert err.startswith("asyncruns: connection degraded: No answer to GET /threads/thread_x/runs/run_x")
    assert "asyncruns: connection lost" in err
    client = Client(gone)
    assert await watch_runs(client, "thread_x", "run_x", JsonReport(), max_outage=1) == 7
    first = json_lines(capsys)[0]
    assert (first["event"], first["state"]) == ("connection", "degraded")


async def begin(emulator: Emulator, client: Client, scenario: Scenario) -> ModelResponse:
    emulator.script(scenario, model="m")
    tools = [{"type": "function", "name": name} for name in ("get_weather", "bell")]
    return await client.responses.create(model="m", input="Hi", background=True, tools=tools)


@pytest.mark.parametrize(
    ("scenario", "code", "expected"),
    [
        (Scenario(answer="Good day."), 0, "is completed after"),
        (Scenario(end="failed"), 1, "is failed: server_error: "),
        (Scenario(end="incomplete"), 5, "is incomplete: max_"),
        (Scenario(rounds=CALLS), 6, "is completed; the watch finished after"),
    ],
    ids=lambda value: value.end if isinstance(value, Scenario) else None,
)
async def test_a_single_id_is_that_of_a_response(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str], scenario: Scenario, code: int, expected: str
) -> None:
    response = await begin(emulator, client, scenario)
    assert await watch_runs(client, response.id, None, LineReport()) == code
    out, err = capsys.readouterr()
    assert f"The run {response.id} {expected}" in out
    assert err == ""
    if code == 0:
        assert out.splitlines()[-1] == "Good day."


async def test_a_cancelled_response_is_3_and_one_that_does_not_end_is_7(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    going_on = await begin(emulator, client, Scenario(end="never"))
    over = await begin(emulator, client, Scenario(end="never"))
    await client.responses.cancel(over.id)
    assert await watch_runs(client, over.id, None, LineReport()) == 3
    assert await watch_runs(Client(emulator.base_url), going_on.id, None, LineReport(), timeout=5) == 7
    async with Client(emulator.base_url) as client:
        assert (await client.responses.retrieve(going_on.id)).status == "in_progress"
    assert "the timeout passed" in capsys.readouterr().out


async def test_a_response_that_does_not_exist_is_7(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert await watch_runs(client, "resp_x", None, JsonReport()) == 7
    end = json_lines(capsys)[-1]
    assert (end["outcome"], end["reason"]) == ("gave_up", "not_found")


async def test_json_lines_of_a_response_name_it_and_have_its_answer(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await begin(emulator, client, Scenario(answer="Good day."))
    await watch_runs(client, response.id, None, JsonReport())
    *statuses, end = json_lines(capsys)
    assert [(event["event"], event["run"]) for event in statuses] == [("status", response.id)] * len(statuses)
    assert [event["status"] for event in statuses] == ["queued", "in_progress", "completed"]
    assert (end["outcome"], end["text"], end["trouble"]) == ("completed", "Good day.", None)


async def test_the_calls_of_a_response_are_listed_and_not_answered(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await begin(emulator, client, Scenario(rounds=CALLS))
    assert await watch_runs(client, response.id, None, JsonReport()) == 6
    *_, calls, end = json_lines(capsys)
    assert [call["name"] for call in calls["calls"]] == ["get_weather", "bell"]
    assert (end["outcome"], end["status"], end["reason"]) == ("needs_caller", "completed", "unanswered")
    assert end["calls"] == calls["calls"]


async def test_an_id_that_is_not_that_of_a_response_raises(client: Client) -> None:
    with pytest.raises(InvalidRequestError):
        await watch_runs(client, "..", None, LineReport())


class Mute(Client):
    """A client whose requests for the answer fail."""

    async def answer(self, ref: RunRef) -> list[Message]:
        raise APIConnectionError("No answer came", sent=False)


@pytest.mark.parametrize("report", [LineReport(), JsonReport()], ids=["lines", "json"])
async def test_a_run_is_completed_although_its_answer_cannot_be_fetched(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], report: LineReport | JsonReport
) -> None:
    client = Mute(emulator.base_url)
    run = await start(emulator, client, Scenario())
    assert await watch_runs(client, run.thread_id, run.id, report) == 0
    out, err = capsys.readouterr()
    assert "No answer came" in out + err


async def test_a_refused_key_is_7_and_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator(api_key="the-right-one") as emulator:
        client = Client(emulator.base_url, auth=BearerAuth("the-wrong-one"))
        assert await watch_runs(client, "thread_x", "run_x", LineReport(), timeout=math.inf) == 7
    out, err = capsys.readouterr()
    assert "the credential was refused" in out
    assert "the-wrong-one" not in out + err


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
