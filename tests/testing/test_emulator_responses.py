"""The responses of the emulator, over HTTP: their course, their chains, their refusals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import pytest

from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.testing.emulator import RunRequest

Ask = Callable[..., Awaitable[tuple[int, Any]]]

MODEL = "gpt-test"
TWO_ROUNDS = Scenario(
    rounds=((FunctionCall("add", {"a": 1}), FunctionCall("poll")), (FunctionCall("add", {"a": 2}),)), answer="Done."
)


def error(message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


async def begin(ask: Ask, **fields: Any) -> Any:
    """Create a response in the background."""
    status, body = await ask("POST", "/responses", {"model": MODEL, "input": "Hi", "background": True, **fields})
    assert status == 200, body
    return body


async def ended(ask: Ask, response: Mapping[str, Any]) -> Any:
    """Return the response as it is a second later."""
    await asyncio.sleep(1)
    status, body = await ask("GET", f"/responses/{response['id']}")
    assert status == 200
    return body


def calls(response: Mapping[str, Any]) -> list[str]:
    return [item["call_id"] for item in response["output"] if item["type"] == "function_call"]


def outputs(call_ids: Sequence[str]) -> list[dict[str, str]]:
    return [{"type": "function_call_output", "call_id": id, "output": f"out {id[-1]}"} for id in call_ids]


def text(response: Mapping[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def test_a_response_in_the_background_is_queued_works_and_completes(emulator: Emulator, ask: Ask) -> None:
    response = await begin(ask, metadata={"a": "b"}, instructions="Be brief.")
    assert (response["object"], response["status"], response["background"]) == ("response", "queued", True)
    assert (response["output"], response["usage"], response["completed_at"]) == ([], None, None)
    assert (response["metadata"], response["instructions"], response["store"]) == ({"a": "b"}, "Be brief.", True)
    await asyncio.sleep(0.3)
    _, working = await ask("GET", f"/responses/{response['id']}")
    assert (working["status"], working["output"]) == ("in_progress", [])
    done = await ended(ask, response)
    assert (done["status"], text(done), done["error"]) == ("completed", "You said: Hi", None)
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 0
    assert done["completed_at"] >= done["created_at"]
    assert emulator.responses[response["id"]] == done
    assert (len(emulator.responses), list(emulator.responses)) == (1, [response["id"]])


async def test_a_response_in_the_foreground_has_ended_in_the_answer(emulator: Emulator, ask: Ask) -> None:
    status, body = await ask("POST", "/responses", {"model": MODEL, "input": "Hi"})
    assert (status, body["status"], body["background"], text(body)) == (200, "completed", False, "You said: Hi")
    assert (await ask("GET", f"/responses/{body['id']}"))[1] == body


@pytest.mark.parametrize(
    ("scenario", "found"),
    [
        (Scenario(end="failed", error_code="boom", error_message="No."), {"error": {"code": "boom", "message": "No."}}),
        (Scenario(end="incomplete"), {"incomplete_details": {"reason": "max_output_tokens"}}),
        (
            Scenario(end="incomplete", incomplete_reason="content_filter"),
            {"incomplete_details": {"reason": "content_filter"}},
        ),
    ],
    ids=["failed", "incomplete", "filtered"],
)
async def test_other_ends_have_their_reasons(
    emulator: Emulator, ask: Ask, scenario: Scenario, found: dict[str, Any]
) -> None:
    emulator.script(scenario, model=MODEL)
    done = await ended(ask, await begin(ask))
    assert done["status"] == scenario.end
    assert {name: done[name] for name in found} == found
    assert (done["completed_at"], bool(done["output"])) == (None, scenario.end == "incomplete")


async def test_a_response_that_never_ends_does_not_expire(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(end="never", lifetime=10), model=MODEL)
    response = await begin(ask)
    await asyncio.sleep(86_400)
    assert (await ended(ask, response))["status"] == "in_progress"


async def test_each_answered_round_leads_to_the_next_response(emulator: Emulator, ask: Ask) -> None:
    emulator.script(TWO_ROUNDS, model=MODEL)
    first = await ended(ask, await begin(ask))
    assert first["status"] == "completed"
    assert [(item["name"], item["arguments"]) for item in first["output"]] == [("add", '{"a":1}'), ("poll", "{}")]
    second = await begin(ask, previous_response_id=first["id"], input=outputs(calls(first)))
    assert (second["status"], second["previous_response_id"]) == ("queued", first["id"])
    second = await ended(ask, second)
    assert [item["name"] for item in second["output"]] == ["add"]
    third = await ended(ask, await begin(ask, previous_response_id=second["id"], input=outputs(calls(second))))
    assert (third["status"], text(third)) == ("completed", "Done.")
    assert len({first["id"], second["id"], third["id"]}) == 3
    assert emulator.submitted(third["id"]) == [
        {id: f"out {id[-1]}" for id in calls(first)},
        {id: f"out {id[-1]}" for id in calls(second)},
    ]
    assert emulator.submitted(first["id"]) == []
    assert [seen.operation for seen in emulator.requests if seen.method == "POST"] == [
        "create_response",
        "submit",
        "submit",
    ]
    assert [seen.run_id for seen in emulator.requests if seen.operation == "submit"] == [first["id"], second["id"]]


async def test_the_answer_has_the_outputs_and_a_response_after_it_starts_another_scenario(
    emulator: Emulator, ask: Ask
) -> None:
    emulator.script(Scenario(rounds=((FunctionCall("add"),),), reuse_call_ids=True), model=MODEL)
    first = await ended(ask, await begin(ask))
    assert calls(first) == ["call_0"]
    last = await ended(ask, await begin(ask, previous_response_id=first["id"], input=outputs(["call_0"])))
    assert text(last) == "add: out 0"
    again = await ended(ask, await begin(ask, previous_response_id=last["id"], input="Once more"))
    assert calls(again) == ["call_0"]


async def test_outputs_sent_twice_make_two_responses(emulator: Emulator, ask: Ask) -> None:
    emulator.script(TWO_ROUNDS, model=MODEL)
    first = await ended(ask, await begin(ask))
    answers = outputs(calls(first))
    one = await begin(ask, previous_response_id=first["id"], input=answers)
    other = await begin(ask, previous_response_id=first["id"], input=answers)
    assert one["id"] != other["id"]
    assert emulator.submitted(one["id"]) == emulator.submitted(other["id"])


async def test_the_functions_that_are_offered_are_called_by_default(ask: Ask) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [
        {"type": "function", "name": "weather", "parameters": schema, "strict": False},
        {"type": "function", "name": "other", "parameters": None, "strict": False},
        {"type": "web_search"},
    ]
    done = await ended(ask, await begin(ask, tools=tools))
    assert [(item["name"], item["arguments"]) for item in done["output"]] == [
        ("weather", '{"city":"city"}'),
        ("other", "{}"),
    ]
    named = {"type": "function", "name": "other"}
    done = await ended(ask, await begin(ask, tools=tools, tool_choice=named))
    assert [item["name"] for item in done["output"]] == ["other"]
    done = await ended(ask, await begin(ask, tools=tools, tool_choice="none"))
    assert text(done) == "You said: Hi"


async def test_a_function_may_choose_the_scenario(ask: Ask) -> None:
    requests: list[RunRequest] = []

    def choose(request: RunRequest) -> Scenario:
        requests.append(request)
        return Scenario(answer=request.message.upper())

    async with Emulator(choose) as emulator, aiohttp.ClientSession() as session:
        body = {"model": MODEL, "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}
        async with session.post(f"{emulator.base_url}/responses", json=body) as answer:
            assert text(await answer.json()) == "HI"
    (request,) = requests
    assert (request.model, request.assistant_id, request.thread_id, request.number) == (MODEL, "", "", 0)


async def test_a_cancel_takes_a_moment_and_may_be_repeated(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(end="never", cancelling=0.5), model=MODEL)
    response = await begin(ask)
    path = f"/responses/{response['id']}/cancel"
    for _ in range(2):
        status, body = await ask("POST", path)
        assert (status, body["status"]) == (200, "queued")
    assert (await ended(ask, response))["status"] == "cancelled"
    status, body = await ask("POST", path)
    assert (status, body["status"], body["output"], body["usage"]) == (200, "cancelled", [], None)


async def test_a_cancel_may_take_no_time_come_too_late_or_never_end(emulator: Emulator, ask: Ask) -> None:
    for cancelling, at_once, later in ((0.0, "cancelled", "cancelled"), (math.inf, "queued", "completed")):
        emulator.script(Scenario(cancelling=cancelling), model=MODEL)
        response = await begin(ask)
        _, body = await ask("POST", f"/responses/{response['id']}/cancel")
        assert body["status"] == at_once
        assert (await ended(ask, response))["status"] == later


@pytest.mark.parametrize(
    ("end", "what"),
    [
        ("completed", "a completed response"),
        ("failed", "a failed response"),
        ("incomplete", "a response in terminal state"),
    ],
)
async def test_a_cancel_that_comes_too_late_is_refused(emulator: Emulator, ask: Ask, end: str, what: str) -> None:
    emulator.script(Scenario(end=end), model=MODEL)
    done = await ended(ask, await begin(ask))
    assert await ask("POST", f"/responses/{done['id']}/cancel") == (400, error(f"Cannot cancel {what}."))
    assert emulator.responses[done["id"]] == done


@pytest.mark.parametrize("status", [200, 400, 409])
async def test_how_a_late_cancel_is_answered_can_be_chosen(status: Any) -> None:
    async with Emulator(late_cancel=status) as emulator, aiohttp.ClientSession() as session:
        body = {"model": MODEL, "input": "Hi", "background": True}
        async with session.post(f"{emulator.base_url}/responses", json=body) as answer:
            url = f"{emulator.base_url}/responses/{(await answer.json())['id']}/cancel"
        await asyncio.sleep(1)
        async with session.post(url) as answer:
            assert answer.status == status
            assert bool((await answer.json())["error"]) is (status != 200)


def test_another_status_for_a_late_cancel_is_refused() -> None:
    wrong: Any = 404
    with pytest.raises(ValueError, match="late_cancel is 404; give 200, 400 or 409"):
        Emulator(late_cancel=wrong)


async def test_a_response_in_the_foreground_cannot_be_cancelled(ask: Ask) -> None:
    _, body = await ask("POST", "/responses", {"model": MODEL, "input": "Hi"})
    expected = (400, error("Cannot cancel a synchronous response."))
    assert await ask("POST", f"/responses/{body['id']}/cancel") == expected


async def test_a_deleted_response_is_not_found_by_any_operation(emulator: Emulator, ask: Ask) -> None:
    response = await begin(ask)
    path = f"/responses/{response['id']}"
    assert await ask("DELETE", path) == (200, {"id": response["id"], "object": "response", "deleted": True})
    not_found = (404, error(f"Response with id '{response['id']}' not found."))
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/input_items")):
        assert await ask(method, where) == not_found
    body = {"model": MODEL, "input": "Hi", "previous_response_id": response["id"]}
    assert await ask("POST", "/responses", body) == (
        400,
        error(
            f"Previous response with id '{response['id']}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ),
    )


async def test_an_unstored_response_is_kept_for_ten_minutes_if_it_is_in_the_background(ask: Ask) -> None:
    response = await begin(ask, store=False)
    assert (await ended(ask, response))["status"] == "completed"
    await asyncio.sleep(600)
    assert (await ask("GET", f"/responses/{response['id']}"))[0] == 404
    _, body = await ask("POST", "/responses", {"model": MODEL, "input": "Hi", "store": False})
    assert (await ask("GET", f"/responses/{body['id']}"))[0] == 404


async def test_input_items_are_listed_with_types_and_ids(ask: Ask) -> None:
    items = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]},
        {"type": "item_reference", "id": "msg_1"},
    ]
    response = await begin(ask, input=items)
    path = f"/responses/{response['id']}/input_items"
    _, listed = await ask("GET", path, order="asc")
    assert [item["type"] for item in listed["data"]] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "item_reference",
    ]
    assert listed["data"][0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert listed["data"][1]["content"] == [{"type": "output_text", "text": "Yes?"}]
    assert (listed["data"][4]["id"], listed["has_more"]) == ("msg_1", False)
    _, last = await ask("GET", path, limit="1")
    assert (last["data"], last["has_more"]) == ([listed["data"][4]], True)


async def test_all_calls_need_outputs_and_no_other_outputs_are_accepted(emulator: Emulator, ask: Ask) -> None:
    emulator.script(TWO_ROUNDS, model=MODEL)
    first = await ended(ask, await begin(ask))
    one, other = calls(first)

    async def refused(items: object) -> Any:
        body = {"model": MODEL, "previous_response_id": first["id"], "input": items}
        status, answer = await ask("POST", "/responses", body)
        assert status == 400
        return answer

    assert await refused("Go on") == error(f"No tool output found for function call {one}.", param="input")
    assert await refused(outputs([one])) == error(f"No tool output found for function call {other}.", param="input")
    assert await refused(outputs([one, other, "call_x"])) == error(
        "No tool call found for function call output with call_id call_x.", param="input"
    )
    assert len(emulator.responses) == 1


async def test_a_response_that_has_not_ended_cannot_be_continued(ask: Ask) -> None:
    response = await begin(ask)
    body = {"model": MODEL, "input": "Hi", "previous_response_id": response["id"]}
    status, answer = await ask("POST", "/responses", body)
    assert (status, answer["error"]["param"]) == (400, "previous_response_id")
    assert "queued" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": "Hi"}, "model", "missing_required_parameter"),
        ({"model": MODEL}, "input", "missing_required_parameter"),
        ({"model": MODEL, "input": 5}, "input", "invalid_type"),
        ({"model": MODEL, "input": [5]}, "input[0]", "invalid_type"),
        ({"model": MODEL, "input": [{"content": "Hi"}]}, "input[0].role", "missing_required_parameter"),
        ({"model": MODEL, "input": [{"role": "user", "content": 5}]}, "input[0].content", "invalid_type"),
        ({"model": MODEL, "input": [{"role": "user", "content": [5]}]}, "input[0].content[0]", "invalid_type"),
        (
            {"model": MODEL, "input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
            "invalid_type",
        ),
        (
            {"model": MODEL, "input": [{"type": "function_call_output", "output": ""}]},
            "input[0].call_id",
            "missing_required_parameter",
        ),
        ({"model": MODEL, "input": "Hi", "tools": [5]}, "tools[0]", "invalid_type"),
        ({"model": MODEL, "input": "Hi", "tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        (
            {"model": MODEL, "input": "Hi", "tools": [{"type": "function", "function": {"name": "f"}}]},
            "tools[0].name",
            "missing_required_parameter",
        ),
        ({"model": MODEL, "input": "Hi", "metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ],
)
async def test_invalid_values_are_refused(ask: Ask, fields: dict[str, Any], param: str, code: str) -> None:
    status, body = await ask("POST", "/responses", fields)
    assert (status, body["error"]["param"], body["error"]["code"]) == (400, param, code)


async def test_a_poll_cannot_be_a_stream(ask: Ask) -> None:
    response = await begin(ask)
    status, body = await ask("GET", f"/responses/{response['id']}", stream="true")
    assert (status, body["error"]["param"]) == (400, "stream")


async def test_a_poll_may_be_stale(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(end="never", cancelling=0), model=MODEL)
    response = await begin(ask)
    path = f"/responses/{response['id']}"
    await asyncio.sleep(10)
    await ask("POST", f"{path}/cancel")
    await asyncio.sleep(1)
    emulator.inject(Fault(on="poll", stale=5), Fault(on="poll", stale=60))
    assert (await ask("GET", path))[1]["status"] == "in_progress"
    assert (await ask("GET", path))[0] == 404
    assert (await ask("GET", path))[1]["status"] == "cancelled"


async def test_a_fault_may_be_limited_to_one_response_and_the_submit_of_its_outputs(
    emulator: Emulator, ask: Ask
) -> None:
    emulator.script(TWO_ROUNDS, model=MODEL)
    first, other = await begin(ask), await begin(ask)
    emulator.inject(Fault(on="submit", run_id=first["id"], drop=True, acts=True))
    first, other = await ended(ask, first), await ended(ask, other)
    await begin(ask, previous_response_id=other["id"], input=outputs(calls(other)))
    with pytest.raises(aiohttp.ClientError):
        await begin(ask, previous_response_id=first["id"], input=outputs(calls(first)))
    assert [seen.acted for seen in emulator.requests if seen.operation == "submit"] == [True, True]
    assert len(emulator.responses) == 4


async def test_a_poll_hint_is_sent_while_a_response_has_not_ended() -> None:
    async with Emulator(poll_after_ms=1500) as emulator, aiohttp.ClientSession() as session:
        body = {"model": MODEL, "input": "Hi", "background": True}
        async with session.post(f"{emulator.base_url}/responses", json=body) as answer:
            url = f"{emulator.base_url}/responses/{(await answer.json())['id']}"
        hints = []
        for _ in range(2):
            async with session.get(url) as answer:
                hints.append(answer.headers.get("openai-poll-after-ms"))
            await asyncio.sleep(1)
    assert hints == ["1500", None]


@pytest.mark.parametrize("target", [{}, {"assistant_id": "a", "model": "m"}])
def test_a_script_is_for_an_assistant_or_for_a_model(target: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either assistant_id, for runs, or model"):
        Emulator().script(Scenario(), **target)
