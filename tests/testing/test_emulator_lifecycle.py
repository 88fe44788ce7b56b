"""The lifecycle of a run in the emulator, over HTTP, in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asyncruns.testing import Emulator, FunctionCall, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]

ASSISTANT = "asst_scripted"
TWO_CALLS = (FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("get_time"))


async def begin(ask: Ask, text: str = "Hello?", **body: object) -> tuple[str, dict[str, Any]]:
    """Start a run on a new thread; return the run's path and its first body."""
    thread = {"messages": [{"role": "user", "content": text}]}
    status, run = await ask("POST", "/threads/runs", {"assistant_id": ASSISTANT, "thread": thread, **body})
    assert status == 200, run
    return f"/threads/{run['thread_id']}/runs/{run['id']}", run


async def poll(ask: Ask, path: str, *, after: float = 0) -> dict[str, Any]:
    await asyncio.sleep(after)
    status, run = await ask("GET", path)
    assert status == 200
    return dict(run)


def calls_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    return list(run["required_action"]["submit_tool_outputs"]["tool_calls"])


def outputs_for(calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"tool_outputs": [{"tool_call_id": call["id"], "output": f"{i}!"} for i, call in enumerate(calls)]}


async def test_a_run_with_two_parallel_calls_goes_through_all_statuses(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(queued=1, working=2, rounds=(TWO_CALLS,)), assistant_id=ASSISTANT)
    path, run = await begin(ask)
    created = run["created_at"]
    assert (run["status"], run["started_at"], run["expires_at"]) == ("queued", None, created + 600)
    assert run["usage"] is None

    run = await poll(ask, path, after=1)
    assert (run["status"], run["started_at"]) == ("in_progress", created + 1)
    run = await poll(ask, path, after=2)
    assert (run["status"], run["started_at"], run["expires_at"]) == ("requires_action", created + 1, created + 600)
    assert run["required_action"]["type"] == "submit_tool_outputs"
    calls = calls_of(run)
    assert [call["function"] for call in calls] == [
        {"name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"name": "get_time", "arguments": "{}"},
    ]
    run = await poll(ask, path, after=10)
    assert (run["status"], calls_of(run)) == ("requires_action", calls)

    status, run = await ask("POST", f"{path}/submit_tool_outputs", outputs_for(calls))
    assert (status, run["status"], run["started_at"]) == (200, "queued", created + 1)
    assert run["required_action"] is None
    run = await poll(ask, path, after=1)
    assert (run["status"], run["started_at"]) == ("in_progress", created + 14)
    run = await poll(ask, path, after=2)
    assert (run["status"], run["completed_at"], run["expires_at"]) == ("completed", created + 16, None)
    assert run["usage"]["total_tokens"] == run["usage"]["prompt_tokens"] + run["usage"]["completion_tokens"]
    assert emulator.submitted(run["id"]) == [{calls[0]["id"]: "0!", calls[1]["id"]: "1!"}]
    assert emulator.runs[run["id"]] == run
    assert list(emulator.runs) == [run["id"]]
    assert len(emulator.runs) == 1


async def test_a_run_has_the_recorded_fields(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(), assistant_id=ASSISTANT)
    _, run = await begin(ask)
    assert set(run) == {
        *("id", "object", "created_at", "assistant_id", "thread_id", "status", "started_at", "expires_at"),
        *("cancelled_at", "failed_at", "completed_at", "required_action", "last_error", "model", "instructions"),
        *("tools", "tool_resources", "metadata", "temperature", "top_p", "max_completion_tokens"),
        *("max_prompt_tokens", "truncation_strategy", "incomplete_details", "usage", "response_format"),
        *("tool_choice", "parallel_tool_calls"),
    }


async def test_a_run_takes_its_settings_from_the_request_or_the_assistant(ask: Ask) -> None:
    _, assistant = await ask("POST", "/assistants", {"model": "m-1", "instructions": "Be brief.", "temperature": 0.5})
    _, thread = await ask("POST", "/threads", {})
    _, run = await ask(
        "POST",
        f"/threads/{thread['id']}/runs",
        {
            "assistant_id": assistant["id"],
            "additional_instructions": "Be kind.",
            "model": "m-2",
            "metadata": {"a": "b"},
        },
    )
    assert (run["model"], run["instructions"], run["temperature"]) == ("m-2", "Be brief. Be kind.", 0.5)
    assert run["metadata"] == {"a": "b"}


async def test_rounds_follow_each_other(emulator: Emulator, ask: Ask) -> None:
    rounds = (TWO_CALLS, (FunctionCall("again", "not json"),))
    emulator.script(Scenario(rounds=rounds, answer="Sunny."), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    seen: list[str] = []
    for _ in rounds:
        calls = calls_of(await poll(ask, path, after=1))
        seen += [call["id"] for call in calls]
        await ask("POST", f"{path}/submit_tool_outputs", outputs_for(calls))
    run = await poll(ask, path, after=1)
    assert run["status"] == "completed"
    assert len(set(seen)) == 3
    assert [set(outputs) for outputs in emulator.submitted(run["id"])] == [set(seen[:2]), set(seen[2:])]


async def test_the_answer_is_found_by_the_runs_id(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(answer="Sunny."), assistant_id=ASSISTANT)
    _, run = await begin(ask, "Weather?")
    messages = f"/threads/{run['thread_id']}/messages"
    assert (await ask("GET", messages, run_id=run["id"]))[1]["data"] == []
    await asyncio.sleep(1)
    _, listed = await ask("GET", messages, run_id=run["id"])
    (message,) = listed["data"]
    assert message["content"] == [{"type": "text", "text": {"value": "Sunny.", "annotations": []}}]
    assert (message["role"], message["assistant_id"], message["run_id"]) == ("assistant", ASSISTANT, run["id"])
    assert "status" not in message
    assert (await ask("GET", f"{messages}/{message['id']}"))[1] == message
    assert len((await ask("GET", messages))[1]["data"]) == 2


@pytest.mark.parametrize(
    ("rounds", "answer"), [((), "You said: Weather?"), ((TWO_CALLS,), "get_weather: 0!\nget_time: 1!")]
)
async def test_an_answer_is_made_up_when_none_is_scripted(
    emulator: Emulator, ask: Ask, rounds: tuple[tuple[FunctionCall, ...], ...], answer: str
) -> None:
    emulator.script(Scenario(rounds=rounds), assistant_id=ASSISTANT)
    path, run = await begin(ask, "Weather?")
    if rounds:
        await ask("POST", f"{path}/submit_tool_outputs", outputs_for(calls_of(await poll(ask, path, after=1))))
    await asyncio.sleep(1)
    _, listed = await ask("GET", f"/threads/{run['thread_id']}/messages", limit="1")
    assert listed["data"][0]["content"][0]["text"]["value"] == answer


async def test_steps_show_outputs_once_they_are_submitted(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(rounds=(TWO_CALLS,)), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    assert (await ask("GET", f"{path}/steps"))[1]["data"] == []
    calls = calls_of(await poll(ask, path, after=1))
    _, listed = await ask("GET", f"{path}/steps")
    (step,) = listed["data"]
    assert (step["type"], step["status"], step["completed_at"]) == ("tool_calls", "in_progress", None)
    assert [call["function"]["output"] for call in step["step_details"]["tool_calls"]] == [None, None]

    await ask("POST", f"{path}/submit_tool_outputs", outputs_for(calls))
    await asyncio.sleep(1)
    _, listed = await ask("GET", f"{path}/steps", order="asc")
    tools, message = listed["data"]
    assert (tools["id"], tools["status"]) == (step["id"], "completed")
    assert [call["function"]["output"] for call in tools["step_details"]["tool_calls"]] == ["0!", "1!"]
    assert message["type"] == "message_creation"
    assert not {"expired_at", "metadata"} & set(message)
    assert (await ask("GET", f"{path}/steps/{message['id']}"))[1] == message
    status, error = await ask("GET", f"{path}/steps/step_123")
    assert (status, error["error"]["message"]) == (404, "No run step found with id 'step_123'.")


async def test_a_run_fails(emulator: Emulator, ask: Ask) -> None:
    scenario = Scenario(end="failed", error_code="rate_limit_exceeded", error_message="Try again in 6s.")
    emulator.script(scenario, assistant_id=ASSISTANT)
    path, run = await begin(ask)
    run = await poll(ask, path, after=1)
    assert (run["status"], run["failed_at"], run["completed_at"]) == ("failed", run["created_at"], None)
    assert run["last_error"] == {"code": "rate_limit_exceeded", "message": "Try again in 6s."}
    assert len((await ask("GET", f"/threads/{run['thread_id']}/messages"))[1]["data"]) == 1


async def test_a_run_ends_incomplete(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(end="incomplete"), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    run = await poll(ask, path, after=1)
    assert (run["status"], run["incomplete_details"]) == ("incomplete", {"reason": "max_completion_tokens"})
    assert run["completed_at"] is not None


@pytest.mark.parametrize("scenario", [Scenario(rounds=(TWO_CALLS,)), Scenario(end="never")], ids=["waits", "works"])
async def test_a_run_expires_ten_minutes_after_its_creation(emulator: Emulator, ask: Ask, scenario: Scenario) -> None:
    emulator.script(scenario, assistant_id=ASSISTANT)
    path, first = await begin(ask)
    assert (await poll(ask, path, after=599))["status"] in ("requires_action", "in_progress")
    run = await poll(ask, path, after=1)
    assert (run["status"], run["expires_at"], run["required_action"]) == ("expired", None, None)
    status, error = await ask("POST", f"{path}/submit_tool_outputs", {"tool_outputs": []})
    assert (status, error["error"]["message"]) == (400, 'Runs in status "expired" do not accept tool outputs.')
    assert (await ask("POST", f"/threads/{first['thread_id']}/messages", {"role": "user", "content": "x"}))[0] == 200


async def test_a_cancel_takes_a_moment(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(rounds=(TWO_CALLS,), cancelling=2), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    await asyncio.sleep(1)
    status, run = await ask("POST", f"{path}/cancel")
    assert (status, run["status"], run["cancelled_at"], run["required_action"]) == (200, "cancelling", None, None)
    assert (await poll(ask, path, after=1.5))["status"] == "cancelling"
    run = await poll(ask, path, after=0.5)
    assert (run["status"], run["cancelled_at"], run["expires_at"]) == ("cancelled", run["created_at"] + 3, None)
    assert run["usage"]["total_tokens"] == 0
    (step,) = (await ask("GET", f"{path}/steps"))[1]["data"]
    assert (step["status"], step["cancelled_at"]) == ("cancelled", run["cancelled_at"])


async def test_a_cancel_before_the_round_stops_the_round(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(rounds=(TWO_CALLS,), cancelling=5), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    await ask("POST", f"{path}/cancel")
    assert (await poll(ask, path, after=1))["status"] == "cancelling"
    run = await poll(ask, path, after=5)
    assert (run["status"], run["started_at"]) == ("cancelled", None)
    assert (await ask("GET", f"{path}/steps"))[1]["data"] == []


async def test_a_run_may_end_by_itself_before_its_cancel_takes_effect(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(cancelling=10), assistant_id=ASSISTANT)
    path, run = await begin(ask)
    assert (await ask("POST", f"{path}/cancel"))[1]["status"] == "cancelling"
    run = await poll(ask, path, after=0.6)
    assert (run["status"], run["cancelled_at"]) == ("completed", None)
    assert len((await ask("GET", f"/threads/{run['thread_id']}/messages"))[1]["data"]) == 2


async def test_a_cancel_may_take_until_the_run_expires(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(end="never", cancelling=math.inf), assistant_id=ASSISTANT)
    path, _ = await begin(ask)
    await ask("POST", f"{path}/cancel")
    assert (await poll(ask, path, after=599))["status"] == "cancelling"
    assert (await poll(ask, path, after=1))["status"] == "expired"


async def test_a_poll_exactly_at_a_change_sees_the_new_status(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(queued=0.1, working=0.7), assistant_id=ASSISTANT)
    for _ in range(20):
        path, _ = await begin(ask)
        assert (await poll(ask, path, after=0.1))["status"] == "in_progress"
        assert (await poll(ask, path, after=0.7))["status"] == "completed"


async def test_a_scenario_may_be_chosen_by_the_request(emulator: Emulator, ask: Ask) -> None:
    emulator.script(
        lambda request: Scenario(answer=f"{request.number} {request.message} {request.metadata['who']}"),
        assistant_id=ASSISTANT,
    )
    _, run = await begin(ask, "Well?", metadata={"who": "me"})
    await asyncio.sleep(1)
    _, listed = await ask("GET", f"/threads/{run['thread_id']}/messages", limit="1")
    assert listed["data"][0]["content"][0]["text"]["value"] == "0 Well? me"


@pytest.mark.parametrize("wrong", [{"end": "done"}, {"working": -1.0}, {"lifetime": math.nan}, {"rounds": ((),)}])
def test_an_invalid_scenario_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give|leave"):
        Scenario(**wrong)
