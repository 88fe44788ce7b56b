"""Runs whose create's answer is lost: adopted, created again, or an error, and never created twice."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
import pytest
from lossy import ACTED_AND_LOST, LISTED, LOST, RUNS, Fault, Stage, answer, dropped, fail, late, pass_on

from asyncruns import (
    APIConnectionError,
    APIError,
    APIStatusError,
    ThreadBusyError,
)
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources import NONCE_KEY, RawResponse
from asyncruns.wire import Run


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fail(dropped, after=pass_on), id="dropped"),
        pytest.param(fail(late, after=pass_on), id="late"),
        pytest.param(answer(500, after=pass_on), id="500"),
        pytest.param(answer(504, b"<html>", after=pass_on), id="504"),
        pytest.param(answer(408, after=pass_on), id="408"),
        pytest.param(answer(409, after=pass_on), id="409"),
        pytest.param(answer(200, b"<html>Log in</html>", after=pass_on), id="HTML"),
        pytest.param(answer(200, b"", after=pass_on), id="empty"),
        pytest.param(answer(200, {}, after=pass_on), id="no run"),
    ],
)
async def test_a_run_whose_answer_was_lost_is_adopted(stage: Stage, fault: Fault) -> None:
    stage.faulty.faults[RUNS] = [fault]
    run = await stage.create(metadata={"a": "b"})
    (made,) = stage.runs
    assert run.id == made["id"]
    assert run.metadata == made["metadata"]
    assert {**made["metadata"], NONCE_KEY: ""} == {"a": "b", NONCE_KEY: ""}
    assert len(stage.faulty.times(RUNS)) == 1


@pytest.mark.parametrize("fault", [LOST, answer(500), answer(200, b"<html>")])
async def test_a_run_that_certainly_does_not_exist_is_created_again_with_the_same_bytes(
    stage: Stage, fault: Fault
) -> None:
    stage.faulty.faults[RUNS] = [fault, fault]
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    first, second, third = stage.faulty.bodies(RUNS)
    assert first == second == third
    times = stage.faulty.times(RUNS)
    assert min(times[1] - times[0], times[2] - times[1]) >= 5.0
    assert len(stage.faulty.times(LISTED)) < 24


async def test_a_run_is_created_at_most_three_times(stage: Stage) -> None:
    stage.faulty.lasting[RUNS] = LOST
    with pytest.raises(APIConnectionError, match=r"Dropped\. The server does not list this run, .* any of 3 tries\.$"):
        await stage.create()
    assert len(stage.faulty.times(RUNS)) == 3


async def test_what_is_added_to_the_servers_message_is_a_sentence_of_its_own(stage: Stage) -> None:
    stage.faulty.lasting[RUNS] = answer(500)
    with pytest.raises(APIError, match=r"[^.]\. The server does not list this run"):
        await stage.create()


async def test_a_run_that_is_listed_late_is_adopted(stage: Stage) -> None:
    until = anyio.current_time() + 3.0

    def lag(request: Request, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "data": []} if "data" in body and anyio.current_time() < until else body

    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lag
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 1
    assert 3.0 <= anyio.current_time() - until + 3.0 < 5.0


def oldest_first(stage: Stage, *, more: object, knows_after: bool = True) -> Fault:
    """Return a fault that lists old runs before the real ones, two on a page, and ignores `order` and `limit`."""
    old = [{"id": f"run_old_{n}", "status": "completed", "created_at": 1_000, "metadata": {"a": "b"}} for n in range(5)]

    async def fault(inner: Transport, request: Request) -> Response:
        items = [*old, *stage.runs]
        after = dict(request.query).get("after") if knows_after else None
        begin = next((place + 1 for place, item in enumerate(items) if item["id"] == after), 0)
        shown = items[begin : begin + 2]
        fields = {} if more is None else {"has_more": more or begin + 2 < len(items)}
        return Response(200, {}, msgspec.json.encode({"data": shown, **fields}))

    return fault


@pytest.mark.parametrize("more", [None, False, True], ids=["no has_more", "has_more", "has_more is always true"])
async def test_a_run_that_is_not_on_the_first_page_is_adopted(stage: Stage, more: object) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.lasting[LISTED] = oldest_first(stage, more=more)
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 1


@pytest.mark.parametrize("more", [None, False], ids=["no has_more", "has_more"])
async def test_a_run_that_is_on_no_page_is_created_again(stage: Stage, more: object) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    stage.faulty.lasting[LISTED] = oldest_first(stage, more=more)
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 2


async def test_nothing_is_created_again_if_the_list_can_not_be_read_to_its_end(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    stage.faulty.lasting[LISTED] = oldest_first(stage, more=True, knows_after=False)
    with pytest.raises(APIConnectionError, match=r"It may have been created.*it did not end"):
        await stage.create()
    assert len(stage.faulty.times(RUNS)) == 1


async def test_one_page_is_enough_if_it_lists_the_newest_first(stage: Stage) -> None:
    def newest_first(request: Request, body: Mapping[str, Any]) -> Mapping[str, Any]:
        old = [{"id": f"run_old_{n}", "status": "completed", "created_at": 1_000 - n} for n in range(2)]
        return {**body, "data": old, "has_more": True} if "data" in body else body

    stage.faulty.faults[RUNS] = [LOST]
    stage.faulty.show = newest_first
    await stage.create()
    assert {dict(request.query).get("after") for _, kind, request in stage.faulty.asked if kind == LISTED} == {None}


async def test_a_lost_run_of_ours_that_holds_the_thread_is_adopted(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lambda request, body: {**body, "data": []} if "data" in body else body
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 2


async def test_a_thread_held_by_another_run_is_busy(stage: Stage) -> None:
    stage.let_another_slip_in()
    with pytest.raises(ThreadBusyError) as caught:
        await stage.create()
    assert [caught.value.active_run_id] == [made["id"] for made in stage.runs]


async def test_a_create_waits_for_another_run_that_holds_the_thread(stage: Stage) -> None:
    stage.let_another_slip_in(assistant_id="asst_other", metadata={"of": "another"})
    run = await stage.create(on_busy="wait")
    other, ours = stage.runs
    assert (other["status"], other["assistant_id"]) == ("completed", "asst_other")
    assert run.id == ours["id"]


async def test_a_run_of_that_time_without_metadata_may_be_ours(stage: Stage) -> None:
    stage.let_another_slip_in(assistant_id="asst_1")
    with pytest.raises(APIConnectionError, match=r"may be it, but has no metadata\)\. Check GET /threads/") as e:
        await stage.create(on_busy="wait")
    assert stage.runs[0]["id"] in str(e.value)


async def test_nothing_is_created_again_on_a_server_that_strips_metadata(stage: Stage) -> None:
    stage.faulty.strips = True
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match="It may have been created"):
        await stage.create()
    assert len(stage.faulty.times(RUNS)) == len(stage.runs) == 1


async def test_old_runs_without_metadata_are_ignored(stage: Stage) -> None:
    stage.faulty.strips = True
    old = await stage.client.threads.runs.create(stage.thread_id, assistant_id="asst_1")
    await stage.client.threads.runs.cancel(old.id, thread_id=stage.thread_id)
    await anyio.sleep(10.0)
    stage.faulty.faults[RUNS] = [LOST]
    run = await stage.create()
    assert [made["id"] for made in stage.runs] == [old.id, run.id]


async def test_a_list_that_fails_for_some_seconds_is_polled_again(stage: Stage) -> None:
    stage.faulty.faults = {RUNS: [ACTED_AND_LOST], LISTED: [answer(503), LOST, answer(200, b"<html>"), answer(429)]}
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (answer(404), 9.0),
        (answer(405), 1.0),
        (answer(403), 1.0),
        (answer(500), 70.0),
        (answer(429), 70.0),
        (LOST, 70.0),
    ],
)
async def test_nothing_is_created_again_if_the_list_can_not_be_read(stage: Stage, fault: Fault, seconds: float) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.lasting[LISTED] = fault
    start = anyio.current_time()
    with pytest.raises(
        APIConnectionError, match=r"^Dropped\. It may have been created \(the list can't be read: "
    ) as e:
        await stage.create()
    assert isinstance(e.value.__cause__, APIError)
    assert len(stage.faulty.times(RUNS)) == 1
    assert anyio.current_time() - start <= seconds


async def test_a_list_that_hangs_is_polled_again(stage: Stage) -> None:
    async def hang(inner: Any, request: Request) -> Any:
        await anyio.sleep_forever()

    stage.faulty.faults = {RUNS: [ACTED_AND_LOST], LISTED: [hang]}
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]


async def test_it_is_not_known_whether_a_holder_that_can_not_be_polled_is_ours(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lambda request, body: {**body, "data": []} if "data" in body else body
    stage.faulty.lasting["GET /threads/*/runs/*"] = answer(403)
    with pytest.raises(APIConnectionError, match=r"can't be polled: .* answered 403"):
        await stage.create()
    assert len(stage.runs) == 1


@pytest.mark.parametrize(
    "more",
    [{"metadata": {f"key_{n}": "x" for n in range(16)}}, {"extra_body": {"metadata": {"a": "b"}}}],
    ids=["16 pairs", "extra_body"],
)
async def test_without_room_for_a_nonce_the_error_says_what_to_check(stage: Stage, more: Any) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(
        APIConnectionError, match=r"may have been created \(it carries no nonce.* GET /threads/thread_\w+/runs"
    ):
        await stage.create(**more)
    assert [kind for _, kind, _ in stage.faulty.asked] == ["POST /threads", RUNS]
    assert NONCE_KEY not in stage.runs[0]["metadata"]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 302])
async def test_a_refused_create_is_not_searched_for(stage: Stage, status: int) -> None:
    stage.faulty.faults[RUNS] = [answer(status)]
    with pytest.raises(APIStatusError) as caught:
        await stage.create()
    assert caught.value.status == status
    assert len(stage.faulty.asked) == 2


async def test_without_adopt_a_lost_answer_is_an_error(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match=r"^Dropped\.$"):
        await stage.create(adopt=False)
    assert len(stage.faulty.asked) == 2
    assert stage.runs[0]["metadata"] == {}


@pytest.mark.parametrize("seconds", [0.1, 1.0, 4.0])
async def test_cancelling_stops_the_polls_and_creates_nothing(stage: Stage, seconds: float) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await stage.create()
    sent = len(stage.faulty.asked)
    await anyio.sleep(20.0)
    assert len(stage.faulty.asked) == sent
    assert stage.runs == []


@pytest.mark.parametrize("fault", [ACTED_AND_LOST, answer(200, b"<html>", after=pass_on)])
async def test_a_raw_create_returns_the_answer_to_a_poll(stage: Stage, fault: Fault) -> None:
    stage.faulty.faults = {RUNS: [fault], "GET /threads/*/runs/*": [answer(404), answer(500)]}
    raw = await stage.client.threads.runs.with_raw_response.create(stage.thread_id, assistant_id="asst_1", adopt=True)
    assert type(raw) is RawResponse
    assert [raw.parse().id] == [made["id"] for made in stage.runs]


async def test_a_raw_create_raises_if_it_can_not_read_the_run_that_was_found(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.lasting["GET /threads/*/runs/*"] = answer(403)
    with pytest.raises(APIConnectionError, match=r"It was created, as run_\w+, which can't be read: "):
        await stage.client.threads.runs.with_raw_response.create(stage.thread_id, assistant_id="asst_1", adopt=True)


async def test_the_polls_are_sent_with_the_options_of_the_call(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    await stage.create(extra_headers={"x-tenant": "7"}, extra_query={"api-version": "v1"}, request_timeout=5)
    (poll,) = [request for _, kind, request in stage.faulty.asked if kind == LISTED]
    assert (poll.headers, poll.timeout) == ((("x-tenant", "7"),), 5)
    assert dict(poll.query) == {"limit": "100", "order": "desc", "api-version": "v1"}


async def test_tools_from_an_iterator_are_sent_with_every_try(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    await stage.create(tools=iter([{"type": "code_interpreter"}]))
    assert [body["tools"] for body in stage.faulty.bodies(RUNS)] == [[{"type": "code_interpreter"}]] * 2


@pytest.mark.parametrize("seed", range(40))
async def test_no_run_is_created_twice_whichever_answers_are_lost(stage: Stage, seed: int) -> None:
    rng = random.Random(seed)
    creates = [LOST, ACTED_AND_LOST, answer(500), answer(502, after=pass_on), answer(200, b"", after=pass_on), pass_on]
    polls = [LOST, answer(503), answer(404), answer(200, b"<html>"), pass_on]
    shows_from = anyio.current_time() + rng.choice([0.0, 3.0, 7.0, 1000.0])
    stage.faulty.strips = rng.random() < 0.2
    stage.faulty.faults = {RUNS: rng.choices(creates, k=3), LISTED: rng.choices(polls, k=rng.randrange(12))}

    def lag(request: Request, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "data": []} if "data" in body and anyio.current_time() < shows_from else body

    stage.faulty.show = lag
    result = (await asyncio.gather(stage.create(), return_exceptions=True))[0]
    if isinstance(result, Run):
        assert [result.id] == [made["id"] for made in stage.runs]
    else:
        assert isinstance(result, APIError)
        assert len(stage.runs) <= 1
        # If the run exists, the error must say that it may.
        assert not stage.runs or re.search(r"may have been created|does not list", str(result))
