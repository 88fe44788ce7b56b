"""The results of batches: streamed from both files, waited for, reconciled by custom id, on both wires."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
import pytest
from broken_downloads import Downloads
from multidict import CIMultiDict

from asyncruns import (
    APIConnectionError,
    APIResponseValidationError,
    Client,
    Fleet,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from asyncruns.abc import ByteStream
from asyncruns.dialects.result_lines import MALFORMED_LINE, BatchResult
from asyncruns.http import Request, Response
from asyncruns.testing import BatchScenario, Fault, InMemoryTransport
from asyncruns.testing.emulator.faults import Operation
from asyncruns.wire import Batch, ModelResponse

ENDPOINT = "/v1/chat/completions"
ENDED: Final = {"id": "batch_1", "status": "completed", "output_file_id": "file-1"}
CONTENTS: Final[tuple[Operation, ...]] = ("file_content", "results")


def bodies(count: int) -> list[dict[str, Any]]:
    return [{"model": "m", "messages": [{"role": "user", "content": f"Q{number}"}]} for number in range(count)]


def messages(count: int) -> list[dict[str, Any]]:
    return [
        {"custom_id": f"request-{number}", "params": {**body, "max_tokens": 10}}
        for number, body in enumerate(bodies(count), 1)
    ]


class Stage:
    """A client of an emulated server, and a batch of either wire."""

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.server = InMemoryTransport()
        self.client = Client(transport=self.server)
        self.requests = bodies(6) if wire == "files" else messages(6)

    async def outcome(self, **scenario: Any) -> Any:
        self.server.script_batches(BatchScenario(**scenario))
        return await self.client.watch(await self.create(self.requests))

    async def create(self, requests: Any) -> Any:
        if self.wire == "files":
            return await self.client.batches.create(requests=requests, endpoint=ENDPOINT)
        return await self.client.message_batches.create(requests=requests)

    def results(self, batch: Any) -> AsyncIterator[BatchResult]:
        batches: Any = self.client.batches if self.wire == "files" else self.client.message_batches
        found: AsyncIterator[BatchResult] = batches.results(batch)
        return found


@pytest.fixture(params=["files", "messages"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    stage = Stage(request.param)
    yield stage
    await stage.client.close()


async def kinds_of(results: AsyncIterator[BatchResult]) -> dict[str, str]:
    return {result.custom_id: result.kind async for result in results}


# Reading


async def test_each_request_has_a_result(stage: Stage) -> None:
    outcome = await stage.outcome(failing={"request-3"})
    texts = {result.custom_id: result.text async for result in outcome.results()}
    assert texts == {f"request-{number}": f"You said: Q{number - 1}" if number != 3 else "" for number in range(1, 7)}
    assert (await kinds_of(outcome.results()))["request-3"] == "failed"
    assert await kinds_of(stage.results(outcome.run)) == await kinds_of(outcome.results())
    assert await kinds_of(stage.results(outcome.ref.ids[0])) == await kinds_of(outcome.results())


async def test_a_batch_that_expired_or_was_cancelled_has_results(stage: Stage) -> None:
    for end, kind in (("expired", "expired"), ("cancelled", "cancelled")):
        outcome = await stage.outcome(end=end, share=0.5, lifetime=100.0)
        assert outcome.status in (end, "ended")
        found = await outcome.reconcile(stage.requests)
        assert len(found.answered) == 3
        assert len(getattr(found, kind)) == 3
        assert not found.missing
        assert [custom_id async for custom_id, _ in outcome.unanswered(stage.requests)] == list(getattr(found, kind))


async def test_results_are_the_same_whatever_a_server_does_with_them() -> None:
    for odd in ({"empty_file_ids": True}, {"null_counts": True}, {"body_as_text": True}, {"bare_times": True}):
        stage = Stage("files")
        outcome = await stage.outcome(failing={"request-1"}, **odd)
        found = await outcome.reconcile(stage.requests)
        assert (len(found.answered), found.failed) == (5, ("request-1",))


async def test_responses_are_typed() -> None:
    async with Client(transport=InMemoryTransport()) as client:
        batch = await client.batches.create(requests=[{"model": "m", "input": "Hi"}], endpoint="/v1/responses")
        outcome = await client.watch(batch)
        (result,) = [result async for result in outcome.results()]
    assert isinstance(result.response, ModelResponse)
    assert result.text == result.response.output_text == "You said: Hi"


async def test_results_that_lag_are_waited_for(stage: Stage) -> None:
    outcome = await stage.outcome(results_lag=6.0)
    began = asyncio.get_running_loop().time()
    assert len(await kinds_of(outcome.results())) == 6
    assert asyncio.get_running_loop().time() - began < 12.0


async def test_results_that_never_come_are_missing() -> None:
    stage = Stage("files")
    outcome = await stage.outcome(results_lag=1e6)
    began = asyncio.get_running_loop().time()
    assert len((await outcome.reconcile(stage.requests)).missing) == 6
    assert 15.5 <= asyncio.get_running_loop().time() - began < 20.0


async def test_a_file_that_is_gone_is_an_error() -> None:
    stage = Stage("files")
    outcome = await stage.outcome()
    await stage.client.files.delete(outcome.run.output_file_id)
    with pytest.raises(NotFoundError):
        await outcome.reconcile(stage.requests)


async def test_a_batch_that_failed_has_no_results() -> None:
    stage = Stage("files")
    outcome = await stage.outcome(end="failed", errors=[{"code": "x", "message": "Bad", "line": 2}])
    began = asyncio.get_running_loop().time()
    assert await kinds_of(outcome.results()) == {}
    assert asyncio.get_running_loop().time() == began
    assert len([request async for request in outcome.unanswered()]) == 6


async def test_a_batch_that_goes_on_has_no_results_yet(stage: Stage) -> None:
    batch = await stage.create(stage.requests)
    with pytest.raises(InvalidRequestError, match="so watch it first"):
        await kinds_of(stage.results(batch))
    outcome = await stage.client.watch(batch, timeout=0.0)
    assert outcome.reason is not None
    await asyncio.sleep(100.0)
    assert len(await kinds_of(outcome.results())) == 6  # it has ended since


# A connection that breaks, and lines that are cut


async def test_a_connection_that_breaks_repeats_no_result(stage: Stage) -> None:
    outcome = await stage.outcome()
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, damage="cut", times=3))
    custom_ids = [result.custom_id async for result in outcome.results()]
    assert sorted(custom_ids) == [f"request-{number}" for number in range(1, 7)]


async def test_a_file_that_ends_in_the_middle_of_a_line_says_so(stage: Stage) -> None:
    stage.requests.pop()  # so that the half is within a line
    outcome = await stage.outcome()
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, damage="half", times=None))
    results = [result async for result in outcome.results()]
    (cut,) = [result for result in results if not result.custom_id]
    assert cut.error is not None
    assert cut.error.code == MALFORMED_LINE
    assert f"line {len(results)}," in cut.error.message


async def test_blank_lines_are_skipped_and_others_are_told_by_their_numbers(stage: Stage) -> None:
    outcome = await stage.outcome()
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {"id": "1"}}})
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, body=f"\n{line}\r\n   \nnothing\n", times=None))
    first, second = [result async for result in outcome.results()][:2]
    assert (first.custom_id, first.kind) == ("a", "answered")
    assert second.error is not None
    assert "line 4," in second.error.message


async def test_reading_may_stop_early(stage: Stage) -> None:
    outcome = await stage.outcome()
    async with aclosing(outcome.results()) as results:
        async for result in results:
            assert result.custom_id
            break


# Reconciling, and asking again


async def test_lost_requests_are_missing_by_name_and_can_be_asked_again(stage: Stage) -> None:
    outcome = await stage.outcome(failing={"request-2"}, lost={"request-4", "request-5"})
    found = await outcome.reconcile(stage.requests)
    assert (found.failed, found.missing) == (("request-2",), ("request-4", "request-5"))
    assert not found.is_complete

    stage.server.script_batches(BatchScenario())
    again = await stage.client.watch(await stage.create(outcome.unanswered(stage.requests)))
    second = await again.reconcile(["request-2", "request-4", "request-5"])
    assert second.is_complete
    assert not second.unexpected


async def test_unanswered_requests_come_from_the_input_file() -> None:
    stage = Stage("files")
    outcome = await stage.outcome(lost={"request-4"})
    assert [request async for request in outcome.unanswered()] == [("request-4", stage.requests[3])]
    await stage.client.files.delete(outcome.run.input_file_id)
    with pytest.raises(NotFoundError, match=r"unanswered\(requests\)"):
        [request async for request in outcome.unanswered()]


async def test_a_message_batch_needs_its_requests() -> None:
    stage = Stage("messages")
    outcome = await stage.outcome(lost={"request-4"})
    with pytest.raises(InvalidRequestError, match=r"unanswered\(requests\)"):
        outcome.unanswered()
    assert [request async for request in outcome.unanswered(stage.requests)] == [
        ("request-4", stage.requests[3]["params"])
    ]


async def test_ids_alone_cannot_be_asked_again(stage: Stage) -> None:
    outcome = await stage.outcome(lost={"request-4"})
    with pytest.raises(InvalidRequestError):
        [request async for request in outcome.unanswered(["request-4"])]


# Other outcomes


async def test_the_outcomes_of_a_fleet_have_results(stage: Stage) -> None:
    batch = await stage.create(stage.requests)
    async with Fleet(stage.client) as fleet:
        outcome = await fleet.watch(batch)
        assert (await outcome.reconcile(stage.requests)).is_complete
    assert (await outcome.reconcile(stage.requests)).is_complete


async def test_an_unpickled_outcome_says_how_to_read_its_results(stage: Stage) -> None:
    outcome = pickle.loads(pickle.dumps(await stage.outcome()))
    with pytest.raises(InvalidRequestError, match=r"batches.results\(outcome.run\)"):
        outcome.results()
    with pytest.raises(InvalidRequestError, match="unpickled"):
        await outcome.reconcile(stage.requests)
    assert len(await kinds_of(stage.results(outcome.run))) == 6


async def test_a_run_has_no_results() -> None:
    async with Client(transport=InMemoryTransport()) as client:
        outcome = await client.run(model="m", message="Hi")
        with pytest.raises(InvalidRequestError, match="Only batches have results"):
            outcome.results()
        async with Fleet(client) as fleet:
            outcome = await fleet.run(model="m", message="Hi")
        with pytest.raises(InvalidRequestError, match="Only batches have results"):
            outcome.results()


async def test_results_of_an_object_of_another_client() -> None:
    stage = Stage("files")
    outcome = await stage.outcome()
    run: Batch = outcome.run
    other: Any = run.to_dict()
    assert len(await kinds_of(stage.results(other))) == 6


# A connection that breaks at a server that ignores ranges


class Shuffling(Downloads):
    """Begins anew after a break, with the lines in another order each time."""

    async def download(self, request: Request) -> Response | ByteStream:
        lines = self.content.splitlines(keepends=True)
        self.content = b"".join([*lines[3:], *lines[:3]])
        return await super().download(request)


def lines_of(count: int) -> bytes:
    answer = {"status_code": 200, "body": {"id": "1", "object": "chat.completion", "choices": []}}
    return b"".join(
        json.dumps({"custom_id": f"r-{number % 8}", "response": answer}).encode() + b"\n" for number in range(count)
    )


def ended(**fields: Any) -> Batch:
    return Batch(id="batch_1", status="completed", output_file_id="file-1", **fields)


@pytest.mark.parametrize("kind", [Downloads, Shuffling])
async def test_no_result_is_repeated_or_lost_when_a_content_begins_anew(kind: type[Downloads]) -> None:
    """Two requests have a custom id each that another one has as well, as OGX allows."""
    server = kind(lines_of(10), breaks=[500, 20, 700], ranges="ignored")
    async with Client(transport=server, max_retries=0) as client:
        found = [result async for result in client.batches.results(ended())]
    ids = sorted(result.custom_id for result in found)
    assert ids == sorted(f"r-{number % 8}" for number in range(10))
    assert all(result.kind == "answered" for result in found)
    assert len(server.requests) == 4


async def test_a_content_that_always_breaks_at_the_same_place_is_given_up() -> None:
    server = Downloads(lines_of(10), breaks=[500] * 100, ranges="ignored")
    async with Client(transport=server, max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            async for _ in client.batches.results(ended()):
                pass
    assert len(server.requests) < 10


async def test_a_page_of_a_proxy_is_no_result() -> None:
    async with Client(transport=Downloads(b"<html>\n<p>Sorry\n</html>")) as client:
        with pytest.raises(APIResponseValidationError, match="a page in place of results"):
            async for _ in client.batches.results(ended()):
                pass


async def test_results_are_waited_for_while_their_file_is_empty(stage: Stage) -> None:
    outcome = await stage.outcome()
    stage.server.inject(Fault(on="results" if stage.wire == "messages" else "file_content", body=b"", times=2))
    began = asyncio.get_running_loop().time()
    assert len(await kinds_of(outcome.results())) == 6
    assert asyncio.get_running_loop().time() - began < 4.0


# Files that are filled late, or are no results


async def test_a_file_that_is_filled_late_is_read_again_and_no_result_comes_twice(stage: Stage) -> None:
    outcome = await stage.outcome()
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, damage="half", times=2))
    results = [result.custom_id async for result in outcome.results()]
    assert sorted(results) == [f"request-{number}" for number in range(1, 7)]


async def test_all_waiting_for_results_is_bounded_together(stage: Stage) -> None:
    outcome = await stage.outcome(lost={"request-1"})
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, status=404, times=3))
    began = asyncio.get_running_loop().time()
    assert len(await kinds_of(outcome.results())) == 5
    assert 15.5 <= asyncio.get_running_loop().time() - began < 16.5


async def test_a_byte_order_mark_is_no_part_of_a_result(stage: Stage) -> None:
    outcome = await stage.outcome()
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {"id": "1"}}})
    for on in ("file_content", "results"):
        stage.server.inject(Fault(on=on, body=f"\ufeff{line}\n", times=None))
    assert await kinds_of(outcome.results()) == {"a": "answered"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"\n  \n<html>log in, sk-secret-secret-secret</html>\n"),
        ({"Content-Type": "text/html; charset=utf-8"}, b"log in, sk-secret-secret-secret"),
    ],
)
async def test_a_page_is_recognised_and_shows_no_credential(headers: dict[str, str], body: bytes) -> None:
    class Redacting(Downloads):
        async def download(self, request: Request) -> Response | ByteStream:
            answer = await super().download(request)
            assert isinstance(answer, ByteStream)
            answer.redact = lambda text: text.replace(b"sk-secret-secret-secret", b"***")
            return answer

    batch = Batch(id="batch_1", status="completed", output_file_id="file-1")
    with pytest.raises(APIResponseValidationError, match=r"a page in place of results.*log in, \*\*\*") as caught:
        [result async for result in Client(transport=Redacting(body, headers=headers)).batches.results(batch)]
    assert b"sk-secret" not in caught.value.body


async def test_results_of_a_message_batch_that_was_deleted_are_not_waited_for() -> None:
    stage = Stage("messages")
    outcome = await stage.outcome()
    await stage.client.message_batches.delete(outcome.run.id)
    began = asyncio.get_running_loop().time()
    with pytest.raises(NotFoundError):
        await kinds_of(outcome.results())
    assert asyncio.get_running_loop().time() == began


async def test_many_lines_that_have_arrived_do_not_keep_the_loop() -> None:
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {"id": "1"}}}).encode()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    class AtOnce(Downloads):
        async def download(self, request: Request) -> Response | ByteStream:
            return Response(200, CIMultiDict(), b"\n".join([line, b""] * 5000))

    batch = Batch(id="batch_1", status="completed", output_file_id="file-1")
    ticking = asyncio.create_task(tick())
    async for _ in Client(transport=AtOnce(b"")).batches.results(batch):
        pass
    ticking.cancel()
    assert ticks > 20


async def test_a_result_that_was_lost_long_ago_is_not_waited_for(stage: Stage) -> None:
    outcome = await stage.outcome(lost={"request-2"})
    reads = len(stage.server.requests)
    assert len(await kinds_of(outcome.results())) == 5  # it has just ended: the result may still come
    assert sum(each.operation in CONTENTS for each in stage.server.requests[reads:]) == 6
    await asyncio.sleep(86_400.0)
    reads, began = len(stage.server.requests), asyncio.get_running_loop().time()
    assert len(await kinds_of(outcome.results())) == 5
    assert [each.operation for each in stage.server.requests[reads:]] in (["file_content"], ["results"])
    assert asyncio.get_running_loop().time() == began


@pytest.mark.parametrize(("seconds_ago", "reads"), [(10.0, 6), (600.0, 1)])
async def test_without_a_date_our_clock_tells_how_long_ago_a_batch_ended(seconds_ago: float, reads: int) -> None:
    counts = {"completed": 5, "failed": 0, "total": 5}
    batch = msgspec.convert({**ENDED, "completed_at": time.time() - seconds_ago, "request_counts": counts}, Batch)
    served = 0

    class Lossy(Downloads):
        async def download(self, request: Request) -> Response | ByteStream:
            nonlocal served
            served += 1
            return Response(200, CIMultiDict(), lines_of(4))

        async def send(self, request: Request) -> Response:
            return Response(200, CIMultiDict(), msgspec.json.encode(batch))

    async with Client(transport=Lossy(b"")) as client:
        assert len(await kinds_of(client.batches.results(batch))) == 4
    assert served == reads


async def test_what_was_read_is_not_lost_by_reading_again(stage: Stage) -> None:
    outcome = await stage.outcome(lost={"request-2"})
    for name in (*CONTENTS, "poll"):
        stage.server.inject(Fault(on=name, skip=name != "poll", status=403, times=None))
    assert len(await kinds_of(outcome.results())) == 5


async def test_a_file_that_was_not_read_is_an_error() -> None:
    stage = Stage("files")
    outcome = await stage.outcome(failing={"request-2"})
    stage.server.inject(Fault(on="file_content", skip=1, status=403, times=None))
    with pytest.raises(PermissionDeniedError):
        await kinds_of(outcome.results())


async def test_requests_that_are_no_requests_are_refused_before_results_are_read(stage: Stage) -> None:
    outcome = await stage.outcome()
    reads = len(stage.server.requests)
    with pytest.raises(InvalidRequestError, match="Expected an iterable of requests"):
        [request async for request in outcome.unanswered("abc")]
    assert len(stage.server.requests) == reads


async def test_what_is_no_generator_is_not_closed(stage: Stage) -> None:
    class Requests:
        is_closed = False

        def __aiter__(self) -> AsyncIterator[Any]:
            return self._each()

        async def _each(self) -> AsyncIterator[Any]:
            for request in stage.requests:
                yield request

        async def aclose(self) -> None:
            self.is_closed = True

    given = Requests()
    outcome = await stage.outcome(failing={"request-2"})
    assert [custom_id async for custom_id, _ in outcome.unanswered(given)] == ["request-2"]
    assert not given.is_closed


async def test_a_file_that_is_complete_is_not_read_again_for_another_one() -> None:
    stage = Stage("files")
    outcome = await stage.outcome(failing={"request-2"})
    await asyncio.sleep(3600.0)

    def without_errors(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "error_file_id": None}

    stage.server.inject(Fault(on="poll", rewrite=without_errors, times=3))
    reads = len(stage.server.requests)
    assert len(await kinds_of(stage.results(outcome.ref.ids[0]))) == 6
    assert sum(each.operation == "file_content" for each in stage.server.requests[reads:]) == 2
