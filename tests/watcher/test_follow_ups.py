"""Submits that a server refuses for a moment, answers about another run, forced tool calls, calls that were cut."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, cast

import anyio
import msgspec
import pytest
from broken_server import Body
from shells import Shell, watched
from wires import ONE_CALL, TWO_CALLS, TWO_ROUNDS, Tools, Wire, about_polls

from asyncruns import Client, Completed, Expired, GaveUp, NeedsCaller, Reason, RunWatcher, Toolset
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Call
from asyncruns.resources.response_parameters import ResponseParameters
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario

TOO_EARLY: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "not stored": (400, {"error": {"message": "Unknown response.", "code": "previous_response_not_found"}}),
    "not found": (404, {"error": {"message": "No such response.", "code": None}}),
    "conflict": (409, {"error": {"message": "It is in progress.", "code": "response_in_progress"}}),
}
FOR_A_MOMENT: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "queue": (400, {"error": {"message": "The queue is full, try again later.", "code": None}}),
    "locked": (400, {"error": {"message": "Busy.", "code": "conversation_locked"}}),
    "423": (423, {"detail": "Locked"}),
}


@pytest.mark.parametrize("said", [*TOO_EARLY, *FOR_A_MOMENT])
@pytest.mark.parametrize("times", [1, 5])
async def test_outputs_that_are_refused_for_a_moment_are_sent_again(
    wire: Wire, tools: Tools, said: str, times: int
) -> None:
    if said in ("not stored", "conflict") and wire.name == "threads":
        return  # these refusals are about follow-ups of responses
    status, body = (TOO_EARLY | FOR_A_MOMENT)[said]
    run = await wire.start(rounds=TWO_ROUNDS, working=0.1)
    wire.emulator.inject(Fault(on="submit", status=status, body=body, times=times))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    assert len(wire.submitted(outcome)) == 2
    assert wire.count("submit") == 2 + times
    refused = [seen.body for seen in wire.emulator.requests if seen.operation == "submit"][: times + 1]
    assert len(set(refused)) == 1


async def test_outputs_that_stay_refused_are_in_the_outcome_with_the_reason(wire: Wire, tools: Tools) -> None:
    status, body = TOO_EARLY["not found"]
    run = await wire.start(rounds=(TWO_CALLS,))
    wire.emulator.inject(Fault(on="submit", status=status, body=body, times=None))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.GONE
    assert "answered 404" in str(outcome.cause)
    assert len(outcome.outputs) == 2
    assert 15.0 < outcome.elapsed < 25.0


async def test_a_poll_that_is_refused_for_a_moment_does_not_end_the_watch(wire: Wire) -> None:
    status, body = FOR_A_MOMENT["queue"]
    run = await wire.start(working=5.0)
    wire.emulator.inject(Fault(on="poll", status=status, body=body, times=3))
    assert isinstance(await wire.watch(run), Completed)


# Answers about another run


@about_polls
@pytest.mark.parametrize("on", ["poll", "submit"])
async def test_a_poll_is_repeated_after_an_answer_about_another_run(
    wire: Wire, tools: Tools, on: Literal["poll", "submit"]
) -> None:
    other = await wire.start()
    await anyio.sleep(10.0)
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.5, working=3.0)
    shown = (wire.emulator.runs if wire.name == "threads" else wire.emulator.responses)[other.id]
    if on == "submit" and wire.name == "responses":
        shown = {**shown, "previous_response_id": other.id}
    wire.emulator.inject(Fault(on=on, body=shown, acts=True))
    outcome = await wire.watch(run, tools=tools, on_lost_submit="resend")
    assert isinstance(outcome, Completed)
    assert outcome.refs[0].ids[-1] == run.id
    assert outcome.run.id != other.id
    assert sorted(tools.ran) == ["add", "add", "get_weather"]


@about_polls
async def test_a_gateway_with_ids_of_its_own_may_show_the_servers_in_a_follow_up(wire: Wire, tools: Tools) -> None:
    """LiteLLM replaces the id of a response, but not the id of the response before it."""
    run = await wire.start(rounds=TWO_ROUNDS)
    wire.emulator.inject(
        Fault(on="submit", rewrite=lambda body: {**body, "previous_response_id": "resp_1"}, times=None)
    )
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]


@about_polls
async def test_a_cancel_that_is_answered_with_another_run_is_confirmed_by_polls(wire: Wire) -> None:
    other = await wire.start()
    await anyio.sleep(10.0)
    run = await wire.start(working=100.0)
    shown = (wire.emulator.runs if wire.name == "threads" else wire.emulator.responses)[other.id]
    wire.emulator.inject(Fault(on="cancel", body=shown, acts=True))
    async with wire.watcher(run) as watch:
        await anyio.sleep(1.0)
        await watch.cancel_run()
        outcome = await watch.wait()
    assert outcome.status == "cancelled"
    assert outcome.run is not None
    assert outcome.run.id == run.id


async def test_a_server_that_only_answers_with_another_run_is_named_in_the_outcome(wire: Wire) -> None:
    if wire.streams is not None:
        return
    other, run = await wire.start(), await wire.start(working=100.0)
    shown = (wire.emulator.runs if wire.name == "threads" else wire.emulator.responses)[other.id]
    wire.emulator.inject(Fault(on="poll", body=shown, times=None))
    outcome = await wire.watch(run, max_outage=20.0)
    assert outcome.reason is Reason.UNREACHABLE
    assert f"{other.id!r}, not {run.id!r}" in str(outcome.cause)


# The last failure is the cause


async def test_submits_that_all_failed_are_the_cause_of_a_timeout(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(ONE_CALL,))
    wire.emulator.inject(Fault(on="submit", status=500, times=None))
    outcome = await wire.watch(run, tools=tools, timeout=60.0)
    assert isinstance(outcome, GaveUp)
    assert "answered 500" in str(outcome.cause)


@about_polls
async def test_the_outcome_of_a_run_that_expired_without_its_outputs_says_why_they_were_not_taken(
    wire: Wire, tools: Tools
) -> None:
    if wire.name == "responses":
        return  # responses do not expire
    run = await wire.start(rounds=(ONE_CALL,))
    wire.emulator.inject(Fault(on="submit", status=500, times=None))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Expired)
    assert "answered 500" in str(outcome.cause)


# Rounds


async def test_a_run_that_never_stops_calling_is_left_to_the_caller(wire: Wire, tools: Tools) -> None:
    rounds = tuple((FunctionCall("add", {"a": number, "b": 1}),) for number in range(9))
    async with wire.watcher(await wire.start(rounds=rounds), tools=tools, max_rounds=3) as watch:
        outcome = await watch.wait()
        assert isinstance(outcome, NeedsCaller)
        assert outcome.reason is Reason.MAX_ROUNDS
        assert len(tools.ran) == 3
        with pytest.raises(Exception, match="max_rounds"):
            outcome.unwrap()
        await watch.submit({call.id: "5" for call in outcome.calls})
        outcome = await watch.wait()  # the next round exceeds the limit again
    assert outcome.reason is Reason.MAX_ROUNDS
    assert len(tools.ran) == 3


UNFORCED: Final = ("auto", "none", {"type": "allowed_tools", "mode": "auto"})


class Chain(Transport):
    """A server of responses that echo their `tool_choice`. Its model calls `search` in the first, and when forced to.

    Args:
        call: What else its calls have.
        polls: The status with which it answers polls; a stateless server has none.
    """

    def __init__(self, *, polls: int = 200, background: bool = True, **call: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._polls = polls
        self._at_once = not background
        self._call = call

    async def send(self, request: Request) -> Response:
        await anyio.sleep(0.01)
        if request.method == "POST":
            self.bodies.append(msgspec.json.decode(request.body or b""))
            number = len(self.bodies)
            return self._answer(number, is_done=self._at_once)
        if self._polls != 200:
            return Response(self._polls, {}, b'{"error":{"message":"There is no such route."}}')
        return self._answer(int(request.path.rpartition("_")[2]), is_done=True)

    def _answer(self, number: int, *, is_done: bool) -> Response:
        body = {"id": f"resp_{number}", "status": "completed" if is_done else "queued", "output": self._output(number)}
        body |= {name: value for name, value in self.bodies[number - 1].items() if name in ("model", "tool_choice")}
        return Response(200, {}, msgspec.json.encode(body if is_done else {**body, "output": []}))

    def _output(self, number: int) -> list[dict[str, Any]]:
        if number == 1 or self.bodies[number - 1].get("tool_choice", "auto") not in UNFORCED:
            call = {"type": "function_call", "call_id": f"call_{number}", "name": "search", "arguments": "{}"}
            return [{**call, **self._call}]
        return [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}]

    async def aclose(self) -> None:
        pass


class Searches(Toolset):
    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.tool(self.search)

    async def search(self, query: str = "everything") -> str:
        self.ran.append(query)
        return "nothing found"


Begin = Callable[..., Awaitable[Any]]


async def by_run(client: Client, shell: Shell, parameters: dict[str, Any], **options: Any) -> Any:
    return await client.run(model="m", message="?", parameters=cast("ResponseParameters", parameters), **options)


async def by_watch(client: Client, shell: Shell, parameters: dict[str, Any], **options: Any) -> Any:
    response = await client.responses.create(model="m", input="?", background=True, **parameters)
    return await watched(shell, client.responses.continued({"model": "m", **parameters}), response, **options)


async def by_echo(client: Client, shell: Shell, parameters: dict[str, Any], **options: Any) -> Any:
    """The server echoes the choice, and the watch uses the echo."""
    response = await client.responses.create(model="m", input="?", background=True, **parameters)
    return await watched(shell, client.responses.continued(), response, **options)


@pytest.mark.parametrize("begin", [by_run, by_watch, by_echo])
@pytest.mark.parametrize(
    ("choice", "next_choice"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "auto"),
        ("any", "auto"),
        ({"type": "function", "name": "search"}, "auto"),
        ({"type": "allowed_tools", "mode": "auto"}, {"type": "allowed_tools", "mode": "auto"}),
        ({"type": "allowed_tools", "mode": "required"}, {"type": "allowed_tools", "mode": "auto"}),
    ],
    ids=str,
)
async def test_a_forcing_choice_is_for_the_first_round(
    shell: Shell, begin: Begin, choice: Any, next_choice: Any
) -> None:
    server, tools = Chain(), Searches()
    outcome = await begin(Client(transport=server), shell, {"tool_choice": choice}, tools=tools)
    assert isinstance(outcome, Completed)
    assert [body["tool_choice"] for body in server.bodies] == [choice, next_choice]
    assert len(tools.ran) == 1


@pytest.mark.parametrize("begin", [by_run, by_watch, by_echo])
async def test_a_choice_is_kept_if_requested_and_rounds_are_bounded(shell: Shell, begin: Begin) -> None:
    server, tools = Chain(), Searches()
    outcome = await begin(
        Client(transport=server), shell, {"tool_choice": "required"}, tools=tools, keep_tool_choice=True, timeout=3600.0
    )
    assert outcome.reason is Reason.MAX_ROUNDS
    assert len(tools.ran) == 50
    assert len(server.bodies) == 51


async def test_a_forcing_choice_of_a_stream_is_for_the_first_round() -> None:
    transport = InMemoryTransport()
    transport.script(Scenario(rounds=(ONE_CALL,)), model="m")
    client, tools = Client(transport=transport), Tools()
    parameters: dict[str, Any] = {"model": "m", "tool_choice": "required"}
    stream = await client.responses.create(input="?", background=True, stream=True, **parameters)
    async with RunWatcher(client.responses.continued(parameters), stream, tools=tools) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    sent = [msgspec.json.decode(seen.body) for seen in transport.requests if seen.method == "POST"]
    assert [body["tool_choice"] for body in sent] == ["required", "auto"]


# Calls that were cut


@pytest.mark.parametrize("arguments", ["", "{}", '{"query": "half', '{"query": "whole"}'])
@pytest.mark.parametrize("answered_by", ["tools", "handler", "both"])
async def test_a_call_that_was_cut_is_not_run_and_the_model_reads_why(
    shell: Shell, arguments: str, answered_by: str
) -> None:
    server, tools = Chain(status="incomplete", arguments=arguments), Searches()
    seen: list[Call] = []

    async def handler(calls: list[Call]) -> dict[str, str]:
        seen.extend(calls)
        return {call.id: "run by hand" for call in calls}

    answers: dict[str, dict[str, Any]] = {"tools": {"tools": tools}, "handler": {"on_requires_action": handler}}
    options = answers.get(answered_by, answers["tools"] | answers["handler"])
    outcome = await by_watch(Client(transport=server), shell, {}, **options)
    assert isinstance(outcome, Completed)
    assert (tools.ran, seen) == ([], [])
    (output,) = server.bodies[1]["input"]
    assert "cut off" in output["output"]
    assert output["call_id"] == "call_1"


async def test_a_call_that_was_cut_is_surfaced_if_the_toolset_says_so(shell: Shell) -> None:
    server, tools = Chain(status="incomplete", arguments=""), Toolset(if_invalid_arguments="surface")
    outcome = await by_watch(Client(transport=server), shell, {}, tools=tools)
    assert isinstance(outcome, NeedsCaller)
    assert [call.is_cut for call in outcome.calls] == [True]


@pytest.mark.parametrize(
    ("status", "arguments", "runs"),
    [
        ("completed", "", True),
        ("in_progress", '{"query": "x"}', True),  # some servers leave finished items in this status
        ("in_progress", "", False),
        (None, "", True),
        ("something new", '{"query": "x"}', True),
    ],
)
async def test_a_call_that_may_be_whole_is_run(shell: Shell, status: str | None, arguments: str, runs: bool) -> None:
    tools = Searches()
    server = Chain(status=status, arguments=arguments)
    assert isinstance(await by_watch(Client(transport=server), shell, {}, tools=tools), Completed)
    assert bool(tools.ran) is runs


# Servers without polls


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_a_response_that_is_created_completed_is_watched_without_a_successful_poll(
    shell: Shell, status: int
) -> None:
    server, tools = Chain(polls=status, background=False), Toolset()

    @tools.tool
    async def search() -> str:
        await anyio.sleep(300.0)
        return "found"

    outcome = await by_watch(Client(transport=server), shell, {}, tools=tools, max_outage=20.0)
    assert isinstance(outcome, Completed)
    assert len(server.bodies) == 2


# Refusals that come as the first event of a stream


class StreamedChain(Transport):
    """Streams a response with one call, and refuses its follow-up a few times with an event instead of a status."""

    def __init__(self, refusal: dict[str, Any], times: int) -> None:
        self.asked: list[bytes | None] = []
        self._refusal, self._times = refusal, times

    async def send(self, request: Request) -> Response:
        return Response(405, {}, b"")  # a response that has ended need not be polled

    async def stream(self, request: Request) -> Response | ByteStream:
        await anyio.sleep(0.01)
        self.asked.append(request.body)
        if len(self.asked) == 1:
            call = {"type": "function_call", "call_id": "call_1", "name": "search", "arguments": "{}"}
            return Body(_told_of("resp_1", [call]))
        if len(self.asked) <= 1 + self._times:
            return Body([{"type": "error", **self._refusal}])
        text = [{"type": "output_text", "text": "Done."}]
        return Body(_told_of("resp_2", [{"type": "message", "role": "assistant", "content": text}]))

    async def aclose(self) -> None:
        pass


def _told_of(id_: str, output: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    begun = {"id": id_, "status": "in_progress", "output": []}
    return [
        {"type": "response.created", "response": begun},
        {"type": "response.completed", "response": {**begun, "status": "completed", "output": output}},
    ]


async def streamed(server: StreamedChain) -> tuple[Searches, Any, list[Any]]:
    tools, client = Searches(), Client(transport=server)
    stream = await client.responses.create(model="m", input="?", background=True, stream=True)
    async with RunWatcher(client.responses.continued({"model": "m"}), stream, tools=tools) as watcher:
        events = [event async for event in watcher.stream_events()]
        return tools, await watcher.wait(), events


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": "previous_response_not_found", "message": "Unknown response."},
        {"code": "conversation_locked", "message": "Busy."},
    ],
    ids=lambda refusal: str(refusal["code"]),
)
@pytest.mark.parametrize("times", [1, 4])
async def test_a_follow_up_that_is_refused_by_the_first_event_of_its_stream_is_sent_again(
    refusal: dict[str, Any], times: int
) -> None:
    server = StreamedChain(refusal, times)
    tools, outcome, events = await streamed(server)
    assert isinstance(outcome, Completed)
    assert len(tools.ran) == 1
    assert len(server.asked) == 2 + times
    assert len(set(server.asked[1:])) == 1
    names = [event.event for event in events if event.event != "response.output_text.delta"]
    assert names == ["response.created", "response.completed"] * 2


async def test_an_error_that_may_have_come_after_the_follow_up_began_is_a_lost_answer() -> None:
    server = StreamedChain({"code": "server_error", "message": "Something went wrong."}, 1)
    tools, outcome, _ = await streamed(server)
    assert outcome.reason is Reason.SUBMIT_LOST
    assert (len(tools.ran), len(server.asked)) == (1, 2)
