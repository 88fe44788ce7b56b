"""The life of a batch in the emulator on OpenAI's wire: statuses, times, counts, lists and cancels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from batch_doors import CHAT, Door, line_of, lines_of, opened

from asyncruns.testing import BatchScenario, Fault
from asyncruns.testing.emulator import BatchRequest

TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
SLOW = BatchScenario(validating=10.0, working=100.0, finalizing=10.0, cancelling=20.0, lifetime=1000.0)


@pytest.fixture(params=["socket", "memory"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async with opened(request.param, batches=SLOW) as door:
        yield door


def times_of(batch: dict[str, Any]) -> dict[str, int]:
    """Return the times of a batch that are set, in seconds since its creation."""
    return {name: batch[f"{name}_at"] - batch["created_at"] for name in TIMES if batch[f"{name}_at"] is not None}


def counts_of(batch: dict[str, Any]) -> tuple[int, int, int]:
    counts = batch["request_counts"]
    return counts["total"], counts["completed"], counts["failed"]


async def test_a_batch_goes_through_its_statuses(door: Door) -> None:
    batch_id = await door.begin(lines_of(10), metadata={"a": "b"})
    seen = []
    for _ in range(5):
        batch = await door.batch(batch_id)
        seen.append((batch["status"], counts_of(batch), times_of(batch)))
        await asyncio.sleep(32.0)
    batch = await door.batch(batch_id)
    assert seen == [
        ("validating", (0, 0, 0), {}),
        ("in_progress", (10, 2, 0), {"in_progress": 10}),
        ("in_progress", (10, 5, 0), {"in_progress": 10}),
        ("in_progress", (10, 8, 0), {"in_progress": 10}),
        ("completed", (10, 10, 0), {"in_progress": 10, "finalizing": 110, "completed": 120}),
    ]
    assert (batch["metadata"], batch["endpoint"], batch["model"], batch["errors"]) == ({"a": "b"}, CHAT, "m", None)
    assert batch["expires_at"] - batch["created_at"] == 1000
    assert door.server.batches[batch_id] == batch


async def test_what_failed_counts_as_failed() -> None:
    async with opened("memory", batches=BatchScenario(failing=lambda custom_id: custom_id in "r-1 r-3")) as door:
        assert counts_of(await door.ended(await door.begin(lines_of(5)))) == (5, 3, 2)


async def test_a_cancel_takes_its_time_and_may_be_repeated(door: Door) -> None:
    batch_id = await door.begin(lines_of(10))
    await asyncio.sleep(80.0)
    for _ in range(2):
        answer = await door.ask("POST", f"/batches/{batch_id}/cancel")
        assert (answer.status, answer.json["status"]) == (200, "cancelling")
        await asyncio.sleep(10.0)
    batch = await door.batch(batch_id)
    assert (batch["status"], counts_of(batch)) == ("cancelled", (10, 7, 0))
    assert times_of(batch) == {"in_progress": 10, "cancelling": 80, "cancelled": 100}
    assert (await door.ask("POST", f"/batches/{batch_id}/cancel")).json == batch


async def test_a_cancel_at_once_leaves_the_share_of_its_scenario(door: Door) -> None:
    batch_id = await door.begin(lines_of(10))
    await door.ask("POST", f"/batches/{batch_id}/cancel")
    batch = await door.ended(batch_id, 20.0)
    assert (batch["status"], counts_of(batch)) == ("cancelled", (10, 5, 0))


async def test_a_cancel_may_come_too_late_to_matter(door: Door) -> None:
    batch_id = await door.begin(lines_of(10))
    await asyncio.sleep(115.0)
    assert (await door.ask("POST", f"/batches/{batch_id}/cancel")).json["status"] == "cancelling"
    batch = await door.ended(batch_id, 5.0)
    assert (batch["status"], counts_of(batch)) == ("completed", (10, 10, 0))


@pytest.mark.parametrize("late_cancel", [200, 400, 409])
async def test_a_cancel_after_the_end_has_the_status_of_the_option(late_cancel: Any) -> None:
    async with opened("memory", late_cancel=late_cancel) as door:
        batch_id = await door.begin(lines_of(1))
        batch = await door.ended(batch_id)
        answer = await door.ask("POST", f"/batches/{batch_id}/cancel")
        assert answer.status == late_cancel
        assert answer.json == batch if late_cancel == 200 else "'completed'" in answer.message


async def test_a_batch_expires_with_what_was_done(door: Door) -> None:
    door.server.script_batches(BatchScenario(end="expired", lifetime=60.0, share=0.25))
    batch_id = await door.begin(lines_of(8))
    assert counts_of(await door.ended(batch_id, 30.0)) == (8, 2, 0)
    assert (await door.ended(batch_id, 30.2))["status"] == "finalizing"
    batch = await door.ended(batch_id)
    assert (batch["status"], counts_of(batch)) == ("expired", (8, 2, 0))
    assert times_of(batch) == {"in_progress": 1, "finalizing": 60, "expired": 60}


async def test_a_batch_that_works_for_too_long_expires() -> None:
    async with opened("memory", batches=BatchScenario(working=math.inf)) as door:
        batch_id = await door.begin(lines_of(8))
        assert (await door.ended(batch_id, 86_399.0))["status"] == "in_progress"
        assert (await door.ended(batch_id, 2.0))["status"] == "expired"


async def test_a_batch_is_cancelled_by_someone_else() -> None:
    async with opened("memory", batches=BatchScenario(end="cancelled")) as door:
        batch_id = await door.begin(lines_of(8))
        assert (await door.ended(batch_id, 3.1))["status"] == "cancelling"
        assert (await door.ended(batch_id, 3.1))["status"] == "cancelled"


async def test_a_batch_fails_with_the_errors_of_its_scenario(door: Door) -> None:
    error = {"code": "billing", "message": "No money.", "line": None}
    door.server.script_batches(BatchScenario(end="failed", errors=[error]), BatchScenario(end="failed"))
    first, second = [await door.begin(lines_of(8)) for _ in range(2)]
    batch = await door.ended(first)
    assert (batch["status"], batch["errors"]) == ("failed", {"object": "list", "data": [{**error, "param": None}]})
    assert (times_of(batch), counts_of(batch)) == ({"failed": 1}, (0, 0, 0))
    assert (await door.batch(second))["errors"]["data"][0]["code"] == "server_error"


async def test_more_than_may_be_enqueued_fails(door: Door) -> None:
    door.server.script_batches(BatchScenario(most_enqueued=10))
    first, second, third = [await door.begin(lines_of(count)) for count in (6, 6, 4)]
    assert [(await door.ended(one))["status"] for one in (first, second, third)] == ["completed", "failed", "completed"]
    assert (await door.batch(second))["errors"]["data"][0]["code"] == "token_limit_exceeded"
    assert (await door.ended(await door.begin(lines_of(6))))["status"] == "completed"


async def test_scenarios_come_in_turn_and_functions_choose(door: Door) -> None:
    requests: list[BatchRequest] = []

    def chosen(request: BatchRequest) -> BatchScenario:
        requests.append(request)
        return SLOW

    door.server.script_batches(BatchScenario(working=0.0), chosen)
    ids = [await door.begin(lines_of(2), metadata={"n": str(number)}) for number in range(3)]
    assert [(await door.ended(one))["status"] for one in ids] == ["completed", "in_progress", "in_progress"]
    assert requests[1] == BatchRequest(endpoint=CHAT, model="m", total=2, metadata={"n": "2"}, number=2)
    with pytest.raises(ValueError, match="at least one"):
        door.server.script_batches()


async def test_batches_are_listed_newest_first_by_page(door: Door) -> None:
    assert (await door.ask("GET", "/batches")).json == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    ids = [await door.begin(lines_of(1)) for _ in range(25)][::-1]
    page = (await door.ask("GET", "/batches")).json
    assert [batch["id"] for batch in page["data"]] == ids[:20]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[0], ids[19])
    assert page["data"][3] == await door.batch(ids[3])
    rest = (await door.ask("GET", "/batches", after=ids[19], limit=5)).json
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (ids[20:], False)
    assert (await door.ask("GET", "/batches", after=ids[-1])).json["data"] == []
    assert (await door.ask("GET", "/batches", after="batch_x")).status == 404
    assert (await door.ask("GET", "/batches", limit=101)).status == 400


@pytest.mark.parametrize(
    ("parameters", "status", "wrong"),
    [
        ({"input_file_id": "file-x"}, 400, "Cannot find file: the input file 'file-x' was not found"),
        ({"endpoint": "/v1/images"}, 400, "Invalid value: '/v1/images'"),
        ({"completion_window": "1h"}, 400, "Invalid value: '1h'"),
        ({"metadata": {"a": 1}}, 400, "Invalid type for 'metadata.a'"),
        ({"output_expires_after": {"anchor": "created_at"}}, 400, "output_expires_after[seconds]"),
        ({"input_file_id": None}, 400, "Invalid type for 'input_file_id'"),
    ],
)
async def test_wrong_parameters_are_refused(door: Door, parameters: Any, status: int, wrong: str) -> None:
    file_id = (await door.upload(lines_of(1))).json["id"]
    given = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **parameters}
    answer = await door.ask("POST", "/batches", given)
    assert answer.status == status
    assert wrong in answer.message


async def test_a_file_for_something_else_is_refused(door: Door) -> None:
    file_id = (await door.upload(lines_of(1), purpose="user_data")).json["id"]
    answer = await door.ask(
        "POST", "/batches", {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    )
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_file_purpose")


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"", [("empty_file", None)]),
        (b"\n \n", [("empty_file", None)]),
        (line_of("a") + b"{broken\n", [("invalid_json_line", 2)]),
        (b"\n" + line_of("a") + b"[]", [("invalid_json_line", 3)]),
        (line_of("a") + line_of("b") + line_of("a"), [("duplicate_custom_id", 3)]),
        (line_of("a") + line_of("b", url="/v1/responses"), [("url_mismatch", 2)]),
        (line_of("a") + line_of("b", model="n"), [("model_mismatch", 2)]),
        (b'{"custom_id": "a"}\n' + b"1\n", [("missing_required_parameter", 1), ("invalid_json_line", 2)]),
        (line_of("a").replace(b"POST", b"GET"), [("invalid_method", 1)]),
        (b"x\n" * 200, [("invalid_json_line", line) for line in range(1, 101)]),
        (line_of("a") + b"\xff\n", [("invalid_json_line", 2)]),
    ],
)
async def test_what_is_wrong_with_a_line_fails_the_batch(content: bytes, errors: list[Any]) -> None:
    async with opened("memory") as door:
        batch = await door.ended(await door.begin(content))
        assert batch["status"] == "failed"
        assert [(error["code"], error["line"]) for error in batch["errors"]["data"]] == errors
        assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)


@pytest.mark.parametrize(("count", "status"), [(50_000, "completed"), (50_001, "failed")])
async def test_a_batch_has_at_most_50_000_requests(count: int, status: str) -> None:
    async with opened("memory") as door:
        batch = await door.ended(await door.begin(lines_of(count)))
        assert batch["status"] == status
        assert (batch["errors"] or {"data": [{"code": ""}]})["data"][0]["code"] in ("", "too_many_tasks")


async def test_a_lagging_replica_shows_batches_as_they_were(door: Door) -> None:
    batch_id = await door.begin(lines_of(10))
    await asyncio.sleep(15.0)
    await door.ask("POST", f"/batches/{batch_id}/cancel")
    door.server.inject(Fault(on="poll", stale=10.0), Fault(on="poll", stale=1.0), Fault(on="poll", stale=20.0))
    door.server.inject(Fault(on="batches", stale=10.0), Fault(on="batches", stale=20.0))
    assert (await door.batch(batch_id))["status"] == "validating"
    assert (await door.batch(batch_id))["status"] == "in_progress"
    assert (await door.ask("GET", f"/batches/{batch_id}")).status == 404
    assert (await door.ask("GET", "/batches")).json["data"][0]["status"] == "validating"
    assert (await door.ask("GET", "/batches")).json["data"] == []
    assert (await door.batch(batch_id))["status"] == "cancelling"


async def test_faults_may_be_limited_to_one_batch(door: Door) -> None:
    first, second = [await door.begin(lines_of(1)) for _ in range(2)]
    door.server.inject(Fault(run_id=second, status=500, times=None))
    assert [(await door.ask("GET", f"/batches/{id}")).status for id in (first, second)] == [200, 500]
    assert (await door.ask("POST", f"/batches/{second}/cancel")).status == 500
    assert (await door.ask("GET", "/batches")).status == 200


@pytest.mark.parametrize("path", ["/batches/batch_x", "/batches/..", "/batches/a/b", "/batches/batch_x/cancel"])
async def test_what_does_not_exist_is_not_found(door: Door, path: str) -> None:
    method = "POST" if path.endswith("cancel") else "GET"
    assert (await door.ask(method, path)).status == 404


async def test_a_key_is_required() -> None:
    async with opened("socket", api_key="sk-right") as door:
        assert (await door.ask("GET", "/batches")).status == 401
        assert (await door.ask("GET", "/batches", headers={"Authorization": "Bearer sk-right"})).status == 200
        assert (await door.ask("GET", "/batches", headers={"x-api-key": "sk-right"})).status == 401


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"end": "done"}, "end is 'done'; give one of"),
        ({"working": -1.0}, "working is -1.0; give seconds"),
        ({"results_lag": math.nan}, "results_lag is nan"),
        ({"lifetime": math.inf}, "lifetime is infinite"),
        ({"share": 1.5}, "share is 1.5; give a number from 0 to 1"),
        ({"failing": "r-1"}, "failing is 'r-1'; give a collection"),
        ({"errors": [{"code": "x"}]}, "give end='failed'"),
    ],
)
def test_an_impossible_scenario_is_refused(fields: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        BatchScenario(**fields)
