"""The results of a file search in the steps of a run: they have their texts only if `include` requests them."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
from aiohttp import web
from recordings import Exchange, exchanges

from asyncruns import Client
from asyncruns.resources import FILE_SEARCH_CONTENT
from asyncruns.wire import FileSearchToolCall, Page, RunStep, ToolCallsStepDetails, decode

STEPS: Final = [each for each in exchanges() if "/steps/" in each.path and each.query]
LISTS: Final = [each for each in exchanges() if each.path.endswith("/steps") and '"results"' in json.dumps(each.body)]


def results_in(step: RunStep) -> list[dict[str, Any]]:
    assert isinstance(step.step_details, ToolCallsStepDetails)
    (call,) = step.step_details.tool_calls or []
    assert isinstance(call, FileSearchToolCall)
    assert call.file_search
    assert call.file_search["ranking_options"] == {"ranker": "default_2024_08_21", "score_threshold": 0.0}
    found: list[dict[str, Any]] = call.file_search["results"]
    return found


def test_all_searches_are_here() -> None:
    assert (len(STEPS), len(LISTS)) == (2, 1)
    assert all(each.query == {"include[]": FILE_SEARCH_CONTENT} for each in STEPS)


@pytest.mark.parametrize("exchange", STEPS, ids=str)
async def test_a_step_is_asked_for_as_recorded_and_brings_the_texts(exchange: Exchange) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.raw_path)
        return web.json_response(exchange.body)

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        _, _, _, thread_id, _, run_id, _, step_id = exchange.path.split("/")
        host, port = runner.addresses[0][:2]
        async with Client(f"http://{host}:{port}/v1") as client:
            step = await client.threads.runs.steps.retrieve(
                step_id, thread_id=thread_id, run_id=run_id, include=[FILE_SEARCH_CONTENT]
            )
    finally:
        await runner.cleanup()

    (target,) = asked
    path, _, query = target.partition("?")
    assert path == exchange.path
    assert query == "include%5B%5D=step_details.tool_calls%5B*%5D.file_search.results%5B*%5D.content"
    assert dict(parse_qsl(query)) == exchange.query
    results = results_in(step)
    assert results == exchange.body["step_details"]["tool_calls"][0]["file_search"]["results"]
    assert len(results) >= 4
    for result in results:
        assert result.keys() == {"file_id", "file_name", "score", "content"}
        assert {part["type"] for part in result["content"]} == {"text"}
        assert all(len(part["text"]) > 100 for part in result["content"])


@pytest.mark.parametrize("exchange", LISTS, ids=str)
def test_without_include_the_results_come_without_their_texts(exchange: Exchange) -> None:
    page: Page[RunStep] = decode(json.dumps(exchange.body).encode(), Page[RunStep])
    (step,) = page.data
    assert "include[]" not in exchange.query
    assert [result.keys() for result in results_in(step)] == [{"file_id", "file_name", "score"}] * 4
