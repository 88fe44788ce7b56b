"""The emulator's error answers, word for word as recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from asyncruns.testing import Emulator, FunctionCall, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]

ASSISTANT = "asst_scripted"
TWO_CALLS = (FunctionCall("one"), FunctionCall("two"))


def error(message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


async def begin(ask: Ask) -> tuple[str, str]:
    """Start a run; return its thread_id and run_id."""
    _, thread = await ask("POST", "/threads", {})
    status, run = await ask("POST", f"/threads/{thread['id']}/runs", {"assistant_id": ASSISTANT})
    assert status == 200
    return thread["id"], run["id"]


async def waiting(emulator: Emulator, ask: Ask) -> tuple[str, str, str]:
    """Start a run that waits for two outputs; return its path and the ids of the calls."""
    emulator.script(Scenario(rounds=(TWO_CALLS,)), assistant_id=ASSISTANT)
    thread_id, run_id = await begin(ask)
    await asyncio.sleep(1)
    calls = emulator.runs[run_id]["required_action"]["submit_tool_outputs"]["tool_calls"]
    return f"/threads/{thread_id}/runs/{run_id}", calls[0]["id"], calls[1]["id"]


def outputs(*ids: str) -> dict[str, Any]:
    return {"tool_outputs": [{"tool_call_id": id, "output": "ok"} for id in ids]}


async def test_unknown_ids_are_not_found(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(), assistant_id=ASSISTANT)
    thread_id, _ = await begin(ask)
    for method, path, thing, id in [
        ("GET", "/assistants/asst_x", "assistant", "asst_x"),
        ("GET", "/threads/thread_x", "thread", "thread_x"),
        ("DELETE", "/threads/asst_x", "thread", "asst_x"),
        ("GET", "/threads/thread_x/runs/run_x", "thread", "thread_x"),
        ("GET", f"/threads/{thread_id}/runs/run_x", "run", "run_x"),
        ("POST", f"/threads/{thread_id}/runs/run_x/cancel", "run", "run_x"),
        ("GET", f"/threads/{thread_id}/messages/msg_x", "message", "msg_x"),
    ]:
        assert await ask(method, path) == (404, error(f"No {thing} found with id '{id}'."))
    _, other = await ask("POST", "/threads", {})
    answer = await ask("POST", f"/threads/{other['id']}/runs", {"assistant_id": "asst_x"})
    assert answer == (404, error("No assistant found with id 'asst_x'."))


async def test_a_run_is_found_on_its_own_thread_only(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(), assistant_id=ASSISTANT)
    _, run_id = await begin(ask)
    _, other = await ask("POST", "/threads", {})
    assert (await ask("GET", f"/threads/{other['id']}/runs/{run_id}"))[0] == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("PUT", "/threads"), ("GET", "/threads/t/runs/r/cancel")])
async def test_an_unknown_url_is_answered_with_404(ask: Ask, method: str, path: str) -> None:
    assert await ask(method, path) == (404, error(f"Invalid URL ({method} /v1{path})"))


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
async def test_a_body_that_is_not_a_json_object_is_refused(emulator: Emulator, body: bytes) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{emulator.base_url}/threads", data=body) as response:
        assert response.status == 400
        assert "JSON" in (await response.json())["error"]["message"]


async def test_a_thread_is_locked_while_a_run_is_active(emulator: Emulator, ask: Ask) -> None:
    path, *calls = await waiting(emulator, ask)
    _, _, thread_id, _, run_id = path.split("/")
    message = {"role": "user", "content": "And?"}
    locked = error(f"Can't add messages to {thread_id} while a run {run_id} is active.")
    assert await ask("POST", f"/threads/{thread_id}/messages", message) == (400, locked)
    second = await ask("POST", f"/threads/{thread_id}/runs", {"assistant_id": ASSISTANT})
    assert second == (400, error(f"Thread {thread_id} already has an active run {run_id}."))

    await ask("POST", f"{path}/submit_tool_outputs", outputs(*calls))
    await asyncio.sleep(1)
    assert (await ask("POST", f"/threads/{thread_id}/messages", message))[0] == 200
    run = {"assistant_id": ASSISTANT, "additional_messages": [message, message]}
    assert (await ask("POST", f"/threads/{thread_id}/runs", run))[0] == 200
    assert len((await ask("GET", f"/threads/{thread_id}/messages"))[1]["data"]) == 4


async def test_outputs_must_be_those_of_the_round(emulator: Emulator, ask: Ask) -> None:
    path, a, b = await waiting(emulator, ask)
    submit = f"{path}/submit_tool_outputs"
    expected = f"Expected tool outputs for call_ids ['{a}', '{b}'], got "
    assert await ask("POST", submit, outputs(a)) == (400, error(f"{expected}['{a}']"))
    assert await ask("POST", submit, outputs(b, a, "call_x")) == (400, error(f"{expected}['{b}', '{a}', 'call_x']"))
    assert await ask("POST", submit, outputs()) == (400, error(f"{expected}[]"))
    assert await ask("POST", submit, outputs(a, a, b)) == (400, error("Duplicate call_ids submitted"))
    assert emulator.submitted(path.rsplit("/", 1)[1]) == []
    assert (await ask("POST", submit, outputs(b, a)))[0] == 200
    assert await ask("POST", submit, outputs(a, b)) == (
        400,
        error('Runs in status "queued" do not accept tool outputs.'),
    )


@pytest.mark.parametrize(
    ("value", "got"), [(None, "null"), (5, "an integer"), (True, "a boolean"), ({}, "an object"), ([], "an array")]
)
async def test_an_output_must_be_a_string(emulator: Emulator, ask: Ask, value: object, got: str) -> None:
    path, a, _ = await waiting(emulator, ask)
    param = "tool_outputs[0].output"
    body = {"tool_outputs": [{"tool_call_id": a, "output": value}]}
    message = f"Invalid type for '{param}': expected a string, but got {got} instead."
    assert await ask("POST", f"{path}/submit_tool_outputs", body) == (
        400,
        error(message, param=param, code="invalid_type"),
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tool_outputs"),
        ({"tool_outputs": [{"output": "x"}]}, "tool_outputs[0].tool_call_id"),
        ({"tool_outputs": [{"tool_call_id": "x"}]}, "tool_outputs[0].output"),
    ],
)
async def test_outputs_must_have_all_their_fields(
    emulator: Emulator, ask: Ask, body: dict[str, Any], param: str
) -> None:
    path, *_ = await waiting(emulator, ask)
    missing = error(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    assert await ask("POST", f"{path}/submit_tool_outputs", body) == (400, missing)


async def test_a_run_that_has_ended_can_be_updated_but_not_cancelled(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(), assistant_id=ASSISTANT)
    thread_id, run_id = await begin(ask)
    path = f"/threads/{thread_id}/runs/{run_id}"
    await asyncio.sleep(0.3)
    update = {"metadata": {"modified": "true"}}
    assert await ask("POST", path, update) == (400, error("Cannot update run with status 'in_progress'."))
    await asyncio.sleep(0.3)
    assert await ask("POST", f"{path}/cancel") == (400, error("Cannot cancel run with status 'completed'."))
    assert (await ask("POST", path, update))[1]["metadata"] == {"modified": "true"}


async def test_a_run_is_cancelled_once(emulator: Emulator, ask: Ask) -> None:
    path, *_ = await waiting(emulator, ask)
    await ask("POST", f"{path}/cancel")
    assert await ask("POST", f"{path}/cancel") == (400, error("Cannot cancel run with status 'cancelling'."))
    await asyncio.sleep(1)
    assert await ask("POST", f"{path}/cancel") == (400, error("Cannot cancel run with status 'cancelled'."))


async def test_metadata_values_must_be_strings(emulator: Emulator, ask: Ask) -> None:
    _, thread = await ask("POST", "/threads", {})
    refused = error(
        "Invalid type for 'metadata.modified': expected a string, but got a boolean instead.",
        param="metadata.modified",
        code="invalid_type",
    )
    assert await ask("POST", f"/threads/{thread['id']}", {"metadata": {"modified": True}}) == (400, refused)
    assert await ask("POST", "/threads", {"metadata": {"modified": True}}) == (400, refused)
    assert (await ask("GET", f"/threads/{thread['id']}"))[1]["metadata"] == {}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/assistants", {}, "Missing required parameter: 'model'."),
        ("/assistants", {"model": 1}, "Invalid type for 'model': expected a string, but got an integer instead."),
        ("/assistants", {"model": "m", "tools": [{}]}, "Missing required parameter: 'tools[0].type'."),
        (
            "/assistants",
            {"model": "m", "tools": [{"type": "function"}]},
            "Missing required parameter: 'tools[0].function.name'.",
        ),
        (
            "/threads",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "Invalid type for 'content[0].text': expected a string, but got an integer instead.",
        ),
        ("/threads/runs", {}, "Missing required parameter: 'assistant_id'."),
        ("/threads", {"stream": True}, "The emulator does not stream this."),
        ("/threads", {"messages": [{"role": "user"}]}, "Missing required parameter: 'content'."),
        (
            "/threads",
            {"messages": [{"role": "system", "content": "x"}]},
            "Invalid value: 'system'. Supported values are: 'user' and 'assistant'.",
        ),
    ],
)
async def test_an_invalid_create_is_refused(ask: Ask, path: str, body: dict[str, Any], message: str) -> None:
    status, answer = await ask("POST", path, body)
    assert (status, answer["error"]["message"]) == (400, message)


async def test_a_wrong_key_is_refused() -> None:
    async with Emulator(api_key="sk-right") as emulator, aiohttp.ClientSession() as session:
        url = f"{emulator.base_url}/threads"
        for authorization, status in [("Bearer sk-abcdefgh1234", 401), ("Bearer sk-right", 200), ("sk-right", 401)]:
            async with session.post(url, headers={"Authorization": authorization}) as response:
                assert response.status == status
        async with session.post(url, headers={"Authorization": "Bearer sk-abcdefgh1234"}) as response:
            message = (
                "Incorrect API key provided: sk-ab***. You can find your API key at "
                "https://platform.openai.com/account/api-keys."
            )
            assert await response.json() == error(message, code="invalid_api_key")
        async with session.post(url) as response:
            assert response.status == 401
            assert "You didn't provide an API key" in (await response.json())["error"]["message"]
        assert {request.headers.get("authorization", "***") for request in emulator.requests} == {"***"}
