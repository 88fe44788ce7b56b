"""Every operation with its required and with all its parameters, against a server that validates requests.

Each request must conform to the description. Each answer is made up from the description, and must survive decoding and
encoding.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from described import DESCRIPTION, Operation, keyword_of, method_of, operations
from steady_server import ERROR_COUNT, LIST_LENGTH, MATCHED_PATH, SEED, complaints, serving
from wire_tree import kind_of, lost_between, type_of

from asyncruns import APIStatusError, Client
from asyncruns.resources import FILE_SEARCH_CONTENT, RawResponse
from asyncruns.wire import decode, encode

SEEDS: Final = range(1, 201)
LENGTHS: Final = 4  # of lists: 0 to 3
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Final = {"name": "get_weather", "description": "Tell the weather.", "parameters": SCHEMA, "strict": False}
RANKING: Final = {"ranker": "auto", "score_threshold": 0.5}
TOOLS: Final = (
    {"type": "code_interpreter"},
    {"type": "file_search", "file_search": {"max_num_results": 5, "ranking_options": RANKING}},
    {"type": "function", "function": FUNCTION},
)
METADATA: Final = {"user": "42", "": ""}
RESOURCES: Final = {
    "code_interpreter": {"file_ids": ["file_1", "file_2"]},
    "file_search": {"vector_store_ids": ["vs_1"]},
}
CONTENT: Final = (
    {"type": "text", "text": "What is in these?"},
    {"type": "image_file", "image_file": {"file_id": "file_3", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png", "detail": "auto"}},
)
ATTACHMENTS: Final = ({"file_id": "file_4", "tools": [{"type": "file_search"}, {"type": "code_interpreter"}]},)
MESSAGES: Final = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": CONTENT, "attachments": ATTACHMENTS, "metadata": METADATA},
)

# A value for each parameter of any operation.
VALUES: Final[Mapping[str, Any]] = {
    "assistant_id": "asst_1",
    "thread_id": "thread_1",
    "message_id": "msg_1",
    "run_id": "run_1",
    "step_id": "step_1",
    "limit": 100,
    "order": "desc",
    "after": "id_1",
    "before": "id_9",
    "include": [FILE_SEARCH_CONTENT],
    "model": "gpt-4o",
    "name": "Weather",
    "description": "Tells the weather.",
    "instructions": "Be brief.",
    "additional_instructions": "Be briefer.",
    "reasoning_effort": "low",
    "tools": TOOLS,
    "tool_resources": RESOURCES,
    "metadata": METADATA,
    "temperature": 0.5,
    "top_p": 1,
    "max_prompt_tokens": 256,
    "max_completion_tokens": 4096,
    "truncation_strategy": {"type": "last_messages", "last_messages": 10},
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
    "messages": MESSAGES,
    "additional_messages": MESSAGES,
    "thread": {"messages": MESSAGES, "tool_resources": RESOURCES, "metadata": METADATA},
    "role": "user",
    "content": CONTENT,
    "attachments": ATTACHMENTS,
    "tool_outputs": [{"tool_call_id": "call_1", "output": "sunny"}, {"tool_call_id": "call_2", "output": ""}],
}
STREAM: Final = "stream"  # left out, since `with_raw_response` refuses streams

by_name: Final = pytest.mark.parametrize("operation", operations(), ids=str)
pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with serving(DESCRIPTION) as base_url:
        yield base_url


def least_of(operation: Operation) -> dict[str, Any]:
    """Return arguments for the required parameters, except those that have a default in our methods."""
    return {keyword_of(name): VALUES[keyword_of(name)] for name in operation.required if name != "role"}


def all_of(operation: Operation) -> dict[str, Any]:
    return {name: VALUES[name] for name in operation.keywords if name != STREAM}


def check(operation: Operation, raw: RawResponse[Any]) -> None:
    """Check that the server found no errors in the request, and that decoding its answer loses nothing."""
    assert complaints(dict(raw.headers)) == [f"{ERROR_COUNT}: 0"]
    assert (raw.status, raw.headers[MATCHED_PATH]) == (200, operation.path)
    came = json.loads(raw.content)
    type_ = type_of(kind_of(came))
    assert raw.parse() == decode(raw.content, type_)
    assert lost_between(came, json.loads(encode(raw.parse()))) == Counter()


def test_the_values_are_those_of_all_parameters_and_of_nothing_else() -> None:
    assert set(VALUES) | {STREAM} == set().union(*(each.keywords for each in operations()))
    assert len(operations()) == 23
    assert sum(len(all_of(each)) for each in operations()) == 117 - 3
    assert all(least_of(each).keys() <= all_of(each).keys() for each in operations())


@by_name
async def test_the_least_of_a_call_is_as_described(operation: Operation, base_url: str) -> None:
    async with Client(base_url, max_retries=0) as client:
        check(operation, await method_of(client, operation, is_raw=True)(**least_of(operation)))


@by_name
async def test_a_call_with_everything_is_as_described(operation: Operation, base_url: str) -> None:
    async with Client(base_url, max_retries=0) as client:
        check(operation, await method_of(client, operation, is_raw=True)(**all_of(operation)))


@pytest.mark.parametrize("operation", [each for each in operations() if "metadata" in each.body], ids=str)
@pytest.mark.parametrize("metadata", [None, {}], ids=str)
async def test_metadata_may_be_null_and_empty(
    operation: Operation, metadata: dict[str, str] | None, base_url: str
) -> None:
    async with Client(base_url, max_retries=0) as client:
        check(operation, await method_of(client, operation, is_raw=True)(**least_of(operation), metadata=metadata))


@by_name
async def test_two_hundred_answers_decode(operation: Operation, base_url: str) -> None:
    async def answer(client: Client, seed: int) -> RawResponse[Any]:
        headers = {SEED: str(seed), LIST_LENGTH: str(seed % LENGTHS)}
        method = method_of(client, operation, is_raw=True)
        raw: RawResponse[Any] = await method(**least_of(operation), extra_headers=headers)
        return raw

    async with Client(base_url, max_retries=0) as client:
        answers = await asyncio.gather(*(answer(client, seed) for seed in SEEDS))
    for raw in answers:
        check(operation, raw)
    assert len({raw.content for raw in answers}) > len(SEEDS) // 2  # the answers differ from each other


@pytest.mark.parametrize(
    "options",
    [
        {"extra_query": {"colour": "red"}},
        {"extra_query": {"include": FILE_SEARCH_CONTENT}},  # the name is include[]
        {"extra_body": {"colour": "red"}},
        {"extra_body": {"temperature": 3}},
    ],
    ids=str,
)
async def test_the_server_sees_what_is_not_as_described(options: dict[str, Any], base_url: str) -> None:
    async with Client(base_url, max_retries=0) as client:
        create = client.threads.runs.with_raw_response.create
        try:
            headers = (await create("thread_1", assistant_id="asst_1", **options)).headers
        except APIStatusError as error:
            headers = error.headers
    assert int(headers[ERROR_COUNT]) == 1
