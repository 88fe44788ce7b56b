"""What is traced and measured of watches: alone and in fleets, of threads and of responses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncruns import APIError, Client, Completed, Fleet, MemoryJournal, NeedsCaller, RunRef, RunWatcher, Toolset
from asyncruns.abc import Journal, Telemetry, WatchTrace
from asyncruns.otel import OpenTelemetry
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario

ROUNDS = (
    (FunctionCall("look_up", {"what": "secret"}), FunctionCall("compute", {"n": 1})),
    (FunctionCall("compute", {"n": 2}),),
)
SHELLS = ("alone", "fleet")
WIRES = ("threads", "responses")


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int:
    return 0 if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return 0 if context is None else context.span_id


class Traced:
    """A client whose spans and metrics are kept."""

    def __init__(self, *, content: bool = False, journal: Journal | None = None) -> None:
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.telemetry = OpenTelemetry(
            tracer_provider=self.provider,
            meter_provider=MeterProvider(metric_readers=[self._metrics]),
            content=content,
        )
        self.transport = InMemoryTransport(latency=0.01)
        scenario = Scenario(queued=1.0, working=2.0, rounds=ROUNDS, answer="Done")
        self.transport.script(scenario, assistant_id="asst_1")
        self.transport.script(scenario, model="gpt-test")
        self.client = Client(transport=self.transport, telemetry=self.telemetry, journal=journal)
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric."""
        data = self._metrics.get_metrics_data()
        assert data is not None
        found = [metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}

    async def create(self, wire: str) -> Any:
        if wire == "responses":
            return await self.client.responses.create(model="gpt-test", input="Hi", background=True)
        thread = await self.client.threads.create(messages=[{"role": "user", "content": "Hi"}])
        return await self.client.threads.runs.create(thread.id, assistant_id="asst_1")

    async def watch(self, shell: str, run: Any, **options: Any) -> Any:
        if shell == "alone":
            return await self.client.watch(run, **options)
        async with Fleet(self.client) as fleet:
            return await fleet.watch(run, **options)


def tools(traced: Traced, seen: list[tuple[str, int]]) -> Toolset:
    toolset = Toolset()

    def note(name: str) -> None:
        seen.append((name, trace.get_current_span().get_span_context().span_id))

    @toolset.tool
    async def look_up(what: str) -> str:
        note("look_up")
        with traced.tracer.start_as_current_span("inside"):
            await asyncio.sleep(1)
        return "found"

    @toolset.tool
    def compute(n: int) -> str:
        note("compute")
        raise ValueError("secret of the tool")

    return toolset


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shell", SHELLS)
async def test_a_watch_is_a_tree_of_spans(shell: str, wire: str) -> None:
    traced = Traced()
    seen: list[tuple[str, int]] = []
    run = await traced.create(wire)
    with traced.tracer.start_as_current_span("caller") as caller:
        outcome = await traced.watch(shell, run, tools=tools(traced, seen))
    assert isinstance(outcome, Completed)
    (root,) = traced.named("invoke_agent")
    attributes = attributes_of(root)
    assert parent_of(root) == caller.get_span_context().span_id
    assert attributes["gen_ai.operation.name"] == "invoke_agent"
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["asyncruns.outcome"] == "Completed"
    assert attributes["asyncruns.polls"] == outcome.polls
    if wire == "threads":
        assert attributes["gen_ai.agent.id"] == "asst_1"
        assert attributes["gen_ai.conversation.id"] == run.thread_id
    children = [span for span in traced.spans if parent_of(span) == id_of(root)]
    names = [span.name for span in children]
    assert names.count("execute_tool look_up") == 1
    assert names.count("execute_tool compute") == 2
    assert names.count("asyncruns.submit") == 2
    assert {"asyncruns.pending", "asyncruns.running", "asyncruns.needs_caller"} <= set(names)
    by_id = {id_of(span): span.name for span in children}
    assert [by_id[span_id] for _, span_id in seen] == [f"execute_tool {name}" for name, _ in seen]
    (inside,) = traced.named("inside")
    assert by_id[parent_of(inside)] == "execute_tool look_up"
    assert [attributes_of(span)["error.type"] for span in traced.named("execute_tool compute")] == ["tool_error"] * 2
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


async def test_contents_are_there_if_asked_for() -> None:
    traced = Traced(content=True)
    await traced.watch("alone", await traced.create("threads"), tools=tools(traced, []))
    (span,) = traced.named("execute_tool look_up")
    assert "secret" in str(attributes_of(span)["gen_ai.tool.call.arguments"])
    assert attributes_of(span)["gen_ai.tool.call.result"] == "found"


@pytest.mark.parametrize("shell", SHELLS)
async def test_metrics(shell: str) -> None:
    traced = Traced()
    run = await traced.create("threads")
    traced.transport.inject(Fault(on="poll", status=429))
    outcome = await traced.watch(shell, run, tools=tools(traced, []))
    points = traced.points()
    assert sum(point.value for point in points["asyncruns.watch.active"]) == 0
    (watched,) = points["asyncruns.watch.duration"]
    assert dict(watched.attributes) == {"asyncruns.dialect": "thread.run", "asyncruns.outcome": "Completed"}
    assert watched.sum == pytest.approx(outcome.elapsed, abs=0.01)
    phases = {point.attributes["asyncruns.phase"]: point for point in points["asyncruns.phase.duration"]}
    assert phases["needs_caller"].count == 2
    assert phases["pending"].count == 3
    assert phases["pending"].max <= 3.0
    assert [point.sum for point in points["asyncruns.watch.polls"]] == [outcome.polls]
    assert {point.attributes["gen_ai.tool.name"] for point in points["gen_ai.execute_tool.duration"]} == {
        "look_up",
        "compute",
    }
    statuses = {
        point.attributes.get("http.response.status_code"): point.count for point in points["asyncruns.request.duration"]
    }
    assert statuses[429] == 1
    late = points["asyncruns.end.delay"][0]
    assert 0.0 < late.sum < 1.0


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_watch_that_is_left_ends_its_spans(shell: str) -> None:
    traced = Traced()
    run = await traced.create("threads")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await traced.watch(shell, run)
    (root,) = traced.named("invoke_agent")
    assert attributes_of(root)["asyncruns.outcome"] in ("left", "GaveUp")
    assert traced.named("asyncruns.pending")
    assert "asyncruns.phase.duration" not in traced.points()  # the run is still pending
    assert sum(point.value for point in traced.points()["asyncruns.watch.active"]) == 0


async def test_spans_of_phases_are_exported_while_the_run_goes_on() -> None:
    traced = Traced()
    async with RunWatcher(traced.client, await traced.create("threads")):
        await asyncio.sleep(2)
        assert [span.name for span in traced.spans] == ["asyncruns.pending"]


async def test_a_watch_that_goes_on_after_it_needed_its_caller_is_a_span_of_its_own() -> None:
    traced = Traced()
    async with RunWatcher(traced.client, await traced.create("threads")) as watcher:
        outcome = await watcher.wait()
        assert isinstance(outcome, NeedsCaller)
        await watcher.submit({call.id: "output" for call in outcome.calls})
        await watcher.wait()
    outcomes = [attributes_of(span)["asyncruns.outcome"] for span in traced.named("invoke_agent")]
    assert outcomes == ["NeedsCaller", "NeedsCaller"]
    assert not any(span.status.status_code is trace.StatusCode.ERROR for span in traced.named("invoke_agent"))


async def test_words_of_servers_and_models_are_in_no_name_and_no_metric() -> None:
    traced = Traced()
    scenario = Scenario(rounds=((FunctionCall("made up by the model", {}),),), answer="Done")
    traced.transport.script(scenario, assistant_id="asst_2")
    thread = await traced.client.threads.create()
    run = await traced.client.threads.runs.create(thread.id, assistant_id="asst_2")
    await traced.client.watch(run, tools=Toolset(), label="a label")
    assert not any("made up" in span.name or run.id in span.name for span in traced.spans)
    for points in traced.points().values():
        assert not any("made up" in str(point.attributes) or run.id in str(point.attributes) for point in points)


def test_without_a_provider_nothing_is_made() -> None:
    telemetry = OpenTelemetry()
    assert not telemetry.tracer.start_span("x").is_recording()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shell", SHELLS)
async def test_the_create_of_a_run_is_a_span_beside_its_watch(shell: str, wire: str) -> None:
    traced = Traced()
    arguments: dict[str, Any] = {"assistant_id": "asst_1"} if wire == "threads" else {"model": "gpt-test"}
    with traced.tracer.start_as_current_span("caller") as caller:
        if shell == "alone":
            outcome = await traced.client.run(message="Hi", tools=tools(traced, []), **arguments)
        else:
            async with Fleet(traced.client) as fleet:
                outcome = await fleet.run(message="Hi", tools=tools(traced, []), **arguments)
    assert isinstance(outcome, Completed)
    (create,), (watch,) = traced.named("asyncruns.create"), traced.named("invoke_agent")
    assert parent_of(create) == parent_of(watch) == caller.get_span_context().span_id
    if wire == "threads":
        assert attributes_of(create)["gen_ai.conversation.id"] == attributes_of(watch)["gen_ai.conversation.id"]
    assert create.status.status_code is not trace.StatusCode.ERROR


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_create_that_fails_is_a_span_that_failed(shell: str) -> None:
    traced = Traced()
    traced.transport.inject(Fault(on="create_run", status=400))
    if shell == "alone":
        with pytest.raises(APIError):
            await traced.client.run(message="Hi", assistant_id="asst_1")
    else:
        async with Fleet(traced.client) as fleet:
            await fleet.run(message="Hi", assistant_id="asst_1")
    (create,) = traced.named("asyncruns.create")
    assert create.status.status_code is trace.StatusCode.ERROR
    assert attributes_of(create)["error.type"] == "BadRequestError"
    assert not traced.named("invoke_agent")


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_resumed_watch_links_to_the_trace_in_which_it_began(shell: str) -> None:
    journal = MemoryJournal()
    await journal.open()
    traced = Traced(journal=journal)
    run = await traced.create("threads")
    with traced.tracer.start_as_current_span("caller") as caller, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await traced.watch(shell, run)
    await asyncio.sleep(1)  # a single watch is released in the background
    if shell == "alone":
        (watcher,) = await traced.client.resume(tools=tools(traced, []))
        async with watcher:
            await watcher.wait()
    else:
        async with Fleet(traced.client, tools=tools(traced, [])) as fleet:
            (watch,) = await fleet.resume()
            await watch
    left, resumed = traced.named("invoke_agent")
    assert not left.links
    (link,) = resumed.links
    assert link.context.trace_id == caller.get_span_context().trace_id
    assert link.context.span_id == caller.get_span_context().span_id
    assert sum(point.value for point in traced.points()["asyncruns.watch.active"]) == 0


@pytest.mark.parametrize("shell", SHELLS)
async def test_outputs_that_a_handler_returns_as_awaitables_are_below_a_span_of_it(shell: str) -> None:
    traced = Traced()

    async def decide() -> str:
        with traced.tracer.start_as_current_span("deciding"):
            await asyncio.sleep(1)
        return "yes"

    await traced.watch(
        shell, await traced.create("threads"), on_requires_action=lambda calls: {call.id: decide() for call in calls}
    )
    parents = {parent_of(span) for span in traced.named("deciding")}
    assert len(parents) == 3
    assert parents < {id_of(span) for span in traced.named("on_requires_action")}


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_handler_that_raises_is_a_span_that_failed(shell: str) -> None:
    traced = Traced()

    def handle(calls: Any) -> None:
        raise ValueError("secret of the handler")

    outcome = await traced.watch(shell, await traced.create("threads"), on_requires_action=handle)
    assert isinstance(outcome, NeedsCaller)
    (span,) = traced.named("on_requires_action")
    assert attributes_of(span)["error.type"] == "handler_error"
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_word_of_the_server_is_no_type_of_error_in_metrics(shell: str) -> None:
    traced = Traced()
    scenario = Scenario(end="failed", error_code="word_of_the_server")
    traced.transport.script(scenario, assistant_id="asst_1")
    await traced.watch(shell, await traced.create("threads"))
    (root,) = traced.named("invoke_agent")
    assert attributes_of(root)["error.type"] == "word_of_the_server"
    (watched,) = traced.points()["asyncruns.watch.duration"]
    assert watched.attributes["error.type"] == "_OTHER"


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_time_that_tools_take_is_no_delay_of_noticing_the_end(shell: str) -> None:
    traced = Traced()
    scenario = Scenario(queued=0.05, working=0.05, rounds=((FunctionCall("wait", {}),),), answer="Done")
    traced.transport.script(scenario, assistant_id="asst_1")
    toolset = Toolset()

    @toolset.tool
    async def wait() -> str:
        await asyncio.sleep(100)
        return "done"

    await traced.watch(shell, RunRef.of(await traced.create("threads")), tools=toolset)
    (late,) = traced.points()["asyncruns.end.delay"]
    assert late.max < 1


async def test_half_of_a_surrogate_pair_is_replaced_and_long_words_are_cut() -> None:
    traced = Traced()
    ref = RunRef("thread.run", ("thread_\ud800", "run_" + "x" * 10_000))
    traced.telemetry.watch(ref, None, "https://api.notgroq.com", "").ended(None)
    (span,) = traced.named("invoke_agent")
    attributes = attributes_of(span)
    assert attributes["gen_ai.conversation.id"] == "thread_?"
    assert len(attributes["asyncruns.run.id"]) == 256
    assert attributes["gen_ai.provider.name"] == "openai"


class Broken(Telemetry, WatchTrace):
    """A telemetry that raises whatever it is told, from one method on."""

    def __init__(self, works: tuple[str, ...] = ()) -> None:
        self.works = works

    def _raise(self, name: str) -> None:
        if name not in self.works:
            raise ValueError(f"{name} of the telemetry")

    def watch(self, ref: RunRef, run: object, server: str, link: str) -> WatchTrace:
        self._raise("watch")
        return self

    def creating(self, dialect: str, server: str) -> Any:
        return self._follow("creating")

    def requested(self, request: Any, answer: Any, seconds: float) -> None:
        self._raise("requested")

    def notice(self, notice: Any) -> None:
        self._raise("notice")

    def calling(self, calls: Any, handler: str = "") -> Any:
        return self._follow("calling")

    def sending(self, asked: Any) -> Any:
        return self._follow("sending")

    @contextmanager
    def _follow(self, name: str) -> Iterator[Any]:
        self._raise(name)
        try:
            yield lambda *told: self._raise("note")
        finally:
            self._raise("after")

    def polled(self, event: Any) -> None:
        self._raise("polled")

    def ended(self, outcome: Any) -> None:
        self._raise("ended")


@pytest.mark.parametrize("works", [(), ("watch",), ("watch", "creating", "calling", "sending")])
@pytest.mark.parametrize("shell", SHELLS)
async def test_a_telemetry_that_raises_breaks_no_watch(
    shell: str, works: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    traced = Traced()
    traced.client = Client(transport=traced.transport, telemetry=Broken(works))
    seen: list[tuple[str, int]] = []
    arguments: dict[str, Any] = {"assistant_id": "asst_1", "message": "Hi", "tools": tools(traced, seen)}
    if shell == "alone":
        outcome = await traced.client.run(**arguments)
    else:
        async with Fleet(traced.client) as fleet:
            outcome = await fleet.run(**arguments)
    assert isinstance(outcome, Completed)
    assert [name for name, _ in seen] == ["look_up", "compute", "compute"]
    assert [record.name for record in caplog.records].count("asyncruns.telemetry") == 1


async def test_a_batch_is_a_span(tmp_path: Any) -> None:
    traced = Traced()
    requests = [{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "m", "input": "Hi"}}]
    group = await traced.client.batches.create(requests=requests, endpoint="/v1/responses")
    await traced.client.watch(group)
    (span,) = traced.named("asyncruns.batch")
    assert attributes_of(span)["asyncruns.outcome"] == "Completed"
    assert "gen_ai.operation.name" not in attributes_of(span)
    assert sum(point.value for point in traced.points()["asyncruns.watch.active"]) == 0
