"""Creates whose answers get lost: adopted, created again, or left alone, and never made twice."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from lossy import ACTED_AND_LOST, LOST, Fault, Faulty, answer, dropped, fail, faulty_client, late, pass_on

from asyncruns import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    Client,
    ThreadBusyError,
)
from asyncruns.http import Request
from asyncruns.resources import NONCE_KEY, RawResponse
from asyncruns.resources.lost import find, with_nonce
from asyncruns.testing import Emulator, Scenario
from asyncruns.wire import Run

RUNS = "POST /threads/*/runs"
LISTED = "GET /threads/*/runs"
MESSAGES = "POST /threads/*/messages"
NEVER = Scenario(end="never")


@dataclass
class Stage:
    """A thread at the emulator, and a client whose answers get lost."""

    emulator: Emulator
    client: Client
    faulty: Faulty
    thread_id: str

    async def create(self, **more: Any) -> Run:
        given: dict[str, Any] = {"assistant_id": "asst_1", "adopt": True, **more}
        return await self.client.threads.runs.create(self.thread_id, **given)

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        return list(self.emulator.runs.values())


@pytest.fixture
async def stage(emulator: Emulator) -> AsyncIterator[Stage]:
    emulator.script(NEVER, assistant_id="asst_1")
    emulator.script(Scenario(working=30.0), assistant_id="asst_other")
    client, faulty = faulty_client(emulator)
    async with client:
        yield Stage(emulator, client, faulty, (await client.threads.create()).id)


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
async def test_a_run_that_is_surely_not_there_is_created_again_with_the_same_bytes(stage: Stage, fault: Fault) -> None:
    stage.faulty.faults[RUNS] = [fault, fault]
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    first, second, third = stage.faulty.bodies(RUNS)
    assert first == second == third
    times = stage.faulty.times(RUNS)
    assert min(times[1] - times[0], times[2] - times[1]) >= 5.0
    assert len(stage.faulty.times(LISTED)) < 24


async def test_a_run_is_not_created_for_ever(stage: Stage) -> None:
    stage.faulty.lasting[RUNS] = LOST
    with pytest.raises(APIConnectionError, match=r"Dropped\. It is not listed, after any of 3 tries\.$"):
        await stage.create()
    assert len(stage.faulty.times(RUNS)) == 3


async def test_a_run_that_shows_late_is_adopted(stage: Stage) -> None:
    until = anyio.current_time() + 3.0

    def lag(request: Request, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "data": []} if "data" in body and anyio.current_time() < until else body

    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lag
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 1
    assert 3.0 <= anyio.current_time() - until + 3.0 < 5.0


async def test_a_thread_held_by_our_own_lost_run_gives_it(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lambda request, body: {**body, "data": []} if "data" in body else body
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]
    assert len(stage.faulty.times(RUNS)) == 2


async def another_run(stage: Stage, **more: Any) -> None:
    """Have another client start a run, while ours is on its way for the second time."""

    async def slip_in(inner: Any, request: Request) -> Any:
        given: dict[str, Any] = {"assistant_id": "asst_other", **more}
        await stage.client.threads.runs.create(stage.thread_id, **given)
        return await inner.send(request)

    stage.faulty.faults[RUNS] = [LOST, slip_in]


async def test_a_thread_held_by_another_run_is_busy(stage: Stage) -> None:
    await another_run(stage)
    with pytest.raises(ThreadBusyError) as caught:
        await stage.create()
    assert [caught.value.active_run_id] == [made["id"] for made in stage.runs]


async def test_a_thread_held_by_another_run_is_waited_for(stage: Stage) -> None:
    await another_run(stage, assistant_id="asst_other", metadata={"of": "another"})
    run = await stage.create(on_busy="wait")
    other, ours = stage.runs
    assert (other["status"], other["assistant_id"]) == ("completed", "asst_other")
    assert run.id == ours["id"]


async def test_a_run_of_that_time_without_metadata_is_not_taken_for_another(stage: Stage) -> None:
    await another_run(stage, assistant_id="asst_1")
    with pytest.raises(
        APIConnectionError, match=r"may be it, but shows no metadata\)\. Look through GET /threads/"
    ) as e:
        await stage.create(on_busy="wait")
    assert stage.runs[0]["id"] in str(e.value)


async def test_a_server_that_strips_metadata_gets_no_second_create(stage: Stage) -> None:
    stage.faulty.strips = True
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match="It may have been created"):
        await stage.create()
    assert len(stage.faulty.times(RUNS)) == len(stage.runs) == 1


async def test_old_runs_without_metadata_are_in_nobodys_way(stage: Stage) -> None:
    stage.faulty.strips = True
    old = await stage.client.threads.runs.create(stage.thread_id, assistant_id="asst_1")
    await stage.client.threads.runs.cancel(old.id, thread_id=stage.thread_id)
    await anyio.sleep(10.0)
    stage.faulty.faults[RUNS] = [LOST]
    run = await stage.create()
    assert [made["id"] for made in stage.runs] == [old.id, run.id]


async def test_a_list_that_fails_for_some_seconds_is_asked_again(stage: Stage) -> None:
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
async def test_where_the_list_does_not_answer_nothing_is_created_again(
    stage: Stage, fault: Fault, seconds: float
) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.lasting[LISTED] = fault
    start = anyio.current_time()
    with pytest.raises(
        APIConnectionError, match=r"^Dropped\. It may have been created \(the list gives no answer: "
    ) as e:
        await stage.create()
    assert isinstance(e.value.__cause__, APIError)
    assert len(stage.faulty.times(RUNS)) == 1
    assert anyio.current_time() - start <= seconds


async def test_a_list_that_hangs_is_asked_again(stage: Stage) -> None:
    async def hang(inner: Any, request: Request) -> Any:
        await anyio.sleep_forever()

    stage.faulty.faults = {RUNS: [ACTED_AND_LOST], LISTED: [hang]}
    run = await stage.create()
    assert [run.id] == [made["id"] for made in stage.runs]


async def test_a_holder_that_can_not_be_looked_at_leaves_it_open(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.show = lambda request, body: {**body, "data": []} if "data" in body else body
    stage.faulty.lasting["GET /threads/*/runs/*"] = answer(403)
    with pytest.raises(APIConnectionError, match=r"can't be looked at: .* answered 403"):
        await stage.create()
    assert len(stage.runs) == 1


@pytest.mark.parametrize(
    "more",
    [{"metadata": {f"key_{n}": "x" for n in range(16)}}, {"extra_body": {"metadata": {"a": "b"}}}],
    ids=["16 pairs", "extra_body"],
)
async def test_without_room_for_a_nonce_the_error_says_what_to_look_for(stage: Stage, more: Any) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(
        APIConnectionError, match=r"may have been created \(nothing marks it.* GET /threads/thread_\w+/runs"
    ):
        await stage.create(**more)
    assert [kind for _, kind, _ in stage.faulty.asked] == ["POST /threads", RUNS]
    assert NONCE_KEY not in stage.runs[0]["metadata"]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 302])
async def test_what_was_refused_is_not_looked_for(stage: Stage, status: int) -> None:
    stage.faulty.faults[RUNS] = [answer(status)]
    with pytest.raises(APIStatusError) as caught:
        await stage.create()
    assert caught.value.status == status
    assert len(stage.faulty.asked) == 2


async def test_it_is_only_done_where_it_is_asked_for(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match=r"^Dropped\.$"):
        await stage.create(adopt=False)
    assert len(stage.faulty.asked) == 2
    assert stage.runs[0]["metadata"] == {}


@pytest.mark.parametrize("seconds", [0.1, 1.0, 4.0])
async def test_cancelling_stops_the_looks_and_creates_nothing(stage: Stage, seconds: float) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await stage.create()
    asked = len(stage.faulty.asked)
    await anyio.sleep(20.0)
    assert len(stage.faulty.asked) == asked
    assert stage.runs == []


@pytest.mark.parametrize("fault", [ACTED_AND_LOST, answer(200, b"<html>", after=pass_on)])
async def test_the_raw_twin_gives_the_answer_of_a_look(stage: Stage, fault: Fault) -> None:
    stage.faulty.faults = {RUNS: [fault], "GET /threads/*/runs/*": [answer(404), answer(500)]}
    raw = await stage.client.threads.runs.with_raw_response.create(stage.thread_id, assistant_id="asst_1", adopt=True)
    assert type(raw) is RawResponse
    assert [raw.parse().id] == [made["id"] for made in stage.runs]


async def test_the_raw_twin_says_so_when_it_can_not_read_what_was_found(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    stage.faulty.lasting["GET /threads/*/runs/*"] = answer(403)
    with pytest.raises(APIConnectionError, match=r"It was created, as run_\w+, which can't be read: "):
        await stage.client.threads.runs.with_raw_response.create(stage.thread_id, assistant_id="asst_1", adopt=True)


async def test_the_looks_are_sent_with_the_options_of_the_call(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [ACTED_AND_LOST]
    await stage.create(extra_headers={"x-tenant": "7"}, extra_query={"api-version": "v1"}, request_timeout=5)
    (look,) = [request for _, kind, request in stage.faulty.asked if kind == LISTED]
    assert (look.headers, look.timeout) == ((("x-tenant", "7"),), 5)
    assert dict(look.query) == {"limit": "100", "order": "desc", "api-version": "v1"}


async def test_tools_that_can_be_iterated_over_once_are_sent_each_time(stage: Stage) -> None:
    stage.faulty.faults[RUNS] = [LOST]
    await stage.create(tools=iter([{"type": "code_interpreter"}]))
    assert [body["tools"] for body in stage.faulty.bodies(RUNS)] == [[{"type": "code_interpreter"}]] * 2


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_gets_lost_no_run_is_created_twice(stage: Stage, seed: int) -> None:
    rng = random.Random(seed)
    creates = [LOST, ACTED_AND_LOST, answer(500), answer(502, after=pass_on), answer(200, b"", after=pass_on), pass_on]
    looks = [LOST, answer(503), answer(404), answer(200, b"<html>"), pass_on]
    shows_from = anyio.current_time() + rng.choice([0.0, 3.0, 7.0, 1000.0])
    stage.faulty.strips = rng.random() < 0.2
    stage.faulty.faults = {RUNS: rng.choices(creates, k=3), LISTED: rng.choices(looks, k=rng.randrange(12))}

    def lag(request: Request, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "data": []} if "data" in body and anyio.current_time() < shows_from else body

    stage.faulty.show = lag
    result = (await asyncio.gather(stage.create(), return_exceptions=True))[0]
    if isinstance(result, Run):
        assert [result.id] == [made["id"] for made in stage.runs]
    else:
        assert isinstance(result, APIError)
        assert len(stage.runs) <= 1
        # What is there after all is not denied.
        assert not stage.runs or re.search(r"may have been created|is not listed", str(result))


# Messages


async def test_a_message_whose_answer_was_lost_is_adopted(stage: Stage) -> None:
    stage.faulty.faults[MESSAGES] = [ACTED_AND_LOST]
    message = await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    assert message.text == "Hi"
    assert [found.id async for found in stage.client.threads.messages.list(stage.thread_id)] == [message.id]


async def test_a_message_that_is_not_there_is_created_again(stage: Stage) -> None:
    await stage.client.threads.messages.create(stage.thread_id, content="Hi")
    await anyio.sleep(10.0)
    stage.faulty.faults[MESSAGES] = [LOST]
    message = await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    found = [found.id async for found in stage.client.threads.messages.list(stage.thread_id)]
    assert (len(found), found[0]) == (2, message.id)


async def test_a_message_may_be_one_that_lost_its_metadata(stage: Stage) -> None:
    stage.faulty.strips = True
    stage.faulty.faults[MESSAGES] = [ACTED_AND_LOST]
    with pytest.raises(APIConnectionError, match=r"msg_\w+ may be it"):
        await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)
    assert len(stage.faulty.times(MESSAGES)) == 1


async def test_a_message_to_a_thread_that_is_held_after_a_lost_answer_is_refused(stage: Stage) -> None:
    await another_run(stage)
    stage.faulty.faults = {MESSAGES: [LOST, *stage.faulty.faults[RUNS][1:]]}
    with pytest.raises(ThreadBusyError):
        await stage.client.threads.messages.create(stage.thread_id, content="Hi", adopt=True)


# Client.run


async def test_run_survives_the_loss_of_every_answer(stage: Stage, emulator: Emulator) -> None:
    emulator.script(Scenario(answer="Hello."), assistant_id="asst_1")
    stage.faulty.faults = {"POST /threads": [ACTED_AND_LOST], RUNS: [ACTED_AND_LOST]}
    outcome = await stage.client.run(
        assistant_id="asst_1", message=iter([{"type": "text", "text": "Hi"}]), parameters={"metadata": {"a": "b"}}
    )
    assert await outcome.text() == "Hello."
    (made,) = stage.runs
    assert made["metadata"]["a"] == "b"
    thread_id = outcome.unwrap().thread_id
    stage.faulty.faults = {MESSAGES: [ACTED_AND_LOST], RUNS: [ACTED_AND_LOST]}
    outcome = await stage.client.run(assistant_id="asst_1", message="More", thread_id=thread_id)
    assert await outcome.text() == "Hello."
    said = [message.role async for message in stage.client.threads.messages.list(thread_id)]
    assert said == ["assistant", "user"] * 2
    assert len(stage.runs) == 2


async def test_run_gives_up_on_a_thread_that_is_lost_twice(stage: Stage) -> None:
    stage.faulty.faults["POST /threads"] = [LOST, fail(late), LOST]
    with pytest.raises(APITimeoutError):
        await stage.client.run(assistant_id="asst_1", message="Hi")
    stage.faulty.faults["POST /threads"] = [answer(400)]
    with pytest.raises(BadRequestError):
        await stage.client.run(assistant_id="asst_1", message="Hi")
    assert stage.runs == []


async def test_run_without_adoption_sends_nothing_of_ours(stage: Stage) -> None:
    await stage.client.run(assistant_id="asst_other", message="Hi", thread_id=stage.thread_id, adopt=False)
    assert [*stage.faulty.bodies(MESSAGES), *stage.faulty.bodies(RUNS)] == [
        {"role": "user", "content": "Hi"},
        {"assistant_id": "asst_other"},
    ]
    stage.faulty.faults["POST /threads"] = [LOST]
    with pytest.raises(APIConnectionError):
        await stage.client.run(assistant_id="asst_other", message="Hi", adopt=False)


# Decisions


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}, {NONCE_KEY: "of another"}])
def test_a_nonce_is_put_beside_what_there_is(metadata: Any) -> None:
    given, nonce = with_nonce(metadata, 16)
    assert nonce is not None
    assert given == {**(metadata or {}), NONCE_KEY: nonce}
    assert with_nonce(metadata, 16)[1] != nonce


def test_a_nonce_of_another_makes_room_for_ours() -> None:
    full = {f"key_{n}": "x" for n in range(15)}
    assert with_nonce({**full, NONCE_KEY: "of another"}, 16)[1] is not None
    assert with_nonce({**full, "last": "x"}, 16)[1] is None
    assert with_nonce("no metadata", 16) == ("no metadata", None)


@pytest.mark.parametrize(
    ("metadata", "created_at", "found"),
    [
        ({NONCE_KEY: "ours"}, 1.0, "ours"),
        ({NONCE_KEY: "theirs"}, 1000.0, None),
        ({"a": "b"}, 1000.0, None),
        ({}, 1000.0, "maybe"),
        (None, 995.0, "maybe"),
        (None, 1e6, "maybe"),
        (None, 994.0, None),
        (None, None, "maybe"),
    ],
)
def test_what_an_item_says_of_ours(metadata: Any, created_at: float | None, found: str | None) -> None:
    run = Run(id="run_1", status="queued", metadata=metadata, created_at=created_at)
    finding = find([run], "ours", lambda item: True, 1000.0)
    assert (finding.ours, finding.maybe) == (run if found == "ours" else None, run if found == "maybe" else None)
    assert find([run], "ours", lambda item: False, 1000.0).maybe is None
    kept = Run(id="run_2", status="queued", metadata={"a": "b"})
    assert find([run, kept], "ours", lambda item: True, 1000.0).maybe is None


def test_without_a_clock_every_item_may_be_new() -> None:
    run = Run(id="run_1", status="queued", created_at=1.0)
    assert find([run], "ours", lambda item: True, None).maybe is run
