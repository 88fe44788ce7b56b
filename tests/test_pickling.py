"""Errors, outcomes and events can be pickled and copied; objects of a connection are left out or replaced."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from asyncruns import (
    APIConnectionError,
    APIError,
    AsyncRunsError,
    BatchGroup,
    BatchPart,
    BearerAuth,
    Client,
    Completed,
    Connectivity,
    ConnectivityChanged,
    Ended,
    Failed,
    Fleet,
    InvalidRequestError,
    NotFoundError,
    Reason,
    RunError,
    RunFailedError,
    RunRef,
    RunWatcher,
    WatchGaveUpError,
    errors,
)
from asyncruns.abc import Transport
from asyncruns.errors import CallNotAnsweredError, ForeignError, ThreadBusyError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import CancelRefused, Phase, RunFault, StatusChanged, StreamBroken
from asyncruns.lifecycle.values import Call
from asyncruns.testing import Emulator, InMemoryTransport, Scenario
from asyncruns.watch.outcome import GaveUp, Outcome
from asyncruns.wire import ModelResponse, Run, decode

KEY: Final = "sk-hidden-0123456789"
CALL: Final = Call(id="call_1", name="f", arguments="{}")
RUN: Final = decode(b'{"id":"run_1","status":"failed","thread_id":"thread_1"}', Run)

Twin = Callable[[Any], Any]


def _pickled(protocol: int, value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


TWINS: Final[dict[str, Twin]] = {
    **{f"protocol {protocol}": partial(_pickled, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> Twin:
    return TWINS[request.param]


def outcome(kind: type[Outcome[Any]] = Failed, **fields: Any) -> Any:
    given: dict[str, Any] = {
        "ref": RunRef("thread.run", ("thread_1", "run_1")),
        "refs": (RunRef("thread.run", ("thread_1", "run_1")),),
        "status": "failed",
        "run": RUN,
        "polls": 3,
        "elapsed": 1.5,
        "error": RunFault("server_error", "Sorry."),
        "calls": (CALL,),
        "outputs": (("call_1", "5"),),
        "_client": Client("https://host.example/v1", auth=BearerAuth(KEY)),
    }
    return kind(**{**given, **fields})


def made(kind: type[AsyncRunsError]) -> AsyncRunsError:
    """Return an error of a class, with all the fields that it can have."""
    known: dict[str, Any] = {
        "message": "It failed.",
        "method": "POST",
        "path": "/threads",
        "sent": True,
        "passes": False,
        "status": 400,
        "detail": "no",
        "code": "c",
        "type": "t",
        "param": "p",
        "request_id": "req_1",
        "body": b'{"error":"\xff"}',
        "headers": {"X-Request-Id": "req_1"},
        "active_run_id": "run_1",
        "thread_id": "thread_1",
        "call": CALL,
        "outcome": outcome(),
        "ref": RunRef("thread.run", ("thread_1", "run_1")),
        "text": "{",
        "refusal": "No.",
        "group": BatchGroup(parts=(BatchPart(input_file_id="file-1", requests=1, tokens=5),), endpoint="/v1/responses"),
    }
    parameters = {name: each for base in reversed(kind.__mro__) for name, each in _parameters(base).items()}
    error = kind("It failed.", **{name: known[name] for name in parameters if name != "message"})
    error.add_note("a note")
    return error


def _parameters(kind: type) -> dict[str, Any]:
    if "__init__" not in vars(kind) or not issubclass(kind, AsyncRunsError):
        return {}
    return {
        name: each
        for name, each in inspect.signature(kind.__init__).parameters.items()
        if name != "self" and each.kind is not each.VAR_KEYWORD
    }


KINDS: Final = sorted(
    (
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, AsyncRunsError) and each.__module__ == errors.__name__
    ),
    key=lambda kind: kind.__name__,
)


def contents(error: BaseException | None) -> Any:
    """Return everything that has to survive pickling, as plain values."""
    if error is None:
        return None
    fields = {name: repr(value) for name, value in vars(error).items()}
    return type(error), str(error), fields, contents(error.__cause__), error.__suppress_context__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_pickled_with_its_cause_and_its_notes(kind: type[AsyncRunsError], twin: Twin) -> None:
    error = made(kind)
    cause = NotFoundError("gone", status=404, body=b"{}", headers={"A": "b"})
    cause.__cause__ = OSError(5, "broken")
    error.__cause__ = cause
    assert contents(twin(error)) == contents(error)
    assert contents(twin(twin(error))) == contents(error)


def test_an_error_without_a_cause_keeps_its_context(twin: Twin) -> None:
    error = InvalidRequestError("second")
    error.__context__ = ValueError("first")
    found = twin(error)
    assert repr(found.__context__) == "ValueError('first')"
    assert found.__cause__ is None


async def test_a_cause_from_aiohttp_becomes_a_foreign_error() -> None:
    async with Client("http://127.0.0.1:9/v1", auth=BearerAuth(KEY), max_retries=0) as client:
        with pytest.raises(APIConnectionError) as raised:
            await client.assistants.list()
    assert isinstance(raised.value.__cause__, aiohttp.ClientConnectorError)
    found = pickle.loads(pickle.dumps(raised.value))
    assert isinstance(found.__cause__, ForeignError)
    assert found.__cause__.kind == "aiohttp.client_exceptions.ClientConnectorError"
    assert "127.0.0.1:9" in str(found.__cause__)
    assert str(pickle.loads(pickle.dumps(found))) == str(raised.value)
    assert copy.copy(raised.value).__cause__ is copy.deepcopy(raised.value).__cause__ is raised.value.__cause__


class TwoArguments(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} at https://user:password@host.example/v1?key={two}")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


@pytest.mark.parametrize("cause", [TwoArguments("No", KEY), NoText(), type("Local", (Exception,), {})("x")], ids=repr)
def test_a_cause_that_cannot_be_unpickled_becomes_a_foreign_error(cause: Exception) -> None:
    gave_up = outcome(GaveUp, reason=Reason.HANDLER_FAILED, cause=cause)
    for value in (gave_up, made_from(cause), ConnectivityChanged(connectivity=Connectivity.LOST, cause=cause)):
        data = pickle.dumps(value)
        found = pickle.loads(data)
        stands = found.__cause__ if isinstance(found, Exception) else found.cause
        assert isinstance(stands, ForeignError)
        assert stands.kind.endswith(type(cause).__qualname__)
        assert KEY.encode() not in data
        assert b"password" not in data


def made_from(cause: Exception) -> APIError:
    error = APIError("It failed.")
    error.__cause__ = cause
    return error


def test_errors_that_are_each_others_cause_can_be_pickled() -> None:
    one, two = APIError("one"), APIError("two")
    one.__cause__, two.__cause__ = two, one
    found = pickle.loads(pickle.dumps(one))
    assert (str(found), str(found.__cause__)) == ("one", "two")
    gave_up = WatchGaveUpError("three", None)
    gave_up.outcome = outcome(GaveUp, cause=gave_up)
    assert str(pickle.loads(pickle.dumps(gave_up))) == "three"


def test_a_long_chain_of_causes_is_pickled_quickly() -> None:
    error: Exception = APIError("0")
    for number in range(1, 30):
        error, before = APIError(str(number)), error
        error.__cause__ = before
    found = pickle.loads(pickle.dumps(error))
    for _ in range(29):
        found = found.__cause__
    assert str(found) == "0"


OUTCOMES: Final = [Outcome, *Outcome.__subclasses__()]


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__)
def test_an_outcome_is_pickled_without_its_client(kind: type[Outcome[Any]], twin: Twin) -> None:
    cause = APIConnectionError("dropped", sent=True)
    one = outcome(kind, reason=Reason.UNREACHABLE, cause=cause, cancel_requested=True, _output_type=list[Call])
    other = twin(one)
    assert type(other) is kind
    for name in set(one.__struct_fields__) - {"_client", "cause"}:
        assert getattr(other, name) == getattr(one, name)
    assert contents(other.cause) == contents(cause)
    assert repr(other) == repr(one)
    if kind is not Completed:
        with pytest.raises(RunError) as raised:
            other.unwrap()
        assert raised.value.__cause__ is other.cause


def test_a_pickle_holds_no_credential() -> None:
    one = outcome(GaveUp, cause=APIError("no"))
    values: list[Any] = [one, Ended(one), made(RunFailedError), made(ThreadBusyError), made(CallNotAnsweredError)]
    for value in values:
        data = pickle.dumps(value)
        assert KEY.encode() not in data
        assert b"Bearer" not in data


def test_the_events_of_a_watch_can_be_pickled(twin: Twin) -> None:
    for value in (
        RunRef("response", ("resp_1",)),
        CALL,
        StatusChanged(status="queued", phase=Phase.PENDING, previous=None, run=RUN),
        ConnectivityChanged(connectivity=Connectivity.HEALTHY),
    ):
        assert twin(value) == value
    for notice in (CancelRefused(cause=APIError("no")), StreamBroken(cause=APIError("no"))):
        assert contents(twin(notice).cause) == contents(notice.cause)
    assert twin(Ended(outcome())).status == "failed"


async def test_an_unpickled_outcome_has_the_text_of_a_response_and_says_how_to_get_that_of_a_run() -> None:
    body = b'{"id":"resp_1","status":"completed","output":[{"type":"message","content":"Hi"}]}'
    response = outcome(Completed, ref=RunRef("response", ("resp_1",)), run=decode(body, ModelResponse))
    assert await pickle.loads(pickle.dumps(response)).text() == "Hi"
    thread = pickle.loads(pickle.dumps(outcome(Completed, status="completed")))
    with pytest.raises(InvalidRequestError, match=r"thread_1/run_1.*client\.for_run\(outcome\.ref\)\.answer\("):
        await thread.text()


async def test_the_line_in_that_error_returns_the_messages() -> None:
    transport = InMemoryTransport(Scenario(answer="Hi"))
    async with Client(transport=transport) as client:
        assistant = await client.assistants.create(model="gpt-test")
        done = await client.run(assistant_id=assistant.id, message="Hello")
        found = pickle.loads(pickle.dumps(done))
        assert [each.text for each in await client.for_run(found.ref).answer(found.ref)] == ["Hi"]
        assert await copy.deepcopy(done).text() == await copy.copy(done).text() == "Hi"


class Failing(Transport):
    async def send(self, request: Request) -> Response:
        body = {"id": "run_1", "thread_id": "thread_1", "status": "failed", "last_error": {"code": "c", "message": "m"}}
        return Response(200, {}, msgspec.json.encode(body))

    async def aclose(self) -> None:
        pass


async def _watched(in_fleet: bool) -> Any:
    client = Client(transport=Failing())
    ids: dict[str, Any] = {"thread_id": "thread_1", "run_id": "run_1"}
    if in_fleet:
        async with Fleet(client) as fleet:
            return await fleet.watch(**ids)
    async with RunWatcher(client, **ids) as watcher:
        return await watcher.wait()


def _in_a_worker(how: str) -> Any:
    found = asyncio.run(_watched(how == "fleet"))
    return found.unwrap() if how == "raise" else found


def _to_a_queue(queue: Any) -> None:
    queue.put(_in_a_worker("watcher"))
    try:
        _in_a_worker("raise")
    except RunFailedError as error:
        queue.put(error)


def test_a_process_pool_returns_outcomes_and_raises_errors() -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for how in ("watcher", "fleet"):
            found = pool.submit(_in_a_worker, how).result(60)
            assert (type(found), found.error) == (Failed, RunFault("c", "m"))
        with pytest.raises(RunFailedError, match=r"run_1 is failed: c: m") as raised:
            pool.submit(_in_a_worker, "raise").result(60)
    assert raised.value.outcome.run.id == "run_1"


def test_a_queue_between_processes_transports_outcomes_and_errors() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_to_a_queue, args=(queue,))
    process.start()
    assert queue.get(timeout=60).status == "failed"
    assert queue.get(timeout=60).outcome.error == RunFault("c", "m")
    process.join(60)
    assert process.exitcode == 0


async def test_statistics_can_be_pickled(emulator: Emulator) -> None:
    async with Client(emulator.base_url) as client, Fleet(client) as fleet:
        assert pickle.loads(pickle.dumps(fleet.statistics())) == fleet.statistics()
