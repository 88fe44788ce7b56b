"""A world in which processes die: at each await of the journal, and at each request, and another one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from asyncruns import (
    APIError,
    Client,
    Completed,
    Fleet,
    MemoryJournal,
    Reason,
    RunRef,
    ToolContext,
    Toolset,
)
from asyncruns.abc import ByteStream, Journal, Transport
from asyncruns.http import Request, Response
from asyncruns.journal.memory import MemoryStore
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.watch.outcome import AnyOutcome

WireName = Literal["threads", "responses"]
ShellName = Literal["fleet", "single", "fleet.run", "run"]  # the last two create the runs, too
LostCreates = Literal["give_up", "resend"]
ROUNDS: Final = (
    (FunctionCall("pay", {"to": "a"}), FunctionCall("pay", {"to": "b"})),
    (FunctionCall("pay", {"to": "c"}),),
)


class Process:
    """One life of the program: it may die at its n-th point, and is silent from then on."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.points = 0
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def point(self) -> None:
        """Note that something is about to happen, or has happened; after its death nothing does."""
        if not self.died.done():
            self.points += 1
            if self.points == self.dies_at:
                self.died.set_result(None)
        if self.died.done():
            await asyncio.get_running_loop().create_future()


class MortalTransport(Transport):
    def __init__(self, process: Process, inner: InMemoryTransport) -> None:
        self._process, self._inner = process, inner

    async def send(self, request: Request) -> Response:
        await self._process.point()
        response = await self._inner.send(request)
        await self._process.point()
        return response

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._inner.stream(request)

    async def aclose(self) -> None:
        pass


class MortalJournal(Journal):
    def __init__(self, process: Process, inner: Journal) -> None:
        self._process, self._inner = process, inner

    async def open(self) -> None:
        await self._inner.open()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _do(self, name: str, *arguments: Any) -> Any:
        await self._process.point()
        result = await getattr(self._inner, name)(*arguments)
        await self._process.point()
        return result

    async def add(self, watches: Sequence[WatchRecord]) -> list[WatchRecord]:
        added: list[WatchRecord] = await self._do("add", watches)
        return added

    async def release(self, watches: Sequence[str]) -> None:
        await self._do("release", watches)

    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        claimed: list[WatchRecord] = await self._do("claim", watches)
        return claimed

    async def read(self) -> list[WatchRecord]:
        return await self._inner.read()

    async def ask(self, ref: RunRef, wish: Wish) -> bool:
        asked: bool = await self._do("ask", ref, wish)
        return asked

    async def wishes(self) -> list[tuple[str, Wish]]:
        return await self._inner.wishes()

    async def begin(self, watch: str, calls: Sequence[CallRecord]) -> list[CallRecord]:
        begun: list[CallRecord] = await self._do("begin", watch, calls)
        return begun

    async def answered(self, watch: str, calls: Sequence[CallRecord]) -> None:
        await self._do("answered", watch, calls)

    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        await self._do("submitting", watch, calls)

    async def moved(self, watch: str, ref: RunRef, at: float) -> None:
        await self._do("moved", watch, ref, at)

    async def finished(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        await self._do("finished", outcomes)

    async def delivered(self, watches: Sequence[str]) -> None:
        await self._do("delivered", watches)


class World:
    """A server with runs, a journal, and what happened over all lives of the program.

    Attributes:
        on_lost_submit: What programs do about responses whose create was lost.
        raised: What `client.run` has raised, by label.
        began: How often each call began, by run and argument.
        told: The outcomes that the program got, by label.
        recorded: The labels of the watches that were in the journal when the program died.
        outputs: The outputs that were in the journal then, as pairs of runs and text.
    """

    def __init__(self, wire: WireName, shell: ShellName, runs: int = 2, rounds: Any = ROUNDS) -> None:
        self.wire, self.shell = wire, shell
        self.transport = InMemoryTransport(latency=0.01)
        scenario = Scenario(rounds=rounds, working=0.1, answer="Paid")
        if wire == "threads":
            self.transport.script(scenario, assistant_id="asst_1")
        else:
            self.transport.script(scenario, model="gpt-test")
        self.store = MemoryStore()
        self.runs: list[Any] = []
        self.on_lost_submit: LostCreates = "give_up"
        self.raised: dict[int, list[Exception]] = {}
        self._count = runs
        self.began: Counter[tuple[str, str]] = Counter()
        self.told: dict[int, list[AnyOutcome[Any]]] = {}
        self.recorded: set[int] = set()
        self.outputs: set[tuple[tuple[str, ...], str]] = set()
        self._lives = 0

    async def create(self) -> None:
        """Create the runs, as another program."""
        async with Client(transport=self.transport) as client:
            for label in range(self._count):
                if self.shell in ("fleet.run", "run"):
                    self.runs.append(await self._request(client, label))
                    continue
                if self.wire == "threads":
                    thread = await client.threads.create(messages=[{"role": "user", "content": "Pay"}])
                    run: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1")
                else:
                    run = await client.responses.create(model="gpt-test", input="Pay", background=True)
                self.runs.append(run)

    async def _request(self, client: Client, label: int) -> dict[str, Any]:
        """Return what a run is asked for with; every other one is on a thread that is there."""
        request = {"message": "Pay", "label": label, "parameters": {"metadata": {"ask": str(label)}}}
        if self.wire == "responses":
            return {**request, "model": "gpt-test", "on_lost_submit": self.on_lost_submit}
        if label % 2:
            request["thread_id"] = (await client.threads.create()).id
        return {**request, "assistant_id": "asst_1"}

    def tools(self, process: Process) -> Toolset:
        tools = Toolset()

        @tools.tool
        async def pay(to: str, context: ToolContext[Any]) -> str:
            assert context.ref is not None
            self.began[context.ref.ids[-1], to] += 1
            await process.point()
            await asyncio.sleep(0.05)
            await process.point()
            return f"paid {to}"

        return tools

    def new_journal(self) -> Journal:
        """Return the journal of one life of the program."""
        return MemoryJournal(self.store)

    async def live(self, dies_at: int | None = None) -> Process:
        """Run the program once, until it is done or dies."""
        process = Process(dies_at)
        self._lives += 1
        work = asyncio.create_task(self._program(process, is_first=self._lives == 1))
        await asyncio.wait({work, process.died}, return_when=asyncio.FIRST_COMPLETED)
        if process.died.done():
            self.store.crash()
            self._note_what_is_there()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        else:
            await work
        return process

    async def _program(self, process: Process, *, is_first: bool) -> None:
        journal = MortalJournal(process, self.new_journal())
        async with journal, Client(transport=MortalTransport(process, self.transport), journal=journal) as client:
            tools = self.tools(process)
            async with asyncio.TaskGroup() as group, Fleet(client, tools=tools, on_exit="leave") as fleet:
                if is_first and self.shell == "single":
                    for label, run in enumerate(self.runs):
                        group.create_task(self._watch_alone(client, tools, label, run))
                elif is_first and self.shell == "run":
                    for request in self.runs:
                        group.create_task(self._run_alone(client, tools, request))
                elif is_first and self.shell == "fleet.run":
                    for request in self.runs:
                        fleet.run(**request)
                elif is_first:
                    for label, run in enumerate(self.runs):
                        fleet.watch(run, label=label)
                else:
                    await fleet.resume(on_lost_submit=self.on_lost_submit)
                async for outcome in fleet:
                    self.told.setdefault(outcome.label, []).append(outcome)

    def _note_what_is_there(self) -> None:
        for entry in self.store._entries.values():
            self.recorded.add(entry.record.label)
            for call in entry.calls.values():
                if call.output is not None and call.output.startswith("paid") and entry.record.refs:
                    self.outputs.add((tuple(ref.ids[-1] for ref in entry.record.refs), call.output))

    async def _watch_alone(self, client: Client, tools: Toolset, label: int, run: Any) -> None:
        outcome = await client.watch(run, tools=tools, label=label)
        self.told.setdefault(label, []).append(outcome)

    async def _run_alone(self, client: Client, tools: Toolset, request: dict[str, Any]) -> None:
        try:
            outcome = await client.run(tools=tools, **request)
        except APIError as error:
            self.raised.setdefault(request["label"], []).append(error)
        else:
            self.told.setdefault(request["label"], []).append(outcome)

    def created(self) -> Counter[str]:
        """Return how many runs there are for each one that was asked for."""
        creates = [seen for seen in self.transport.requests if seen.operation in ("create_run", "create_response")]
        return Counter(json.loads(seen.body)["metadata"]["ask"] for seen in creates if seen.acted)

    def check(self) -> None:
        """Check what must hold, however often the program died."""
        assert all(times == 1 for times in self.began.values()), self.began
        accepted = [seen for seen in self.transport.requests if seen.operation == "submit" and seen.acted]
        submitted = Counter(seen.run_id for seen in accepted)
        assert self.recorded <= {*self.told, *self.raised}, (self.recorded, self.told)
        if self.shell in ("fleet.run", "run") and self.on_lost_submit == "give_up":
            assert all(times == 1 for times in self.created().values()), self.created()
            messages = Counter(
                seen.path for seen in self.transport.requests if seen.operation == "create_message" and seen.acted
            )
            assert all(times == 1 for times in messages.values()), messages
        assert len(self.store) == 0
        outcomes = [outcome for told in self.told.values() for outcome in told]
        if self.wire == "threads":
            assert all(isinstance(outcome, Completed) for outcome in outcomes), outcomes
            assert all(times <= len(ROUNDS) for times in submitted.values()), submitted
        else:
            assert all(
                isinstance(outcome, Completed) or outcome.reason is Reason.SUBMIT_LOST or is_lost_create(outcome)
                for outcome in outcomes
            ), outcomes
            assert self.on_lost_submit == "resend" or all(times == 1 for times in submitted.values()), submitted
        lost = {outcome.ref.ids[-1] for outcome in outcomes if outcome.reason is not None and outcome.ref.ids}
        for runs, output in self.outputs:
            bodies = [seen.body for seen in accepted if seen.run_id in runs]
            assert lost & set(runs) or any(f'"{output}"'.encode() in body for body in bodies), (runs, output)


def is_lost_create(outcome: AnyOutcome[Any]) -> bool:
    """Return whether an outcome says that a run may have been created, and cannot be found."""
    return outcome.reason is Reason.NOT_CREATED and isinstance(outcome.cause, APIError)


async def lives(
    wire: WireName,
    shell: ShellName,
    *deaths: int,
    faults: Sequence[Fault] = (),
    on_lost_submit: LostCreates = "give_up",
) -> tuple[World, list[Process]]:
    """Return what became of a program that dies at these points of its lives, and then lives to its end."""
    world = World(wire, shell)
    world.on_lost_submit = on_lost_submit
    await world.create()
    world.transport.inject(*faults)
    processes = [await world.live(dies_at) for dies_at in deaths]
    processes.append(await world.live())
    return world, processes


class Crash:
    """A run that asks for two payments, a first process that ends while it watches, and one that resumes it."""

    def __init__(self, wire: WireName) -> None:
        self.world = World(wire, "fleet", runs=1, rounds=ROUNDS[:1])
        self.store = self.world.store

    async def during_calls(self, **options: Any) -> None:
        """Watch the run, and end the process 2 s after that began: its calls are under way."""
        await self.first(2.0, **options)

    async def until_finished(self, **options: Any) -> None:
        """Watch the run until the watch has finished, and end the process before the outcome is delivered."""
        await self.first(60.0, **options)

    async def first(self, seconds: float, **options: Any) -> None:
        await self.world.create()
        process = Process()
        journal = MortalJournal(process, MemoryJournal(self.store))
        client = Client(transport=MortalTransport(process, self.world.transport))
        async with journal, client, Fleet(client, journal=journal, on_exit="leave", **options) as fleet:
            fleet.watch(self.world.runs[0], label={"order": 7})
            await asyncio.sleep(seconds)
            process.died.set_result(None)
            self.store.crash()

    async def resumed(self, **options: Any) -> AnyOutcome[Any]:
        """Resume in another process, and return the outcome."""
        journal, client = MemoryJournal(self.store), Client(transport=self.world.transport)
        async with journal, client, Fleet(client, journal=journal, on_exit="leave") as fleet:
            (watch,) = await fleet.resume(**options)
            outcome = await watch
        assert outcome.label == {"order": 7}
        return outcome

    def submitted(self) -> list[str]:
        """Return the outputs that the server took."""
        (body,) = [
            json.loads(seen.body) for seen in self.world.transport.requests if seen.operation == "submit" and seen.acted
        ]
        return [item["output"] for item in body.get("tool_outputs", body.get("input"))]
