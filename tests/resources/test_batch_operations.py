"""`client.batches` and `client.message_batches`: what is sent, and creates whose answers are lost or come too early."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from asyncruns import (
    APIConnectionError,
    APIError,
    BadRequestError,
    Client,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
)
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources import NONCE_KEY
from asyncruns.wire import Batch, DeletedMessageBatch, MessageBatch


def answer(body: Any, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(body).encode())


class Batches(Transport):
    """Creates and lists batches; `faults` answer the first creates, each after the create if it says so."""

    def __init__(self, *faults: Callable[[], Response] | Exception, after: bool = True, lag: float = 0.0) -> None:
        self.faults = list(faults)
        self.after = after
        self.lag = lag
        self.made: list[tuple[float, dict[str, Any]]] = []
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        await anyio.sleep(0.01)
        if request.method == "POST" and request.path == "/batches":
            fault = self.faults.pop(0) if self.faults else None
            made = {"id": f"batch_{len(self.made)}", "object": "batch", "status": "validating", "created_at": 100}
            made |= json.loads(request.body or b"")
            if fault is None or self.after:
                self.made.insert(0, (anyio.current_time(), made))
            if isinstance(fault, Exception):
                raise fault
            return answer(made) if fault is None else fault()
        shown = [made for at, made in self.made if at + self.lag <= anyio.current_time()]
        if request.path == "/batches":
            return answer({"object": "list", "data": shown, "has_more": False})
        return answer(next(made for made in shown if request.path.endswith(f"/{made['id']}")))

    async def aclose(self) -> None:
        pass

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.body or b"") for request in self.requests if request.method == "POST"]


def lost() -> APIConnectionError:
    return APIConnectionError("dropped", sent=True)


async def create(server: Transport, **more: Any) -> Batch:
    return await Client(transport=server).batches.create(input_file_id="file_1", endpoint="/v1/responses", **more)


async def test_a_create_sends_what_was_given_and_a_nonce() -> None:
    server = Batches()
    batch = await create(server, metadata={"a": "b"}, output_expires_after={"anchor": "created_at", "seconds": 3600})
    (body,) = server.bodies
    assert body == {
        "input_file_id": "file_1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"a": "b", NONCE_KEY: body["metadata"][NONCE_KEY]},
        "output_expires_after": {"anchor": "created_at", "seconds": 3600},
    }
    assert batch.id == "batch_0"


@pytest.mark.parametrize("raw", [False, True])
async def test_a_batch_whose_answer_was_lost_is_adopted(raw: bool) -> None:
    server = Batches(lost(), lag=2.0)
    other = {"id": "batch_x", "status": "completed", "created_at": 100, "metadata": {NONCE_KEY: "of another"}}
    server.made.append((0.0, other))
    client = Client(transport=server)
    batches: Any = client.batches.with_raw_response if raw else client.batches
    found = await batches.create(input_file_id="file_1", endpoint="/v1/responses")
    assert (found.parse() if raw else found).id == "batch_1"
    assert len(server.bodies) == 1
    listed = next(request for request in server.requests if request.method == "GET")
    assert listed.query == (("limit", "100"),), "the list of batches has no `order`"


async def test_a_batch_that_was_not_created_is_created_again_with_the_same_nonce() -> None:
    server = Batches(lost(), after=False)
    began = anyio.current_time()
    assert (await create(server)).id == "batch_0"
    first, second = server.bodies
    assert first == second
    assert anyio.current_time() - began >= 5.0


async def test_without_room_for_a_nonce_a_lost_answer_is_an_error() -> None:
    server = Batches(lost())
    with pytest.raises(APIConnectionError, match=r"It may have been created.*metadata is full"):
        await create(server, metadata={f"key_{n}": "x" for n in range(16)})
    assert len(server.bodies) == 1
    server = Batches(lost())
    with pytest.raises(APIConnectionError, match="It may have been created"):
        await create(server, extra_body={"metadata": {"a": "b"}})
    assert server.bodies[0]["metadata"] == {"a": "b"}


def not_found(status: int = 404) -> Callable[[], Response]:
    return lambda: answer({"error": {"message": "Cannot find file file_1."}}, status)


@pytest.mark.parametrize("status", [400, 404])
async def test_a_file_that_was_just_uploaded_gets_time(status: int) -> None:
    server = Batches(*[not_found(status)] * 3, after=False)
    assert (await create(server)).id == "batch_0"
    assert len({json.dumps(body) for body in server.bodies}) == 1


async def test_a_file_that_is_gone_is_an_error_after_ten_seconds() -> None:
    server = Batches(*[not_found()] * 50, after=False)
    began = anyio.current_time()
    with pytest.raises(NotFoundError, match="Cannot find file file_1"):
        await create(server)
    assert 8.0 < anyio.current_time() - began <= 10.5
    assert len(server.bodies) < 9


async def test_another_refusal_is_raised_at_once() -> None:
    server = Batches(lambda: answer({"error": {"message": "Invalid endpoint"}}, 400), after=False)
    with pytest.raises(BadRequestError):
        await create(server)
    assert len(server.bodies) == 1


class OneAnswer(Transport):
    """Answers each request from a list."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    async def aclose(self) -> None:
        pass


MESSAGE_BATCH = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
REQUESTS = [{"custom_id": f"r-{n}", "params": {"model": "m", "max_tokens": 1, "messages": []}} for n in range(3)]


async def test_the_operations_of_batches() -> None:
    body = {"id": "batch_1", "object": "batch", "status": "in_progress"}
    server = OneAnswer(answer(body), answer(body), answer({"data": [body], "has_more": True}))
    batches = Client(transport=server).batches
    assert (await batches.retrieve("batch_1")).status == "in_progress"
    await batches.cancel("batch_1")
    page = await batches.list(after="batch_0", limit=1)
    assert page.has_more
    assert [(request.method, request.path, request.query) for request in server.requests] == [
        ("GET", "/batches/batch_1", ()),
        ("POST", "/batches/batch_1/cancel", ()),
        ("GET", "/batches", (("after", "batch_0"), ("limit", "1"))),
    ]


async def test_the_operations_of_message_batches() -> None:
    deleted = {"id": "msgbatch_1", "type": "message_batch_deleted"}
    server = OneAnswer(*[answer(MESSAGE_BATCH)] * 3, answer(deleted))
    batches = Client(transport=server).message_batches
    assert isinstance(await batches.create(requests=iter(REQUESTS)), MessageBatch)
    await batches.retrieve("msgbatch_1")
    await batches.cancel("msgbatch_1")
    assert isinstance(await batches.delete("msgbatch_1"), DeletedMessageBatch)
    assert [(request.method, request.path) for request in server.requests] == [
        ("POST", "/messages/batches"),
        ("GET", "/messages/batches/msgbatch_1"),
        ("POST", "/messages/batches/msgbatch_1/cancel"),
        ("DELETE", "/messages/batches/msgbatch_1"),
    ]
    assert json.loads(server.requests[0].body or b"") == {"requests": REQUESTS}


async def test_message_batches_are_listed_page_by_page() -> None:
    def page(*numbers: int, has_more: bool) -> Response:
        ids = [f"msgbatch_{number}" for number in numbers]
        data = [MESSAGE_BATCH | {"id": id_} for id_ in ids]
        return answer({"data": data, "has_more": has_more, "first_id": ids[0], "last_id": ids[-1]})

    server = OneAnswer(page(4, 3, has_more=True), page(2, has_more=False), page(9, 8, has_more=True))
    batches = Client(transport=server).message_batches
    assert [batch.id async for batch in batches.list(limit=1000)] == ["msgbatch_4", "msgbatch_3", "msgbatch_2"]
    assert server.requests[1].query == (("after_id", "msgbatch_3"), ("limit", "1000"))
    assert len([batch async for batch in batches.list(before_id="msgbatch_4")]) == 2, "only one page"
    with pytest.raises(InvalidRequestError, match="limit: 1 to 1000 is allowed"):
        await batches.list(limit=1001)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "There are no requests"),
        ("text", "Expected an iterable of requests; got str"),
        ([{"custom_id": "a"}], "Request 1 must be a mapping with custom_id and params"),
        ([*REQUESTS, {"params": {}}], "Request 4 must be a mapping with custom_id and params"),
        ([*REQUESTS, REQUESTS[1]], "Request 4 has the same custom_id 'r-1' as request 2"),
        ([{"custom_id": "a" * 5000, "params": {}}] * 2, r"custom_id 'a{80}\.\.\.' as request 1"),
        ([*REQUESTS, {"custom_id": "a", "params": {"x": object()}}], "Request 4 can't be written as JSON"),
        ([*REQUESTS, {"custom_id": "a", "params": {"x": math.inf}}], "Request 4 can't be written as JSON"),
        ([*REQUESTS, {"custom_id": "a", "params": {"x": "\ud800"}}], "Request 4 can't be written as JSON"),
    ],
)
async def test_wrong_requests_are_refused_before_anything_is_sent(requests: Any, message: str) -> None:
    server = OneAnswer()
    with pytest.raises(InvalidRequestError, match=message):
        await Client(transport=server).message_batches.create(requests=requests)
    assert server.requests == []


async def test_a_message_batch_whose_answer_was_lost_may_exist() -> None:
    server = OneAnswer(lost())
    with pytest.raises(APIError, match=r"may have been created: it keeps no metadata.*message_batches.list\(\)"):
        await Client(transport=server).message_batches.create(requests=REQUESTS)
    assert len(server.requests) == 1
    server = OneAnswer(answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529))
    with pytest.raises(InternalServerError, match="Overloaded"):
        await Client(transport=server, max_retries=0).message_batches.create(requests=REQUESTS)
