"""A group of batches is watched as one; what is held back is created as others end, and nothing is created twice."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncruns import (
    APIConnectionError,
    BatchGroup,
    BatchGroupError,
    Client,
    Completed,
    Failed,
    GaveUp,
    GroupOutcome,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    Reason,
    RunCancelledError,
    RunFailedError,
    WatchGaveUpError,
)
from asyncruns.fleet.group_watch import may_pass
from asyncruns.resources.batch_group import with_part
from asyncruns.testing import BatchScenario, Fault, InMemoryTransport
from asyncruns.testing.emulator import BatchRequest
from asyncruns.wire.common import epoch_seconds

ENDPOINT = "/v1/embeddings"
ONE = 6  # tokens of each of these requests, by the estimate


def bodies(count: int) -> list[dict[str, Any]]:
    return [{"model": "m", "input": f"Q{number}"} for number in range(count)]


@pytest.fixture
def server() -> InMemoryTransport:
    return InMemoryTransport()


@pytest.fixture
async def client(server: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=server) as client:
        yield client


async def held_back(client: Client, parts: int, *, delete_input_files: bool = False) -> BatchGroup:
    """Return a group of parts with two requests each, of which one fits into the queue at a time."""
    requests = bodies(2 * parts)
    return await client.batches.create(
        requests=requests, endpoint=ENDPOINT, max_enqueued_tokens=2 * ONE, delete_input_files=delete_input_files
    )


async def uploaded(client: Client) -> str:
    line = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": bodies(1)[0]}
    return (await client.files.create(file=json.dumps(line).encode(), purpose="batch")).id


def creates(server: InMemoryTransport) -> int:
    return sum(request.operation == "create_batch" for request in server.requests)


def now() -> float:
    return asyncio.get_running_loop().time()


# Creating what is held back


async def test_parts_are_created_as_others_end(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 4)
    outcome = await client.watch(group)
    assert isinstance(outcome, GroupOutcome)
    assert outcome.status == "completed"
    assert [batch.id for batch in outcome.unwrap()] == [batch.id for batch in outcome.group.batches]
    assert creates(server) == 4
    times = [batch.created_at for batch in outcome.group.batches]
    assert times == sorted(times, key=lambda time: time or 0)
    assert len(set(times)) == 4
    assert (await outcome.reconcile(bodies(8))).is_complete
    assert [request async for request in outcome.unanswered()] == []


async def test_never_more_is_enqueued_than_the_limit(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(most_enqueued=4, working=60.0))
    group = await client.batches.create(requests=bodies(20), endpoint=ENDPOINT, max_enqueued_tokens=4 * ONE)
    outcome = await client.batches.watch(group)
    assert outcome.status == "completed"
    assert creates(server) == 5  # none failed and was created again


async def test_a_part_that_the_queue_had_no_room_for_is_created_again(
    server: InMemoryTransport, client: Client
) -> None:
    server.script_batches(BatchScenario(most_enqueued=3, working=60.0))
    requests = bodies(6)
    group = await client.batches.create(requests=requests, endpoint=ENDPOINT, max_enqueued_tokens=2 * ONE)
    looser = BatchGroup.of({**group.to_dict(), "max_enqueued_tokens": None})
    outcome = await client.watch(looser)
    assert outcome.status == "completed"
    assert (await outcome.reconcile(requests)).is_complete
    assert 3 < creates(server) <= 6


async def test_without_another_part_to_wait_for_pauses_grow(server: InMemoryTransport, client: Client) -> None:
    full = {"end": "failed", "errors": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
    server.script_batches(*[BatchScenario(**full) for _ in range(3)], BatchScenario())  # type: ignore[arg-type]
    group = await held_back(client, 1)
    began = now()
    outcome = await client.watch(group)
    assert outcome.status == "completed"
    assert creates(server) == 4
    assert 60 + 120 + 300 <= now() - began < 600


async def test_it_gives_up_after_a_few_tries(server: InMemoryTransport, client: Client) -> None:
    full = BatchScenario(end="failed", errors=[{"code": "token_limit_exceeded", "message": "Too many"}])
    server.script_batches(full)
    group = await held_back(client, 2)
    outcome = await client.watch(group)
    first, second = outcome.outcomes
    assert isinstance(first, Failed)
    assert isinstance(second, GaveUp)
    assert second.reason is Reason.NOT_CREATED
    assert outcome.status == "gave_up"
    assert creates(server) == 6
    assert len([request async for request in outcome.unanswered()]) == 4
    assert len([request async for request in outcome.unanswered(bodies(4))]) == 4
    with pytest.raises(WatchGaveUpError, match="This is part 2 of 2"):
        outcome.unwrap()


async def test_another_failure_is_an_outcome(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(), BatchScenario(end="failed", errors=[{"code": "x", "message": "Bad"}]))
    outcome = await client.watch(await held_back(client, 2))
    assert outcome.status == "failed"
    with pytest.raises(RunFailedError, match=r"Bad.* part 2 of 2"):
        outcome.unwrap()
    found = await outcome.reconcile(bodies(4))
    assert (len(found.answered), len(found.missing)) == (2, 2)


# Nothing is created twice


async def test_a_batch_that_another_process_created_is_found(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=100.0))
    group = await held_back(client, 3)
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(150.0)  # the second part has been created
    watching.cancel()
    assert creates(server) == 2
    outcome = await client.watch(BatchGroup.of(json.loads(group.to_json())))  # as it was stored before
    assert outcome.status == "completed"
    assert creates(server) == 3
    assert (await outcome.reconcile(bodies(6))).is_complete


async def test_a_create_that_was_given_up_is_found(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", drop=True, acts=True, times=1))
    server.inject(Fault(on="batches", status=500, skip=1, times=None))  # so that the search for it fails as well
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(200.0)
    server.faults.clear()
    outcome = await watching
    assert outcome.status == "completed"
    assert creates(server) == 2
    assert len([batch async for batch in client.batches.list()]) == 2


async def test_a_create_that_fails_for_a_while_is_repeated(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", status=503, times=8))
    outcome = await client.watch(group)
    assert outcome.status == "completed"


async def test_a_create_that_is_refused_is_an_outcome(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 3)
    server.inject(Fault(on="create_batch", status=400, message="Enough", times=1))
    outcome = await client.watch(group)
    first, second, third = outcome.outcomes
    assert isinstance(first, Completed)
    assert isinstance(third, Completed)
    assert isinstance(second, GaveUp)
    assert second.reason is Reason.NOT_CREATED
    assert "Enough" in str(second.cause)
    assert "Enough" in outcome.group.parts[1].error
    assert len([request async for request in outcome.unanswered()]) == 2
    assert len((await outcome.reconcile(bodies(6))).missing) == 2
    with pytest.raises(InvalidRequestError, match="was not created"):
        second.results()


async def test_a_server_without_a_list_creates_nevertheless(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="batches", status=404, times=None))
    outcome = await client.watch(await held_back(client, 2))
    assert outcome.status == "completed"


# Ending early


async def test_a_cancelled_part_ends_the_creating(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=1000.0))
    group = await held_back(client, 3)
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(50.0)
    await client.batches.cancel(group)
    outcome = await watching
    assert outcome.status == "gave_up"
    assert [type(each.cause) for each in outcome.outcomes[1:]] == [RunCancelledError, RunCancelledError]
    assert creates(server) == 1


async def test_a_timeout_is_for_all_parts_together(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=100.0))
    began = now()
    outcome = await client.watch(await held_back(client, 3), timeout=150.0)
    assert now() - began == pytest.approx(150.0, abs=2.0)
    assert [each.reason for each in outcome.outcomes] == [None, Reason.TIMEOUT, Reason.TIMEOUT]
    assert creates(server) == 2


async def test_leaving_cancels_if_asked(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=1000.0))
    group = await client.batches.create(requests=bodies(8), endpoint=ENDPOINT, max_enqueued_tokens=4 * ONE)
    watching = asyncio.create_task(client.watch(group, on_exit="cancel"))
    await asyncio.sleep(50.0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert [batch.status async for batch in client.batches.list()] == ["cancelled"]


async def test_a_batch_that_is_being_created_is_cancelled_too(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=50.0), BatchScenario(working=1000.0))
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", delay_after=3.0))
    watching = asyncio.create_task(client.watch(group, on_exit="cancel"))
    while creates(server) < 2:
        await asyncio.sleep(0.5)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await asyncio.sleep(10.0)
    assert [batch.status async for batch in client.batches.list()] == ["cancelled", "completed"]


async def test_leaving_leaves_batches_by_default(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=1000.0))
    group = await held_back(client, 2)
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(50.0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert [batch.status async for batch in client.batches.list()] == ["in_progress"]


async def test_a_bad_option_is_refused(client: Client) -> None:
    group = await held_back(client, 1)
    with pytest.raises(InvalidRequestError, match="no option 'patience'"):
        await client.watch(group, patience=3)  # type: ignore[call-overload]


# Files, values, options


async def test_input_files_are_deleted_when_every_request_is_answered(
    server: InMemoryTransport, client: Client
) -> None:
    def choose(request: BatchRequest) -> BatchScenario:
        return BatchScenario(failing={"request-3"})

    server.script_batches(choose)
    group = await client.batches.create(
        requests=bodies(6), endpoint=ENDPOINT, max_enqueued_tokens=2 * ONE, delete_input_files=True
    )
    outcome = await client.watch(group)
    left = {file.id async for file in client.files.list(purpose="batch")}
    assert [part.input_file_id in left for part in group.parts] == [False, True, False]
    assert (await outcome.reconcile(bodies(6))).failed == ("request-3",)


async def test_one_batch_whose_file_is_deleted_is_a_group(client: Client) -> None:
    group = await client.batches.create(requests=bodies(2), endpoint=ENDPOINT, delete_input_files=True)
    assert isinstance(group, BatchGroup)
    await client.watch(group)
    assert [file.id async for file in client.files.list(purpose="batch")] == []


async def test_a_file_that_cannot_be_deleted_harms_nothing(
    server: InMemoryTransport, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    group = await held_back(client, 2, delete_input_files=True)
    server.inject(Fault(on="delete_file", status=403, times=None))
    outcome = await client.watch(group)
    assert outcome.status == "completed"
    assert "could not be deleted" in caplog.text


async def test_observers_see_all_parts(client: Client) -> None:
    ended: list[str] = []
    outcome = await client.watch(await held_back(client, 3), on_terminal=lambda each: ended.append(each.ref.ids[0]))
    assert ended == [batch.id for batch in outcome.group.batches]


async def test_the_outcome_is_a_value(client: Client) -> None:
    outcome = await client.watch(await held_back(client, 2))
    twin: GroupOutcome = pickle.loads(pickle.dumps(outcome))
    assert twin.group == outcome.group
    assert twin.status == "completed"
    assert json.loads(outcome.to_json())["outcome"] == "GroupOutcome"
    assert repr(outcome) == "<GroupOutcome completed, 2 parts, 4 requests>"
    with pytest.raises(InvalidRequestError, match="unpickled"):
        [result async for result in twin.results()]


# Cancelling a group, and what only the list knows


async def test_a_cancel_finds_the_batches_that_a_watch_has_created_since(
    server: InMemoryTransport, client: Client
) -> None:
    server.script_batches(BatchScenario(working=100.0), BatchScenario(working=1000.0))
    group = await held_back(client, 3)
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(200.0)  # the second part runs
    cancelled = await client.batches.cancel(group)
    assert [None if batch is None else batch.status for batch in (part.batch for part in cancelled.parts)] == [
        "completed",
        "cancelling",
        None,
    ]
    outcome = await watching
    assert [batch.status async for batch in client.batches.list()] == ["cancelled", "completed"]
    assert isinstance(outcome.outcomes[2].cause, RunCancelledError)
    assert creates(server) == 2


async def test_nothing_of_a_cancelled_group_is_created(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 3)
    await asyncio.sleep(500.0)  # the first part has completed, so that none says that the group was cancelled
    await client.batches.cancel(group)
    outcome = await client.watch(group)
    assert creates(server) == 1
    assert [type(each.cause) for each in outcome.outcomes[1:]] == [RunCancelledError, RunCancelledError]
    assert "The group was cancelled" in str(outcome.outcomes[1].cause)


async def test_a_batch_that_is_being_created_when_its_group_is_cancelled_is_cancelled(
    server: InMemoryTransport, client: Client
) -> None:
    server.script_batches(BatchScenario(working=50.0), BatchScenario(working=1000.0))
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", delay_after=3.0))
    server.inject(Fault(on="batches", rewrite=lambda page: {**page, "data": []}, times=None))
    watching = asyncio.create_task(client.watch(group))
    while creates(server) < 2:
        await asyncio.sleep(0.5)
    await client.batches.cancel(group)  # the list does not show the second one yet
    await watching
    server.faults.clear()
    assert [batch.status async for batch in client.batches.list()] == ["cancelled", "completed"]


async def test_a_cancel_of_a_group_survives_a_list_that_fails(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=1000.0))
    group = await held_back(client, 2)
    server.inject(Fault(on="batches", status=403, times=1))
    with pytest.raises(PermissionDeniedError):
        await client.batches.cancel(group)
    assert [batch.status async for batch in client.batches.list()] == ["cancelling"]
    with pytest.raises(InvalidRequestError, match="with_raw_response"):
        await client.batches.with_raw_response.cancel(group)


async def test_a_part_whose_batch_cannot_be_found_is_not_created_again(
    server: InMemoryTransport, client: Client
) -> None:
    group = await held_back(client, 3)
    server.inject(Fault(on="batches", status=404, times=None))
    server.inject(Fault(on="create_batch", drop=True, acts=True, times=1))
    outcome = await client.watch(group)
    server.faults.clear()
    assert len([batch async for batch in client.batches.list()]) == 3  # one for each part
    first, second, third = outcome.outcomes
    assert isinstance(second, GaveUp)
    assert second.reason is Reason.NOT_CREATED
    assert isinstance(second.cause, APIConnectionError)
    assert isinstance(first, Completed)
    assert isinstance(third, Completed)


async def test_a_list_that_is_not_newest_first_is_read_to_its_end(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=100.0))
    await client.batches.create(requests=bodies(1), endpoint=ENDPOINT)
    await asyncio.sleep(500.0)
    group = await held_back(client, 2)
    server.inject(Fault(on="batches", rewrite=lambda page: {**page, "data": page["data"][::-1]}, times=None))
    watching = asyncio.create_task(client.watch(group))
    await asyncio.sleep(150.0)
    watching.cancel()
    outcome = await client.watch(BatchGroup.of(group.to_dict()))
    assert outcome.status == "completed"
    assert creates(server) == 3


async def test_a_list_is_read_back_to_the_group_and_no_further(server: InMemoryTransport, client: Client) -> None:
    for _ in range(250):
        await client.batches.create(input_file_id=await uploaded(client), endpoint=ENDPOINT)
        await asyncio.sleep(60.0)
    await client.watch(await held_back(client, 2))
    assert sum(request.operation == "batches" for request in server.requests) == 1


async def test_an_outage_of_creates_does_not_wait_for_another_part(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=36_000.0), BatchScenario())
    group = await held_back(client, 3)
    group = BatchGroup.of({**group.to_dict(), "max_enqueued_tokens": None})
    server.inject(Fault(on="create_batch", status=503, times=3))
    outcome = await client.watch(group)
    assert outcome.status == "completed"
    times = [epoch_seconds(batch.created_at) or 0.0 for batch in outcome.group.batches]
    assert times[1] - times[0] < 200


async def test_a_spent_quota_does_not_pass(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", status=429, code="insufficient_quota", times=None))
    began = now()
    outcome = await client.watch(group)
    assert outcome.outcomes[1].reason is Reason.NOT_CREATED
    assert creates(server) == 2
    assert now() - began < 100


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (APIConnectionError("", sent=False, passes=False), False),
        (APIConnectionError("", sent=False), True),
        (InvalidRequestError(""), False),
    ],
)
def test_which_errors_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


async def test_a_group_watched_again_reports_no_old_status(client: Client) -> None:
    group = await held_back(client, 1)
    await asyncio.sleep(500.0)
    seen: list[str] = []
    await client.watch(group, on_status=lambda change: seen.append(change.status))
    assert "validating" not in seen


# What cannot be read


async def test_answered_parts_need_no_input_file(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(failing={"request-3"}))
    outcome = await client.watch(await held_back(client, 3, delete_input_files=True))
    assert [custom_id async for custom_id, _ in outcome.unanswered()] == ["request-3"]


async def test_a_watch_again_deletes_no_file_twice(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    outcome = await client.watch(await held_back(client, 1, delete_input_files=True))
    await client.watch(outcome.group)
    assert caplog.text == ""


async def test_a_result_that_the_server_lost_does_not_hide_the_other_parts(
    server: InMemoryTransport, client: Client
) -> None:
    server.script_batches(BatchScenario(lost={"request-1"}, failing={"request-3"}))
    outcome = await client.watch(await held_back(client, 2, delete_input_files=True))
    found: list[str] = []
    with pytest.raises(NotFoundError, match="pass the requests"):
        async for custom_id, _ in outcome.unanswered():
            found.append(custom_id)
    assert found == ["request-3"]


async def test_a_part_that_has_not_ended_does_not_hide_the_others(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=10_000.0), BatchScenario())
    group = await held_back(client, 2)
    outcome = await client.watch(BatchGroup.of({**group.to_dict(), "max_enqueued_tokens": None}), timeout=500.0)
    found: list[str] = []
    with pytest.raises(InvalidRequestError, match="watch it first"):
        async for result in outcome.results():
            found.append(result.custom_id)
    assert found == ["request-3", "request-4"]
    assert (await outcome.reconcile(bodies(4))).missing == ("request-1", "request-2")
    with pytest.raises(InvalidRequestError, match="unpickled"):
        await pickle.loads(pickle.dumps(outcome)).reconcile(bodies(4))


# Parts that may have been created


async def test_a_create_whose_answer_was_lost_is_not_repeated_by_a_watch(
    server: InMemoryTransport, client: Client
) -> None:
    server.inject(Fault(on="batches", status=404, times=None))
    server.inject(Fault(on="create_batch", drop=True, acts=True))
    with pytest.raises(BatchGroupError) as raised:
        await client.batches.create(requests=bodies(2), endpoint=ENDPOINT, delete_input_files=True)
    assert raised.value.group.parts[0].is_unsure
    outcome = await client.watch(raised.value.group)
    assert creates(server) == 1
    assert outcome.outcomes[0].reason is Reason.NOT_CREATED


async def test_a_part_that_may_exist_is_not_created_by_another_watch(server: InMemoryTransport, client: Client) -> None:
    group = await held_back(client, 2)
    server.inject(Fault(on="batches", status=404, times=None))
    server.inject(Fault(on="create_batch", drop=True, acts=True))
    first = await client.watch(group)
    again = await client.watch(BatchGroup.of(first.group.to_dict()))
    assert creates(server) == 2
    assert [each.outcomes[1].reason for each in (first, again)] == [Reason.NOT_CREATED] * 2
    assert again.group.parts[1].error == first.group.parts[1].error != ""
    server.faults.clear()
    last = await client.watch(again.group)  # the list shows it
    assert last.status == "completed"
    assert not last.group.parts[1].is_unsure
    assert creates(server) == 2


async def test_a_part_that_may_exist_stays_so_if_the_list_is_refused(server: InMemoryTransport, client: Client) -> None:
    group = with_part(await held_back(client, 2), 1, error="lost", is_unsure=True)
    server.inject(Fault(on="batches", status=403, times=None))
    outcome = await client.watch(group)
    assert creates(server) == 1
    assert outcome.group.parts[1] == group.parts[1]


async def test_a_part_that_certainly_does_not_exist_is_created(server: InMemoryTransport, client: Client) -> None:
    group = with_part(await held_back(client, 2), 1, error="lost", is_unsure=True)
    outcome = await client.watch(group)
    assert outcome.status == "completed"
    assert creates(server) == 2


async def test_requests_that_may_be_running_are_not_asked_again(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(failing={"request-1", "request-5"}))
    group = await held_back(client, 3)
    server.inject(Fault(on="batches", status=404, times=None))
    server.inject(Fault(on="create_batch", drop=True, acts=True))
    outcome = await client.watch(group)
    for requests in (None, bodies(6)):
        found: list[str] = []
        with pytest.raises(InvalidRequestError, match="may be running"):
            async for custom_id, _ in outcome.unanswered(requests):
                found.append(custom_id)
        assert found == ["request-1", "request-5"]


# Cancelling, and holding


async def test_a_batch_whose_cancel_fails_is_watched(
    server: InMemoryTransport, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server.script_batches(BatchScenario(working=50.0), BatchScenario(working=1000.0))
    group = await held_back(client, 2)
    server.inject(Fault(on="create_batch", delay_after=3.0))
    server.inject(Fault(on="batches", rewrite=lambda page: {**page, "data": []}, times=None))
    watching = asyncio.create_task(client.watch(group))
    while creates(server) < 2:
        await asyncio.sleep(0.5)
    await client.batches.cancel(group)
    server.inject(Fault(on="cancel", status=500, times=None))
    outcome = await watching
    assert isinstance(outcome.outcomes[1], Completed)
    assert f"The batch {outcome.outcomes[1].run.id} was created while" in caplog.text


async def test_a_cancel_of_a_group_returns_the_newest_batches(server: InMemoryTransport, client: Client) -> None:
    full = BatchScenario(end="failed", working=5.0, errors=[{"code": "token_limit_exceeded", "message": "m"}])
    server.script_batches(BatchScenario(working=10.0), full, BatchScenario(working=3000.0))
    outcome = await client.watch(await held_back(client, 2), timeout=400.0)
    newest = outcome.group.batches[1]

    def older(page: dict[str, Any]) -> dict[str, Any]:
        return {**page, "data": [each for each in page["data"] if each["id"] != newest.id]}

    for is_late in (False, True):
        if is_late:
            server.inject(Fault(on="batches", rewrite=older))
        cancelled = await client.batches.cancel(outcome.group)
        assert [batch.id for batch in cancelled.batches] == [batch.id for batch in outcome.group.batches]
        assert cancelled.batches[1].status in ("cancelling", "cancelled", newest.status)


async def test_a_cancel_leaves_a_part_unsure_whose_newest_batch_is_not_found(
    server: InMemoryTransport, client: Client
) -> None:
    group = await held_back(client, 2)
    group = with_part(group, 0, batch=group.parts[0].batch, is_unsure=True)
    assert (await client.batches.cancel(group)).parts[0].is_unsure
    found = with_part(group, 0, is_unsure=True)
    assert not (await client.batches.cancel(found)).parts[0].is_unsure


async def test_a_full_queue_does_not_lengthen_a_pause(server: InMemoryTransport, client: Client) -> None:
    full = BatchScenario(validating=20.0, end="failed", errors=[{"code": "token_limit_exceeded", "message": "m"}])
    server.script_batches(BatchScenario(working=36_000.0), full, BatchScenario())
    group = await held_back(client, 3)
    group = BatchGroup.of({**group.to_dict(), "max_enqueued_tokens": None})
    server.inject(Fault(on="create_batch", skip=1, status=503, times=3))
    outcome = await client.watch(group)
    times = [epoch_seconds(batch.created_at) or 0.0 for batch in outcome.group.batches]
    assert outcome.status == "completed"
    assert max(times) - times[0] < 200


async def test_requests_of_a_group_that_are_none_are_refused_before_anything_is_read(
    server: InMemoryTransport, client: Client
) -> None:
    outcome = await client.watch(await held_back(client, 2))
    group = with_part(outcome.group, 1, is_unsure=True)
    reads = len(server.requests)
    for each in (outcome, GroupOutcome(group=group, outcomes=outcome.outcomes)):
        with pytest.raises(InvalidRequestError, match="Expected an iterable of requests"):
            [request async for request in each.unanswered("abc")]
    assert len(server.requests) == reads
