"""The batches of the emulator on Anthropic's wire, over a socket and in memory."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from batch_doors import VERSION, Door, message_params, opened

from asyncruns.testing import BatchScenario, Emulator, Fault

SLOW = BatchScenario(validating=10.0, working=100.0, finalizing=10.0, cancelling=20.0, lifetime=1000.0)


@pytest.fixture(params=["socket", "memory"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async with opened(request.param, batches=SLOW) as door:
        yield door


async def ended(door: Door, batch_id: str, seconds: float = 130.0) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return await door.message_batch(batch_id)


async def results(door: Door, batch_id: str) -> dict[str, Any]:
    answer = await door.ask("GET", f"/messages/batches/{batch_id}/results")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-jsonl")
    return {line["custom_id"]: line["result"] for line in answer.lines}


def counts(**given: int) -> dict[str, int]:
    return {**dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0), **given}


async def test_a_batch_goes_to_its_end(door: Door) -> None:
    batch_id = await door.begin_messages("a", "b")
    assert batch_id.startswith("msgbatch_")
    batch = await ended(door, batch_id, 60.0)
    created = datetime.datetime.fromisoformat(batch["created_at"])
    assert created.tzinfo is not None
    assert batch == {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": counts(processing=2),
        "ended_at": None,
        "created_at": batch["created_at"],
        "expires_at": (created + datetime.timedelta(seconds=1000)).isoformat(),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    batch = await ended(door, batch_id, 60.0)
    assert (batch["processing_status"], batch["request_counts"]) == ("ended", counts(succeeded=2))
    assert batch["ended_at"] == (created + datetime.timedelta(seconds=120)).isoformat()
    assert batch["results_url"].endswith(f"/v1/messages/batches/{batch_id}/results")
    assert door.server.message_batches[batch_id] == batch
    found = await results(door, batch_id)
    assert found.keys() == {"a", "b"}
    assert found["a"]["type"] == "succeeded"
    message = found["a"]["message"]
    assert (message["content"], message["model"]) == ([{"type": "text", "text": "You said: a"}], "claude")


async def test_the_url_of_the_results_can_be_fetched() -> None:
    async with opened("socket") as door:
        batch = await ended(door, await door.begin_messages("a"))
        async with (
            aiohttp.ClientSession(headers=VERSION) as session,
            session.get(batch["results_url"]) as answer,
        ):
            assert answer.status == 200
            assert len((await answer.text()).splitlines()) == 1


async def test_failing_and_lost_requests(door: Door) -> None:
    door.server.script_batches(BatchScenario(failing={"b"}, lost={"c"}, answers=lambda custom_id, _: {"n": custom_id}))
    batch = await ended(door, await door.begin_messages("a", "b", "c"))
    assert batch["request_counts"] == counts(succeeded=2, errored=1)
    found = await results(door, batch["id"])
    assert found["a"] == {"type": "succeeded", "message": {"n": "a"}}
    assert found["b"]["type"] == "errored"
    assert found["b"]["error"]["type"] == "error"
    assert found["b"]["error"]["error"]["type"] == "invalid_request_error"
    assert "c" not in found


async def test_what_is_wrong_with_a_request_shows_in_its_result(door: Door) -> None:
    good = {"custom_id": "a", "params": message_params("Hi")}
    bad = {"custom_id": "b", "params": message_params("Hi", max_tokens=None)}
    batch_id = (await door.ask("POST", "/messages/batches", {"requests": [good, bad]})).json["id"]
    batch = await ended(door, batch_id)
    assert batch["request_counts"] == counts(succeeded=1, errored=1)
    assert (await results(door, batch_id))["b"]["error"]["error"]["message"] == "max_tokens: Field required"


async def test_a_batch_that_fails_has_an_error_for_each_request(door: Door) -> None:
    door.server.script_batches(BatchScenario(end="failed", errors=[{"code": "x"}]))
    batch = await ended(door, await door.begin_messages("a", "b"))
    assert (batch["processing_status"], batch["request_counts"]) == ("ended", counts(errored=2))


async def test_a_cancel_takes_its_time(door: Door) -> None:
    batch_id = await door.begin_messages(*(f"r-{number}" for number in range(10)))
    await asyncio.sleep(80.0)
    for _ in range(2):
        answer = await door.ask("POST", f"/messages/batches/{batch_id}/cancel")
        assert (answer.status, answer.json["processing_status"]) == (200, "canceling")
        assert answer.json["cancel_initiated_at"] is not None
        assert answer.json["request_counts"] == counts(processing=10)
        await asyncio.sleep(5.0)
    batch = await ended(door, batch_id, 10.0)
    assert (batch["processing_status"], batch["request_counts"]) == ("ended", counts(succeeded=7, canceled=3))
    kinds = [result["type"] for result in (await results(door, batch_id)).values()]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (7, 3)
    refused = await door.ask("POST", f"/messages/batches/{batch_id}/cancel")
    assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")


async def test_a_batch_expires_with_what_was_done(door: Door) -> None:
    door.server.script_batches(BatchScenario(end="expired", lifetime=60.0, share=0.5))
    batch = await ended(door, await door.begin_messages("a", "b"))
    assert batch["request_counts"] == counts(succeeded=1, expired=1)
    assert {result["type"] for result in (await results(door, batch["id"])).values()} == {"succeeded", "expired"}


async def test_results_are_not_there_before_the_end_or_while_they_lag(door: Door) -> None:
    door.server.script_batches(BatchScenario(results_lag=10.0))
    batch_id = await door.begin_messages("a")
    path = f"/messages/batches/{batch_id}/results"
    assert (await door.ask("GET", path)).status == 400
    batch = await ended(door, batch_id, 5.0)
    assert (batch["processing_status"], batch["results_url"]) == ("ended", None)
    assert (await door.ask("GET", path)).status == 400
    assert (await ended(door, batch_id, 10.0))["results_url"] is not None


async def test_a_batch_is_deleted_after_its_end(door: Door) -> None:
    first, second = [await door.begin_messages("a") for _ in range(2)]
    path = f"/messages/batches/{first}"
    assert (await door.ask("DELETE", path)).status == 400
    await asyncio.sleep(130.0)
    assert (await door.ask("DELETE", path)).json == {"id": first, "type": "message_batch_deleted"}
    assert (await door.ask("GET", path)).status == 404
    assert (await door.ask("GET", f"{path}/results")).status == 404
    assert [batch["id"] for batch in (await door.ask("GET", "/messages/batches")).json["data"]] == [second]
    assert list(door.server.message_batches) == [second]


async def test_batches_are_listed_newest_first_by_page(door: Door) -> None:
    empty = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert (await door.ask("GET", "/messages/batches")).json == empty
    ids = [await door.begin_messages("a") for _ in range(6)][::-1]

    async def page(**query: Any) -> tuple[list[str], bool]:
        body = (await door.ask("GET", "/messages/batches", **query)).json
        found = [batch["id"] for batch in body["data"]]
        assert (body["first_id"], body["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return found, body["has_more"]

    assert await page() == (ids, False)
    assert await page(limit=2) == (ids[:2], True)
    assert await page(limit=2, after_id=ids[1]) == (ids[2:4], True)
    assert await page(limit=2, after_id=ids[3]) == (ids[4:], False)
    assert await page(limit=2, before_id=ids[3]) == (ids[1:3], True)
    assert await page(limit=9, before_id=ids[3]) == (ids[:3], False)
    assert (await door.ask("GET", "/messages/batches", limit=1001)).status == 400
    assert (await door.ask("GET", "/messages/batches", after_id="msgbatch_x")).status == 404


@pytest.mark.parametrize(
    ("requests", "wrong"),
    [
        (None, "requests: Field required"),
        ([], "at least 1 item after validation, not 0"),
        ([5], "requests.0.custom_id: Field required"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{"custom_id": "a b", "params": {}}], "requests.0.custom_id: String should match pattern"),
        ([{"custom_id": "a" * 65, "params": {}}], "String should match pattern"),
        ([{"custom_id": "a", "params": {}}] * 2, "custom_id 'a' is not unique"),
    ],
)
async def test_wrong_requests_are_refused(door: Door, requests: Any, wrong: str) -> None:
    answer = await door.ask("POST", "/messages/batches", {"requests": requests})
    assert answer.status == 400
    assert wrong in answer.message


@pytest.mark.slow
async def test_a_batch_has_at_most_100_000_requests(door: Door) -> None:
    requests = [{"custom_id": f"r-{number}", "params": {}} for number in range(100_001)]
    answer = await door.ask("POST", "/messages/batches", {"requests": requests})
    assert (answer.status, "at most 100000 items" in answer.message) == (400, True)
    assert (await door.ask("POST", "/messages/batches", {"requests": requests[1:]})).status == 200


async def test_errors_have_the_form_of_this_wire(door: Door) -> None:
    answer = await door.ask("GET", "/messages/batches/msgbatch_x")
    assert answer.status == 404
    assert answer.json == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "No message batch found with id 'msgbatch_x'."},
        "request_id": answer.headers["request-id"],
    }
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error"), (400, "invalid_request_error")],
)
async def test_faults_have_the_form_of_this_wire(door: Door, status: int, kind: str) -> None:
    door.server.inject(Fault(on="message_batches", status=status))
    answer = await door.ask("GET", "/messages/batches")
    assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (status, "error", kind)


async def test_a_key_and_a_version_are_required() -> None:
    async with opened("socket", api_key="sk-right") as door:
        assert isinstance(door.server, Emulator)
        url = f"{door.server.base_url}/messages/batches"

        async def ask(**headers: str) -> tuple[int, str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with (
                aiohttp.ClientSession(headers=named) as session,
                session.get(url) as answer,
            ):
                body = await answer.json()
                return answer.status, body.get("error", {}).get("type", "")

        version = {"anthropic_version": "2023-06-01"}
        assert await ask(**version) == (401, "authentication_error")
        assert await ask(x_api_key="sk-wrong", **version) == (401, "authentication_error")
        assert await ask(x_api_key="sk-right") == (400, "invalid_request_error")
        assert await ask(Authorization="Bearer sk-right", **version) == (200, "")
        assert await ask(x_api_key="sk-right", **version) == (200, "")
        assert door.server.requests[-1].headers["x-api-key"] == "***"


async def test_faults_may_be_limited_to_one_batch(door: Door) -> None:
    first, second = [await door.begin_messages("a") for _ in range(2)]
    door.server.inject(Fault(on="poll", run_id=second, stale=5.0), Fault(on="message_batches", stale=5.0))
    assert (await door.ask("GET", f"/messages/batches/{first}")).status == 200
    assert (await door.ask("GET", f"/messages/batches/{second}")).status == 404
    assert (await door.ask("GET", "/messages/batches")).json["data"] == []
