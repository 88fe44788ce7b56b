"""What is recorded of when runs did what: by a client and by a fleet, of threads and of responses."""

from __future__ import annotations

import asyncio
import random
import re
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncruns import (
    Client,
    ConfigurationError,
    Fleet,
    InvalidRequestError,
    RunRef,
    RunWatcher,
    ToolError,
    Toolset,
)
from asyncruns.abc import Telemetry, WatchTrace
from asyncruns.http import Request, Response
from asyncruns.otel import OpenTelemetry
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.timeline import RunTimeline, TimedCall, TimedRequest, TimedStatus, TimelineFile, read_timelines, reading
from asyncruns.timeline import line_writer as writing
from asyncruns.watch.outcome import AnyOutcome

SECRETS = ("secret-argument", "secret-output", "secret-message", "secret-label", "secret-answer")
ROUNDS = (
    (FunctionCall("look_up", {"what": "secret-argument"}), FunctionCall("compute")),
    (FunctionCall("compute"),),
)
SHELLS = ("alone", "fleet")
WIRES = ("threads", "responses")
REF = RunRef("thread.run", ("thread_1", "run_1"))
tools = Toolset()


@tools.tool
async def look_up(what: str) -> str:
    """Look something up."""
    await asyncio.sleep(1.0)
    return "secret-output"


@tools.tool
async def compute() -> str:
    """Compute something."""
    await asyncio.sleep(0.5)
    raise ToolError("secret-output")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def transport_of(scenario: Scenario) -> InMemoryTransport:
    transport = InMemoryTransport(latency=0.01)
    transport.script(scenario, assistant_id="asst_1")
    transport.script(scenario, model="gpt-test")
    return transport


async def create(client: Client, wire: str) -> Any:
    if wire == "responses":
        return await client.responses.create(model="gpt-test", input="secret-message", background=True)
    thread = await client.threads.create(messages=[{"role": "user", "content": "secret-message"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1")


async def watched(path: Path, shell: str, wire: str, *, labels: bool = False, rounds: Any = ()) -> AnyOutcome[Any]:
    """Watch a run to its end, while that is recorded."""
    transport = transport_of(Scenario(queued=1.0, working=4.0, answer="secret-answer", rounds=rounds))
    transport.inject(Fault(on="poll", status=503))
    options: Any = {"tools": tools, "label": "secret-label"}
    if shell == "alone":
        async with (
            TimelineFile(path, labels=labels) as timelines,
            Client(transport=transport, telemetry=timelines) as client,
            RunWatcher(client, await create(client, wire), **options) as watcher,
        ):
            return await watcher.wait()
    async with Client(transport=transport) as client, Fleet(client, **options) as fleet:
        await fleet.record(path, labels=labels)
        return await fleet.watch(await create(client, wire))


async def read(path: Path, *complaints: str) -> list[RunTimeline]:
    """Return what is in a file; the complaints are expected to have these numbers of lines in them."""
    told: list[str] = []
    found = await asyncio.to_thread(read_timelines, path, told.append)
    assert [re.findall(r"\d+", text.removeprefix(str(path))) for text in told] == [[number] for number in complaints]
    return found


async def bytes_of(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


async def write(path: Path, data: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, data)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shell", SHELLS)
async def test_a_run_with_two_rounds_is_recorded(path: Path, shell: str, wire: str) -> None:
    outcome = await watched(path, shell, wire, rounds=ROUNDS)
    (timeline,) = await read(path)
    assert (timeline.outcome, timeline.ref, timeline.status) == ("Completed", outcome.ref, "completed")
    assert timeline.assistant == ("asst_1" if wire == "threads" else "")
    assert timeline.label is None
    assert timeline.poll_count == outcome.polls == len(timeline.polls)
    assert [poll.refusal for poll in timeline.polls if poll.refusal] == ["unavailable"]
    assert [(call.name, call.failed) for call in timeline.calls] == [
        ("look_up", False),
        ("compute", True),
        ("compute", True),
    ]
    assert [round(call.ended_at - call.began_at, 2) for call in timeline.calls if call.ended_at] == [1.0, 0.5, 0.5]
    assert [(sent.kind, sent.refusal) for sent in timeline.submits] == [("submit", "")] * 2
    phases = [status.phase for status in timeline.statuses]
    assert phases[0] == "pending"
    assert phases.count("needs_caller") == 2
    assert phases[-1] == "succeeded"
    assert timeline.finished_at == pytest.approx(outcome.at, abs=0.01)
    assert timeline.end_delay is not None
    assert 0 <= timeline.end_delay < 2


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shell", SHELLS)
async def test_nothing_that_was_written_by_models_tools_and_callers_is_in_the_file(
    path: Path, shell: str, wire: str
) -> None:
    await watched(path, shell, wire, rounds=ROUNDS)
    text = (await bytes_of(path)).decode()
    assert not [secret for secret in SECRETS if secret in text]
    assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("shell", SHELLS)
async def test_labels_are_written_if_asked_for(path: Path, shell: str) -> None:
    await watched(path, shell, "threads", labels=True)
    assert (await read(path))[0].label == "secret-label"


async def test_the_outcome_knows_the_times_of_the_server_without_a_recording() -> None:
    async with Client(transport=transport_of(Scenario(queued=2.0, working=5.0))) as client:
        outcome = await client.run(assistant_id="asst_1", message="Hi", label={"n": 1})
    timeline = outcome.timeline()
    assert timeline.created_at is not None
    assert timeline.started_at is not None
    assert timeline.ended_at is not None
    assert timeline.started_at - timeline.created_at == pytest.approx(2, abs=1)
    assert timeline.ended_at - timeline.created_at == outcome.run_elapsed
    assert (timeline.began_at, timeline.finished_at) == (outcome.at - outcome.elapsed, outcome.at)
    assert (timeline.label, timeline.statuses, timeline.end_delay) == ({"n": 1}, (), None)
    assert msgspec.json.decode(timeline.to_json())["outcome"] == "Completed"


async def test_a_watch_that_is_left_is_recorded_as_left(path: Path) -> None:
    async with Client(transport=transport_of(Scenario(end="never"))) as client, Fleet(client, on_exit="leave") as fleet:
        await fleet.record(path)
        fleet.watch(await create(client, "threads"))
        await asyncio.sleep(5)
    (timeline,) = await read(path)
    assert (timeline.outcome, timeline.status, timeline.end_delay) == ("left", "in_progress", None)


async def test_a_run_that_another_process_goes_on_with_is_one_timeline(path: Path) -> None:
    async with Client(transport=transport_of(Scenario(working=60.0))) as client:
        run, cut_at = await create(client, "threads"), 0
        for on_exit in ("leave", "drain"):
            async with Fleet(client, on_exit=on_exit) as fleet:
                await fleet.record(path)
                fleet.watch(run)
                await asyncio.sleep(10)
            if on_exit == "leave":
                data = await bytes_of(path)
                cut_at = data.count(b"\n")
                await write(path, data[:-9])  # as if it had died while it wrote the end
    (timeline,) = await read(path, str(cut_at))
    assert timeline.outcome == "Completed"
    assert timeline.finished_at is not None
    assert timeline.began_at is not None
    assert timeline.finished_at - timeline.began_at > 55


async def test_a_response_that_outputs_have_created_goes_on_in_the_row_of_the_first(path: Path) -> None:
    outcome = await watched(path, "fleet", "responses", rounds=ROUNDS)
    *lines, _ = (await bytes_of(path)).splitlines(keepends=True)  # as if it had died before the end
    watch = {"kind": "watch", "n": 1, "at": 2e9, "dialect": "response", "ids": outcome.ref.ids}
    end = {"kind": "end", "n": 1, "at": 2e9 + 1, "outcome": "Completed"}
    await write(path, b"".join([*lines, lines[0], *(msgspec.json.encode(each) + b"\n" for each in (watch, end))]))
    (timeline,) = await read(path)
    assert (timeline.ref, timeline.outcome, len(timeline.calls)) == (outcome.ref, "Completed", 3)


def test_a_call_that_died_with_its_process_ends_with_it(path: Path) -> None:
    head = '{"kind":"timelines","format":1,"version":"0","at":%s}'
    watch = '{"kind":"watch","n":1,"at":%s,"dialect":"d","ids":["1"]}'
    call, end = '{"kind":"call","n":1,"c":1,"at":%s,"name":"t"}', '{"kind":"end","n":1,"at":%s,"outcome":"Completed"}'
    poll = '{"kind":"poll","n":1,"at":%s}'
    first = [head % 1, watch % 2, call % 3, poll % 4]
    second = [head % 11, watch % 12, call % 13, '{"kind":"answered","n":1,"c":1,"at":14}', end % 15]
    third = [head % 21, watch % 22, end % 23]  # the outcome is delivered a second time
    path.write_text("\n".join([*first, *second, *third, ""]))
    (timeline,) = read_timelines(path, print)
    assert [(call.began_at, call.ended_at, call.failed) for call in timeline.calls] == [(3, 4, True), (13, 14, False)]
    assert (timeline.began_at, timeline.finished_at) == (2, 15)


async def test_a_file_that_ends_anywhere_can_be_read(path: Path) -> None:
    await watched(path, "fleet", "threads", rounds=ROUNDS)
    data = await bytes_of(path)
    head = data.index(b"\n") + 1
    for end in random.Random(1).sample(range(head, len(data)), 60):
        await write(path, data[:end])
        assert len(await read(path)) <= 1


async def test_malformed_lines_are_reported_by_number_and_the_others_are_read(path: Path) -> None:
    await watched(path, "fleet", "threads")
    lines = (await bytes_of(path)).splitlines(keepends=True)
    strange = [b"\n", b"nonsense\n", b'{"kind":"poll","n":7,"at":1.0}\n', b'{"kind":"new"}\n', b"[" * 5000 + b"\n"]
    strange += [b'{"kind":"end","n":1,"at":1e308,"outcome":"Completed"}\n']
    await write(path, b"".join([*lines[:1], *strange, *lines[1:]]))
    (timeline,) = await read(path, "2", "3", "4", "5", "6", "7")
    assert timeline.outcome == "Completed"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no file of timelines"),
        ("Dear diary\n", "is no file of timelines"),
        ('{"kind":"timelines","format":2,"version":"9","at":1.0}\n', "of format 1"),
        ('{"kind":"watch","n":1,"at":1.0,"dialect":"d"}\n', "is no file of timelines"),
    ],
)
def test_another_file_is_refused(path: Path, text: str, why: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        read_timelines(path, print)


def test_a_file_without_lines_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LONGEST_LINE", 1000)
    with pytest.raises(ConfigurationError, match="is no file of timelines"):
        read_timelines("/dev/zero", print)


async def test_a_file_of_something_else_is_not_written_to(path: Path) -> None:
    await write(path, b"Dear diary\n")
    with pytest.raises(ConfigurationError, match="is no file of timelines: choose another path"):
        await TimelineFile(path).open()
    assert await bytes_of(path) == b"Dear diary\n"


async def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        await TimelineFile(tmp_path / "none" / "runs.jsonl").open()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        await TimelineFile(tmp_path).open()


async def test_two_recordings_do_not_write_to_one_file(path: Path) -> None:
    async with TimelineFile(path) as timelines:
        with pytest.raises(InvalidRequestError, match="already"):
            await timelines.open()
        with pytest.raises(ConfigurationError, match="is being written by another recording"):
            await TimelineFile(path).open()
    async with TimelineFile(path):
        pass


async def test_a_fleet_that_cannot_record_goes_on(path: Path) -> None:
    async with Client(transport=transport_of(Scenario())) as client, Fleet(client) as fleet:
        with pytest.raises(ConfigurationError):
            await fleet.record(path / "none")
        await fleet.record(path)
        with pytest.raises(InvalidRequestError, match=r"call record\(\) once"):
            await fleet.record(path)
        await fleet.run(assistant_id="asst_1", message="Hi")
    assert len(await read(path)) == 1
    with pytest.raises(InvalidRequestError):
        await fleet.record(path)


@pytest.fixture
async def small_files() -> AsyncIterator[None]:
    """Let no file grow beyond a few lines, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.usefixtures("small_files")
async def test_a_full_disk_ends_the_recording_and_not_the_watch(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = await watched(path, "alone", "threads", rounds=ROUNDS)
    assert type(outcome).__name__ == "Completed"
    assert [record.getMessage() for record in caplog.records if record.name == "asyncruns.timeline"] == [
        f"The timelines in {path} end: a line can't be written (File too large). Watches go on"
    ]


def test_two_watches_of_a_run_in_one_process_do_not_mix_their_calls(path: Path) -> None:
    head = '{"kind":"timelines","format":1,"version":"0","at":1}'
    watch = '{"kind":"watch","n":%d,"at":2,"dialect":"thread.run","ids":["thread_1","run_1"]}'
    call, answered = '{"kind":"call","n":%d,"c":1,"at":%d,"name":"t"}', '{"kind":"answered","n":%d,"c":1,"at":%d}'
    lines = [head, watch % 1, call % (1, 3), watch % 2, call % (2, 4), answered % (1, 5), answered % (2, 6)]
    path.write_text("\n".join([*lines, ""]))
    (timeline,) = read_timelines(path, print)
    assert [(call.began_at, call.ended_at, call.failed) for call in timeline.calls] == [(3, 5, False), (4, 6, False)]


def test_a_watch_whose_first_line_is_missing_is_reported_once(path: Path) -> None:
    poll = '{"kind":"poll","n":7,"at":1.0}'
    path.write_text("\n".join(['{"kind":"timelines","format":1,"version":"0","at":1}', *[poll] * 1000, ""]))
    complaints: list[str] = []
    assert read_timelines(path, complaints.append) == []
    assert complaints == ["line 2 belongs to no watch, and is left out, as others with its n"]


@pytest.mark.parametrize("label", [10**30, "\ud800", {"deep": ["\udfff"]}])
async def test_a_label_that_has_no_json_is_left_out_alone(
    path: Path, label: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with TimelineFile(path, labels=True) as timelines:
        timelines.watch(REF, None, "", "", "first")
        timelines.watch(RunRef("thread.run", ("thread_1", "run_\ud800")), None, "", "", label)
        timelines.watch(RunRef("thread.run", ("thread_1", "run_3")), None, "", "", "third")
    assert [timeline.label for timeline in await read(path)] == ["first", None, "third"]
    assert not caplog.records


@pytest.mark.usefixtures("small_files")
async def test_a_file_is_closed_and_can_be_recorded_again_after_a_full_disk(path: Path) -> None:
    timelines = TimelineFile(path)
    await timelines.open()
    for _ in range(20):
        timelines.watch(REF, None, "", "")
    await asyncio.sleep(2)
    timelines.watch(REF, None, "", "")
    before = await bytes_of(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    await timelines.aclose()
    assert await bytes_of(path) == before  # nothing follows the line that was cut
    async with TimelineFile(path):
        pass  # nobody holds its lock


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait in a thread, for at most 5 s, until what another thread does is done."""
    until = time.monotonic() + 5.0
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)


async def test_a_file_is_closed_even_if_its_caller_is_cancelled(path: Path) -> None:
    timelines = TimelineFile(path)
    await timelines.open()
    thread, free = timelines._writer._thread, threading.Event()
    assert thread is not None
    thread.submit(free.wait)
    closing = asyncio.create_task(timelines.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    free.set()
    await asyncio.to_thread(wait_for, lambda: timelines._writer._descriptor < 0)
    async with TimelineFile(path):
        pass


async def test_virtual_time_waits_for_lines_that_are_being_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all = writing.LineWriter._write_all

    def slowly(writer: writing.LineWriter, data: bytes) -> None:
        time.sleep(0.1)
        write_all(writer, data)

    async with TimelineFile(path) as timelines:
        monkeypatch.setattr(writing.LineWriter, "_write_all", slowly)
        timelines.watch(REF, None, "", "")
        await asyncio.sleep(2)
        assert b'"kind":"watch"' in await bytes_of(path)


async def test_lines_are_written_within_a_second(path: Path) -> None:
    async with Client(transport=transport_of(Scenario(end="never"))) as client, Fleet(client, on_exit="leave") as fleet:
        await fleet.record(path)
        fleet.watch(await create(client, "threads"))
        await asyncio.sleep(5)
        (timeline,) = await read(path)
        assert timeline.status == "in_progress"


async def test_lines_are_dropped_while_the_disk_takes_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 1)
    monkeypatch.setattr(writing, "MOST_AT_ONCE", 2)
    timelines = TimelineFile(path)
    await timelines.open()
    for _ in range(3):
        for text in ("one", "two"):
            timelines.watch(REF, None, "https://host.example/v1", "", text)
    monkeypatch.setattr(writing, "MOST_WAITING", 100)
    timelines.watch(REF, None, "", "")
    await timelines.aclose()
    complaints: list[str] = []
    await asyncio.to_thread(read_timelines, path, complaints.append)
    assert complaints == ["6 lines were lost before line 3: the disk was too slow"]


async def test_several_telemetries_follow_a_client(tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with TimelineFile(tmp_path / "a.jsonl") as one, TimelineFile(tmp_path / "b.jsonl") as two:
        telemetry = (one, OpenTelemetry(tracer_provider=provider), two)
        client = Client(transport=transport_of(Scenario(rounds=ROUNDS)), telemetry=telemetry)
        async with client, Fleet(client, tools=tools) as fleet:
            await fleet.record(tmp_path / "c.jsonl")
            await fleet.watch(await create(client, "threads"))
    names = [span.name for span in spans.get_finished_spans()]
    assert names.count("execute_tool compute") == 2
    assert names.count("asyncruns.submit") == 2
    found = [(await read(tmp_path / name))[0] for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    assert [len(timeline.calls) for timeline in found] == [3, 3, 3]


def test_what_is_no_telemetry_is_refused() -> None:
    for wrong in (TimelineFile, "otel", [None, 3]):
        with pytest.raises(ConfigurationError, match="telemetry must be a Telemetry"):
            Client("http://127.0.0.1:1", telemetry=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended_at", "offset", "polls", "expected"),
    [
        (None, None, ((8.0, 1.0), (12.0, 1.0)), 9.5),  # in the middle between the polls: 7 was the last sight
        (None, None, ((12.0, 1.0),), None),  # never seen at work
        (10.25, 0.0, ((8.0, 1.0), (12.0, 1.0)), 10.25),  # as the server says
        (10.0, 0.0, ((8.0, 1.0), (12.0, 1.0)), 10.5),  # within the second that it says
        (9.25, 1.0, ((8.0, 1.0), (12.0, 1.0)), 10.25),  # whose clock is a second behind
        (3.0, 0.0, ((8.0, 1.0), (12.0, 1.0)), 7.0),  # no earlier than the last sight
        (20.0, 0.0, ((8.0, 1.0), (12.0, 1.0)), 12.0),  # no later than it was noticed
    ],
)
def test_the_end_is_estimated(
    ended_at: float | None, offset: float | None, polls: tuple[tuple[float, float], ...], expected: float | None
) -> None:
    timeline = RunTimeline(
        ref=REF,
        finished_at=12.0,
        ended_at=ended_at,
        clock_offset=offset,
        statuses=(TimedStatus(1.0, "queued", "pending"), TimedStatus(12.0, "completed", "succeeded")),
        calls=(TimedCall("call_1", "look_up", 2.0, 3.0),),
        polls=tuple(TimedRequest(at, took) for at, took in polls),
    )
    assert timeline.estimated_end == expected
    assert timeline.end_delay == (None if expected is None else 12.0 - expected)


class Broken(Telemetry):
    """Raises at everything."""

    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        raise RuntimeError("broken")

    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        raise RuntimeError("broken")


async def test_a_telemetry_that_raises_does_not_affect_the_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with TimelineFile(path) as timelines:
        client = Client(transport=transport_of(Scenario(rounds=ROUNDS)), telemetry=[Broken(), timelines])
        async with client, RunWatcher(client, await create(client, "threads"), tools=tools) as watcher:
            await watcher.wait()
    assert len((await read(path))[0].calls) == 3
    assert len([record for record in caplog.records if "telemetry raised" in record.getMessage()]) == 1
