"""The output and error files of the emulator's batches, and the traps of real servers that a scenario sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from batch_doors import Door, line_of, lines_of, opened

from asyncruns.testing import BatchScenario, Fault, InMemoryTransport


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with opened("memory") as door:
        yield door


async def finished(door: Door, content: bytes, scenario: BatchScenario, **parameters: Any) -> dict[str, Any]:
    door.server.script_batches(scenario)
    return await door.ended(await door.begin(content, **parameters), 100.0)


async def test_each_request_has_a_line_in_one_of_the_files(door: Door) -> None:
    batch = await finished(door, lines_of(100), BatchScenario(failing={"r-7", "r-8"}))
    output, errors = await door.results(batch)
    assert output.keys() | errors.keys() == {f"r-{number}" for number in range(100)}
    assert errors.keys() == {"r-7", "r-8"}
    good, bad = output["r-5"], errors["r-7"]
    assert good.keys() == bad.keys() == {"id", "custom_id", "response", "error"}
    assert (good["response"]["status_code"], good["error"]) == (200, None)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "You said: r-5"
    assert (bad["response"]["status_code"], bad["error"]) == (400, None)
    assert bad["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert len({line["id"] for line in (*output.values(), *errors.values())}) == 100


async def test_lines_are_in_another_order_than_the_requests(door: Door) -> None:
    batch = await finished(door, lines_of(100), BatchScenario())
    output, _ = await door.results(batch)
    assert list(output) != [f"r-{number}" for number in range(100)]
    assert (await door.results(batch))[0] == output


@pytest.mark.parametrize(
    ("failing", "files"), [((), (True, False)), ({"r-0"}, (True, True)), ({"r-0", "r-1"}, (False, True))]
)
async def test_a_file_without_lines_does_not_exist(door: Door, failing: Any, files: tuple[bool, bool]) -> None:
    batch = await finished(door, lines_of(2), BatchScenario(failing=failing))
    assert (batch["output_file_id"] is not None, batch["error_file_id"] is not None) == files
    other = batch["output_file_id"] or batch["error_file_id"]
    for name in ("output", "error"):
        path = f"/files/{other.rsplit('-', 1)[0]}-{name}"
        assert (await door.ask("GET", path)).status == (200 if files[name == "error"] else 404)


async def test_lost_requests_are_in_no_file_although_they_count(door: Door) -> None:
    batch = await finished(door, lines_of(3), BatchScenario(lost={"r-1"}))
    output, errors = await door.results(batch)
    assert output.keys() == {"r-0", "r-2"}
    assert errors == {}
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


@pytest.mark.parametrize(("end", "code"), [("expired", "batch_expired"), ("cancelled", "batch_cancelled")])
async def test_other_ends_have_partial_results(door: Door, end: str, code: str) -> None:
    scenario = BatchScenario(end=end, lifetime=60.0, share=0.4, failing={"r-1"})
    batch = await finished(door, lines_of(10), scenario)
    output, errors = await door.results(batch)
    assert output.keys() == {"r-0", "r-2", "r-3"}
    assert errors["r-1"]["response"]["status_code"] == 400
    assert {line["error"]["code"] for name, line in errors.items() if name != "r-1"} == {code}
    assert all(line["response"] is None for name, line in errors.items() if name != "r-1")
    assert len(errors) == 7
    assert batch["request_counts"] == {"total": 10, "completed": 3, "failed": 1}


async def test_a_batch_cancelled_by_the_client_has_partial_results(door: Door) -> None:
    door.server.script_batches(BatchScenario(working=10.0, share=0.0))
    batch_id = await door.begin(lines_of(10))
    await asyncio.sleep(4.0)
    await door.ask("POST", f"/batches/{batch_id}/cancel")
    output, errors = await door.results(await door.ended(batch_id))
    assert (len(output), len(errors)) == (3, 7)


@pytest.mark.parametrize(
    ("endpoint", "body", "find", "answer"),
    [
        ("/v1/responses", {"input": "Hi"}, lambda body: body["output"][0]["content"][0]["text"], "You said: Hi"),
        ("/v1/responses", {"input": 5}, lambda body: body["status"], "completed"),
        ("/v1/completions", {"prompt": "Hi"}, lambda body: body["choices"][0]["text"], "You said: Hi"),
        ("/v1/embeddings", {"input": ["Hi", "you"]}, lambda body: len(body["data"]), 2),
        ("/v1/embeddings", {"input": "Hi"}, lambda body: body["data"][0]["embedding"][0], 2.0),
        ("/v1/embeddings", {"input": [1, 2]}, lambda body: len(body["data"]), 1),
        ("/v1/moderations", {"input": "Hi"}, lambda body: body["input"], "Hi"),
    ],
)
async def test_each_endpoint_has_answers_of_its_own(
    door: Door, endpoint: str, body: dict[str, Any], find: Any, answer: object
) -> None:
    batch = await finished(door, line_of("a", url=endpoint, **body), BatchScenario(), endpoint=endpoint)
    output, _ = await door.results(batch)
    assert find(output["a"]["response"]["body"]) == answer


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "You said: a"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, 5]}], "You said: a"),
        ([], "You said: "),
        ("a", "You said: "),
    ],
)
async def test_a_chat_completion_repeats_the_last_text_of_the_user(door: Door, messages: Any, text: str) -> None:
    output, _ = await door.results(await finished(door, line_of("a", messages=messages), BatchScenario()))
    assert output["a"]["response"]["body"]["choices"][0]["message"]["content"] == text


async def test_a_chat_completion_has_the_form_that_is_asked_for(door: Door) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    output, _ = await door.results(await finished(door, line_of("a", response_format=asked), BatchScenario()))
    content = output["a"]["response"]["body"]["choices"][0]["message"]["content"]
    assert msgspec.json.decode(content) == {"n": 1}


async def test_answers_may_be_those_of_the_test(door: Door) -> None:
    scenario = BatchScenario(answers=lambda custom_id, body: {"for": custom_id, "model": body["model"]})
    output, _ = await door.results(await finished(door, lines_of(2), scenario))
    assert output["r-1"]["response"]["body"] == {"for": "r-1", "model": "m"}


async def test_a_body_may_be_a_string_of_json(door: Door) -> None:
    batch = await finished(door, lines_of(2), BatchScenario(body_as_text=True, failing={"r-1"}))
    output, errors = await door.results(batch)
    assert msgspec.json.decode(output["r-0"]["response"]["body"])["object"] == "chat.completion"
    assert isinstance(errors["r-1"]["response"]["body"], str)


async def test_missing_files_may_have_empty_ids(door: Door) -> None:
    door.server.script_batches(BatchScenario(empty_file_ids=True))
    batch_id = await door.begin(lines_of(1))
    batch = await door.batch(batch_id)
    assert (batch["output_file_id"], batch["error_file_id"]) == ("", "")
    batch = await door.ended(batch_id)
    assert batch["output_file_id"].startswith("file-")
    assert batch["error_file_id"] == ""


async def test_counts_may_be_null_while_the_file_is_validated(door: Door) -> None:
    door.server.script_batches(BatchScenario(null_counts=True))
    batch_id = await door.begin(lines_of(1))
    assert (await door.batch(batch_id))["request_counts"] is None
    assert (await door.ended(batch_id, 1.5))["request_counts"]["total"] == 1


async def test_times_may_be_bare(door: Door) -> None:
    batch = await finished(door, lines_of(1), BatchScenario(bare_times=True))
    times = {name for name, value in batch.items() if name.endswith("_at") and value is not None}
    assert times == {"created_at", "completed_at"}


async def test_results_may_lag_behind_the_end(door: Door) -> None:
    door.server.script_batches(BatchScenario(results_lag=5.0, failing={"r-1"}))
    batch = await door.ended(await door.begin(lines_of(2)), 3.6)
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("completed", None, None)
    early = f"/files/file-{batch['id'].removeprefix('batch_')}-output"
    assert (await door.ask("GET", early)).status == 404
    assert [file["purpose"] for file in (await door.ask("GET", "/files")).json["data"]] == ["batch"]
    batch = await door.ended(batch["id"], 5.0)
    assert [len(lines) for lines in await door.results(batch)] == [1, 1]
    assert (await door.ask("GET", early)).status == 200


async def test_files_of_results_are_listed_and_deleted_like_others(door: Door) -> None:
    batch = await finished(door, lines_of(2), BatchScenario(failing={"r-1"}))
    listed = (await door.ask("GET", "/files", purpose="batch_output")).json["data"]
    assert {file["id"] for file in listed} == {batch["output_file_id"], batch["error_file_id"]}
    assert {file["filename"] for file in listed} == {f"{batch['id']}_output.jsonl", f"{batch['id']}_error.jsonl"}
    file = (await door.ask("GET", f"/files/{batch['output_file_id']}")).json
    assert file in listed
    content = await door.ask("GET", f"/files/{file['id']}/content")
    assert file["bytes"] == len(content.body)
    assert (await door.ask("DELETE", f"/files/{file['id']}")).json["deleted"] is True
    assert (await door.ask("GET", f"/files/{file['id']}/content")).status == 404
    assert len((await door.ask("GET", "/files", purpose="batch_output")).json["data"]) == 1


async def test_results_expire_when_the_batch_asks_for_that(door: Door) -> None:
    batch = await finished(
        door, lines_of(1), BatchScenario(), output_expires_after={"anchor": "created_at", "seconds": 3600}
    )
    file = (await door.ask("GET", f"/files/{batch['output_file_id']}")).json
    assert file["expires_at"] == file["created_at"] + 3600
    await asyncio.sleep(3600.0)
    assert (await door.ask("GET", f"/files/{batch['output_file_id']}/content")).status == 404


async def test_a_batch_keeps_its_input_when_the_file_is_deleted(door: Door) -> None:
    batch_id = await door.begin(lines_of(3))
    await door.ask("DELETE", f"/files/{(await door.batch(batch_id))['input_file_id']}")
    output, _ = await door.results(await door.ended(batch_id))
    assert len(output) == 3


@pytest.mark.parametrize("damage", ["half", "empty", "html"])
async def test_damage_changes_the_content_of_a_file(door: Door, damage: Any) -> None:
    batch = await finished(door, lines_of(3), BatchScenario())
    path = f"/files/{batch['output_file_id']}/content"
    whole = (await door.ask("GET", path)).body
    door.server.inject(Fault(on="file_content", damage=damage))
    damaged = (await door.ask("GET", path)).body
    expected = {"half": whole[: len(whole) // 2], "empty": b""}
    assert damaged == expected[damage] if damage in expected else damaged.startswith(b"<html>")


async def test_batches_do_not_share_answers(door: Door) -> None:
    assert isinstance(door.server, InMemoryTransport)
    file_id = (await door.upload(lines_of(2))).json["id"]
    given = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    door.server.script_batches(BatchScenario(failing={"r-0"}), BatchScenario(failing={"r-1"}))
    ids = [(await door.ask("POST", "/batches", given)).json["id"] for _ in range(2)]
    errors = [(await door.results(await door.ended(one)))[1] for one in ids]
    assert [list(lines) for lines in errors] == [["r-0"], ["r-1"]]
