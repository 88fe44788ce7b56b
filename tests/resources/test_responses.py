"""`client.responses` with the emulator: objects, errors and types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_type

import msgspec
import pytest

from asyncruns import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    BearerAuth,
    Client,
    ConflictError,
    InternalServerError,
    NotFoundError,
    Toolset,
)
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources import PageCall, RawCalls, RawResponse
from asyncruns.resources.response_parameters import ResponseParameters
from asyncruns.resources.responses import RawResponses, Responses
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import (
    Deleted,
    ModelResponse,
    Page,
    ResponseFunctionToolCall,
    ResponseFunctionToolCallOutputItem,
    ResponseItem,
    ResponseMessage,
)

MODEL = "gpt-test"


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        yield client


async def ended(client: Client, response: ModelResponse) -> ModelResponse:
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.1)
        response = await client.responses.retrieve(response.id)
    return response


async def test_a_background_response_goes_on_until_it_has_ended(client: Client) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", background=True, metadata={"a": "b"})
    assert_type(response, ModelResponse)
    assert (response.status, response.background, response.output_text) == ("queued", True, "")
    done = await ended(client, response)
    assert (done.id, done.status, done.output_text) == (response.id, "completed", "You said: Hi")
    assert (done.metadata, done.previous_response_id, done.error) == ({"a": "b"}, None, None)
    assert done.usage
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (100, 20, 120)


async def test_a_tool_loop_by_hand(emulator: Emulator, client: Client) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    calls = (FunctionCall("add", {"a": 1, "b": 2}), FunctionCall("add", {"a": 3, "b": 4}))
    emulator.script(Scenario(rounds=(calls, (FunctionCall("add", {"a": 3, "b": 7}),))), model=MODEL)
    parameters: ResponseParameters = {
        "model": MODEL,
        "background": True,
        "tools": Toolset([add]).definitions(wire="responses"),
    }
    first: ResponseParameters = {**parameters, "input": "Add"}
    response = await ended(client, await client.responses.create(**first))
    while calls_of_round := [item for item in response.output or [] if isinstance(item, ResponseFunctionToolCall)]:
        outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "10"} for call in calls_of_round]
        more: ResponseParameters = {**parameters, "input": outputs, "previous_response_id": response.id}
        response = await ended(client, await client.responses.create(**more))
    assert response.output_text == "add: 10\nadd: 10\nadd: 10"
    assert [len(outputs) for outputs in emulator.submitted(response.id)] == [2, 1]
    assert response.tools == [*Toolset([add]).definitions(wire="responses")]
    items = [item async for item in client.responses.input_items.list(response.id)]
    assert [type(item) for item in items] == [ResponseFunctionToolCallOutputItem]


@pytest.mark.parametrize("late_cancel", [200, 400, 409])
async def test_a_late_cancel_returns_the_response_or_raises(late_cancel: Any) -> None:
    async with (
        Emulator(Scenario(cancelling=0.0), late_cancel=late_cancel) as emulator,
        Client(emulator.base_url) as client,
    ):
        early = await client.responses.create(model=MODEL, input="Hi", background=True)
        assert (await client.responses.cancel(early.id)).status == "cancelled"
        late = await ended(client, await client.responses.create(model=MODEL, input="Hi", background=True))
        if late_cancel == 200:
            assert await client.responses.cancel(late.id) == late
            return
        with pytest.raises((BadRequestError, ConflictError), match="Cannot cancel a completed response") as caught:
            await client.responses.cancel(late.id)
        assert caught.value.status == late_cancel


async def test_a_deleted_response_is_not_found(client: Client) -> None:
    response = await client.responses.create(model=MODEL, input="Hi")
    deleted = await client.responses.delete(response.id)
    assert_type(deleted, Deleted)
    assert (deleted.id, deleted.deleted) == (response.id, True)
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(NotFoundError, match=f"Response with id '{response.id}' not found"):
            await call(response.id)


async def test_refusals_carry_what_the_server_said(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(rounds=((FunctionCall("f"),),), reuse_call_ids=True), model=MODEL)
    first = await client.responses.create(model=MODEL, input="Hi")
    with pytest.raises(BadRequestError, match=r"No tool output found for function call call_0\.") as missing:
        await client.responses.create(model=MODEL, input="Hi", previous_response_id=first.id)
    assert (missing.value.param, missing.value.code) == ("input", None)
    with pytest.raises(BadRequestError, match="Previous response with id 'resp_x' not found") as lost:
        await client.responses.create(model=MODEL, input="Hi", previous_response_id="resp_x")
    assert lost.value.code == "previous_response_not_found"


async def test_a_poll_is_retried_and_a_create_is_not(emulator: Emulator, client: Client) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", background=True)
    emulator.inject(Fault(on="poll", status=503), Fault(on="create_response", status=503))
    emulator.inject(Fault(on="create_response", drop=True, acts=True))
    assert (await client.responses.retrieve(response.id)).id == response.id
    with pytest.raises(InternalServerError):
        await client.responses.create(model=MODEL, input="Hi", background=True)
    with pytest.raises(APIConnectionError):
        await client.responses.create(model=MODEL, input="Hi", background=True)
    assert len(emulator.responses) == 2  # one of them an orphan


async def test_input_items_come_page_by_page(emulator: Emulator, client: Client) -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(5)]
    response = await client.responses.create(model=MODEL, input=iter(messages))
    page = await client.responses.input_items.list(response.id, limit=2)
    assert_type(page, Page[ResponseItem])
    assert (len(page.data), page.has_more) == (2, True)
    listed = client.responses.input_items.list(response.id, limit=2, order="asc")
    assert_type(listed, PageCall[ResponseItem])
    assert [item.text async for item in listed if isinstance(item, ResponseMessage)] == list("01234")


class Listing(Transport):
    """A server with a list of responses, in pages of two, as OGX has it."""

    def __init__(self, count: int) -> None:
        self.ids = [f"resp_{number}" for number in range(count)]
        self.queries: list[dict[str, str]] = []

    async def send(self, request: Request) -> Response:
        query = dict(request.query)
        self.queries.append(query)
        start = self.ids.index(query["after"]) + 1 if "after" in query else 0
        found = self.ids[start : start + 2]
        data = [{"id": each, "object": "response", "status": "completed", "input": []} for each in found]
        body = {"object": "list", "data": data, "has_more": start + 2 < len(self.ids), "last_id": found[-1]}
        return Response(200, {}, msgspec.json.encode(body))

    async def aclose(self) -> None:
        pass


async def test_responses_are_listed_page_by_page_where_the_server_has_a_list() -> None:
    server = Listing(5)
    client = Client(transport=server)
    listed = client.responses.list(model="m", order="asc")
    assert_type(listed, PageCall[ModelResponse])
    page = await listed
    assert_type(page, Page[ModelResponse])
    assert (len(page.data), page.has_more) == (2, True)
    server.queries.clear()
    assert [response.id async for response in listed] == server.ids
    asked = {"model": "m", "order": "asc"}
    assert server.queries == [asked, {**asked, "after": "resp_1"}, {**asked, "after": "resp_3"}]


async def test_a_server_without_a_list_of_responses_is_told_in_words(client: Client) -> None:
    for attempt in (client.responses.list(), client.responses.list(limit=3)):
        with pytest.raises(APIStatusError, match="This server has no list of responses: keep the ids") as caught:
            await attempt
        assert caught.value.status_code in (404, 405)
    with pytest.raises(NotFoundError) as not_found:
        await client.responses.retrieve("resp_1")
    assert "no list" not in str(not_found.value)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_cursor_that_a_list_of_responses_refuses_is_not_taken_for_a_missing_list(status: int) -> None:
    class Refusing(Listing):
        async def send(self, request: Request) -> Response:
            return Response(status, {}, b"{}")

    client = Client(transport=Refusing(0))
    with pytest.raises(APIStatusError) as caught:
        await client.responses.list(after="resp_1")
    assert "no list" not in str(caught.value)
    with pytest.raises(APIStatusError, match="no list of responses"):
        await client.responses.list()


async def test_raw_answers_have_types_of_their_own(client: Client) -> None:
    assert_type(client.responses, Responses)
    assert client.responses is client.responses
    assert_type(client.responses.with_raw_response, RawResponses)
    assert_type(client.responses.with_raw_response.input_items, RawCalls)
    raw = await client.responses.with_raw_response.create(model=MODEL, input="Hi")
    assert_type(raw, RawResponse[Any])
    response = raw.parse()
    assert isinstance(response, ModelResponse)
    items = await client.responses.with_raw_response.input_items.list(response.id)
    assert items.status == 200
    assert [type(item) for item in items.parse().data] == [ResponseMessage]


async def test_what_does_not_exist_is_an_error_for_the_checker_and_at_run_time(client: Client) -> None:
    with pytest.raises(TypeError, match="assistant_id"):
        await client.responses.create(model=MODEL, assistant_id="a")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="time_out"):
        await client.responses.retrieve("resp_1", time_out=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="response_id"):
        await client.responses.cancel()  # type: ignore[call-arg]
