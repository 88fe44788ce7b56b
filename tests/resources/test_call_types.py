"""The types of calls. mypy and pyright check this file; it runs as well.

`type: ignore` is an assertion here: mypy reports one that is not needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

import pytest

from asyncruns import (
    AssistantEventHandler,
    BatchGroup,
    BearerAuth,
    Client,
    Fleet,
    GroupOutcome,
    ResponseParameters,
    RunParameters,
    Watch,
)
from asyncruns.resources import CallOptions, PageCall, RawCalls, RawResponse
from asyncruns.resources.run_operations import RawRuns
from asyncruns.resources.run_streaming import AssistantStreamManager
from asyncruns.resources.threads import RawThreads
from asyncruns.testing import Emulator
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Assistant, Batch, Deleted, Message, ModelResponse, Page, Run, RunStep, Thread


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        yield client


async def make(client: Client) -> tuple[str, str, str]:
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    run = await client.threads.runs.create(thread.id, assistant_id=assistant.id)
    return assistant.id, thread.id, run.id


async def test_objects_have_their_types(client: Client) -> None:
    assistant_id, thread_id, run_id = await make(client)
    run = await client.threads.runs.retrieve(run_id, thread_id=thread_id)
    assert_type(run, Run)
    assert_type(run.status, str)
    assert_type(await client.threads.runs.cancel(run_id, thread_id=thread_id), Run)
    assert_type(await client.threads.runs.watch(run_id, thread_id=thread_id), AnyOutcome[Run])
    assert_type(await client.threads.runs.update(run_id, thread_id=thread_id, metadata={"a": "b"}), Run)
    assert_type(await client.threads.retrieve(thread_id), Thread)
    message = await client.threads.messages.create(thread_id, content="Hi")
    assert_type(message, Message)
    assert_type(await client.threads.messages.retrieve(message.id, thread_id=thread_id), Message)
    assert_type(await client.assistants.update(assistant_id, name="A"), Assistant)
    assert_type(await client.assistants.delete(assistant_id), Deleted)
    assert_type(await client.threads.create_and_run(assistant_id=(await client.assistants.create(model="m")).id), Run)


@pytest.mark.parametrize("has_metadata", [True, False])
async def test_parameters_that_are_built_at_run_time_need_one_annotation(client: Client, has_metadata: bool) -> None:
    assistant_id, _, _ = await make(client)
    parameters: RunParameters = {}
    if has_metadata:
        parameters["metadata"] = {"a": "b"}
    parameters |= {"temperature": 0.5, "tools": []}
    parameters.update({"instructions": "Be brief."})
    outcome = await client.run(assistant_id=assistant_id, message="Hi", parameters=parameters)
    assert_type(outcome, AnyOutcome[Run])
    assert isinstance(outcome.run, Run)
    assert outcome.run.temperature == 0.5
    run = await client.threads.runs.create(outcome.ref.ids[0], assistant_id=assistant_id, **parameters)
    assert ("a" in (run.metadata or {})) is has_metadata
    of_response: ResponseParameters = {}
    if has_metadata:
        of_response["metadata"] = {"a": "b"}
    of_response["reasoning"] = {"effort": "low"}
    answered = await client.run(model="m", message="Hi", parameters=of_response)
    assert_type(answered, AnyOutcome[ModelResponse])
    of_response |= {"model": "m", "input": "Hi"}
    response = await client.responses.create(**of_response)
    assert ("a" in (response.metadata or {})) is has_metadata


async def test_wrong_parameters_are_found_by_the_type_checker_and_refused(client: Client) -> None:
    parameters: RunParameters = {}
    parameters["temprature"] = 0.5  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="temprature"):
        await client.run(assistant_id="asst_1", message="Hi", parameters=parameters)


class Handler(AssistantEventHandler):
    """A handler as a caller writes it."""


async def test_streams_return_the_handler_that_was_passed(client: Client) -> None:
    assistant_id, _, _ = await make(client)
    threads = client.beta.threads
    thread_id = (await threads.create()).id
    async with threads.runs.stream(thread_id=thread_id, assistant_id=assistant_id, temperature=1) as stream:
        assert_type(stream, AssistantEventHandler)
        assert_type(await stream.get_final_run(), Run)
        assert_type(await stream.get_final_messages(), list[Message])
        assert_type(await stream.get_final_run_steps(), list[RunStep])
        assert_type(stream.text_deltas, AsyncIterator[str])
    async with threads.create_and_run_stream(assistant_id=assistant_id, event_handler=Handler()) as mine:
        assert_type(mine, Handler)
    answering = threads.runs.submit_tool_outputs_stream(
        run_id="run_1", thread_id=thread_id, tool_outputs=[], event_handler=Handler()
    )
    assert_type(answering, AssistantStreamManager[Handler])
    with pytest.raises(TypeError, match="temperatur"):
        async with threads.runs.stream(thread_id=thread_id, assistant_id="a", temperatur=1):  # type: ignore[call-overload]
            pass


async def test_the_names_of_other_clients_have_their_types(client: Client) -> None:
    assistant_id, thread_id, run_id = await make(client)
    assert_type(client.beta, Client)
    runs = client.beta.threads.runs
    run = await runs.poll(run_id, thread_id=thread_id, poll_interval_ms=100)
    assert_type(run, Run)
    assert_type(await runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id, temperature=1), Run)
    assert_type(await client.runs.create_and_process(thread_id, agent_id=assistant_id, polling_interval=1), Run)
    assert_type(await client.threads.create_and_run_poll(assistant_id=assistant_id), Run)
    assert_type(run.to_dict(), dict[str, Any])
    assert_type(run.to_json(), str)
    with pytest.raises(TypeError, match="agent_id"):
        await runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id, agent_id="a")  # type: ignore[call-arg]


async def test_lists_return_pages_and_yield_items(client: Client) -> None:
    assistant_id, thread_id, run_id = await make(client)
    runs = client.threads.runs.list(thread_id, limit=1, order="asc")
    assert_type(runs, PageCall[Run])
    page = await runs
    assert_type(page, Page[Run])
    assert_type(page.data, list[Run])
    async for run in client.threads.runs.list(thread_id):
        assert_type(run, Run)
    assert_type(client.threads.runs.steps.list(run_id, thread_id=thread_id), PageCall[RunStep])
    assert_type(client.threads.messages.list(thread_id, run_id=run_id), PageCall[Message])
    assert_type(client.threads.list(), PageCall[Thread])
    assert_type(client.assistants.list(), PageCall[Assistant])
    assert [found.id async for found in client.assistants.list()] == [assistant_id]


async def test_raw_calls_have_a_type_of_their_own(client: Client) -> None:
    _, thread_id, run_id = await make(client)
    assert_type(client.assistants.with_raw_response, RawCalls)
    assert_type(client.threads.with_raw_response, RawThreads)
    assert_type(client.threads.with_raw_response.runs, RawRuns)
    assert_type(client.threads.runs.with_raw_response, RawRuns)
    assert_type(client.threads.with_raw_response.runs.steps, RawCalls)
    assert_type(client.threads.with_raw_response.messages, RawCalls)
    raw = await client.threads.runs.with_raw_response.retrieve(run_id, thread_id=thread_id)
    assert_type(raw, RawResponse[Any])
    assert_type(raw.status, int)
    assert_type(raw.content, bytes)
    assert_type(raw.request_id, str)
    assert isinstance(raw.parse(), Run)


async def test_options_are_accepted_besides_parameters(client: Client) -> None:
    assistant_id, thread_id, run_id = await make(client)
    await client.threads.runs.cancel(run_id, thread_id=thread_id)
    await client.watch(thread_id=thread_id, run_id=run_id)
    options: CallOptions = {
        "request_timeout": None,
        "extra_headers": {"x-trace": "7"},
        "extra_query": {},
        "extra_body": None,
    }
    await client.threads.retrieve(thread_id, **options)
    await client.threads.retrieve(thread_id, request_timeout=5, extra_headers=None)
    parameters: RunParameters = {"temperature": 1, "metadata": None, "tools": [], "request_timeout": 5.0}
    run = await client.threads.runs.create(thread_id, assistant_id=assistant_id, **parameters)
    await client.threads.runs.cancel(run.id, thread_id=thread_id)


async def test_what_does_not_exist_is_an_error_for_the_checker_and_at_run_time(client: Client) -> None:
    assistant_id, thread_id, run_id = await make(client)
    with pytest.raises(TypeError, match="temperatur"):
        await client.threads.runs.create(thread_id, assistant_id=assistant_id, temperatur=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="additional_instructions"):  # not here: the messages go into `thread`
        await client.threads.create_and_run(assistant_id=assistant_id, additional_instructions="x")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="time_out"):
        await client.threads.runs.retrieve(run_id, thread_id=thread_id, time_out=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="time_out"):
        await client.threads.list(time_out=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="temperature"):
        await client.assistants.retrieve(assistant_id, temperature=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="thread_id"):
        await client.threads.runs.retrieve(run_id)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="assistant_id"):
        await client.threads.runs.create(thread_id)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="api_version"):
        Client.azure("https://res.openai.azure.com", api_key="k")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="http_client"):
        Client("https://host.example/v1", http_client=None)  # type: ignore[call-arg]


async def test_a_batch_of_requests_may_be_a_group(client: Client) -> None:
    requests, endpoint = [{"model": "m", "input": "Hi"}], "/v1/responses"
    created = await client.batches.create(requests=requests, endpoint=endpoint)
    assert_type(created, Batch | BatchGroup)
    outcome = await client.watch(created)
    assert_type(outcome, AnyOutcome[Batch] | GroupOutcome)
    assert [result.kind async for result in outcome.results()] == ["answered"]
    async with Fleet(client) as fleet:
        if isinstance(created, Batch):
            assert_type(fleet.watch(created), Watch[Batch])
    limited = await client.batches.create(requests=requests, endpoint=endpoint, max_enqueued_tokens=100)
    assert_type(limited, BatchGroup)
    deleting = await client.batches.create(requests=requests, endpoint=endpoint, delete_input_files=True)
    assert_type(deleting, BatchGroup)
    assert_type(await client.watch(deleting), GroupOutcome)
