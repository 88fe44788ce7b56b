"""A caller that is cancelled early, or closes its client, or ends its loop, may still have a run to cancel."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

import anyio
import pytest
from scripted import Scripted, error, lost, ok, scene
from shells import Shell

from asyncruns import Cancelled, Client, Fleet, RunWatcher, Toolset
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.testing import Emulator, FunctionCall, InMemoryTransport, Scenario, VirtualTimeLoop
from asyncruns.wire import Run

CREATE_TAKES_S: Final = 1.0
ASSISTANT: Final = "asst_1"
MODEL: Final = "gpt-test"


class Server(Transport):
    """A server in memory whose creates take effect at once, but are answered after a second."""

    def __init__(self, creates_take: float = CREATE_TAKES_S) -> None:
        self.inner = InMemoryTransport(latency=0.01)
        lasting = Scenario(end="never", cancelling=0.05)
        self.inner.script(lasting, assistant_id=ASSISTANT)
        self.inner.script(lasting, model=MODEL)
        self.creates_take = creates_take
        self.creates: list[str] = []
        self.cancels: list[str] = []
        self.is_closed = False

    async def send(self, request: Request) -> Response:
        if request.path.endswith("/cancel"):
            self.cancels.append(request.path)
        answer = await self.inner.send(request)
        if request.method == "POST" and request.path.endswith(("/runs", "/responses")):
            self.creates.append(json.loads(answer.body)["id"])
            await asyncio.sleep(self.creates_take)
        return answer

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self.inner.stream(request)

    async def aclose(self) -> None:
        self.is_closed = True


async def run_a_thread(client: Client, **options: Any) -> Any:
    return await client.run(assistant_id=ASSISTANT, message="Go", **options)


async def run_a_thread_without_a_nonce(client: Client, **options: Any) -> Any:
    return await client.run(assistant_id=ASSISTANT, message="Go", adopt=False, **options)


async def run_a_model(client: Client, **options: Any) -> Any:
    return await client.run(model=MODEL, message="Go", **options)


RUNS: Final[list[Callable[..., Coroutine[Any, Any, Any]]]] = [run_a_thread, run_a_thread_without_a_nonce, run_a_model]


async def cancelled_while_it_creates(server: Server, work: Coroutine[Any, Any, Any], times: int = 1) -> float:
    """Cancel some work while its create is pending; return how many seconds it then took to end."""
    task = asyncio.create_task(work)
    while not server.creates:
        await anyio.sleep(0.01)
    began = anyio.current_time()
    for _ in range(times):
        task.cancel()
        await anyio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    return anyio.current_time() - began


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("run", RUNS)
async def test_a_run_whose_create_is_pending_when_its_caller_is_cancelled_is_cancelled(
    run: Callable[..., Coroutine[Any, Any, Any]], times: int
) -> None:
    server = Server()
    reported: list[Any] = []
    client = Client(transport=server)
    took = await cancelled_while_it_creates(server, run(client, on_exit="cancel", on_terminal=reported.append), times)
    assert took == pytest.approx(CREATE_TAKES_S, abs=0.5)
    assert (len(server.creates), len(server.cancels)) == (1, 1)
    assert [type(outcome) for outcome in reported] == [Cancelled]


@pytest.mark.parametrize("run", RUNS)
async def test_a_scope_that_is_left_while_a_run_is_created_has_the_run_cancelled(
    run: Callable[..., Coroutine[Any, Any, Any]],
) -> None:
    server = Server()
    with anyio.move_on_after(0.5):
        await run(Client(transport=server), on_exit="cancel")
    assert (len(server.creates), len(server.cancels)) == (1, 1)


@pytest.mark.parametrize("run", RUNS)
async def test_a_run_that_goes_on_although_its_caller_was_cancelled_is_named_by_a_warning(
    run: Callable[..., Coroutine[Any, Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    await cancelled_while_it_creates(server, run(Client(transport=server)))
    assert server.cancels == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert server.creates[0] in record.getMessage()


async def process(client: Client, thread_id: str) -> Run:
    return await client.threads.runs.create_and_process(thread_id, agent_id=ASSISTANT)


async def create_and_poll(client: Client, thread_id: str) -> Run:
    return await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=ASSISTANT)


async def create_and_run_poll(client: Client, thread_id: str) -> Run:
    return await client.threads.create_and_run_poll(assistant_id=ASSISTANT)


@pytest.mark.parametrize("helper", [process, create_and_poll, create_and_run_poll])
async def test_the_helpers_that_create_and_wait_name_the_run_that_goes_on(
    helper: Callable[..., Coroutine[Any, Any, Run]], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    client = Client(transport=server)
    thread = await client.threads.create()
    await cancelled_while_it_creates(server, helper(client, thread.id))
    assert server.creates[0] in caplog.text


async def test_a_create_that_hangs_delays_a_cancelled_caller_for_a_few_seconds_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(creates_take=1000.0)
    client = Client(transport=server)
    took = await cancelled_while_it_creates(server, run_a_model(client, on_exit="cancel"))
    assert took == pytest.approx(5.0, abs=0.1)
    assert "a run may go on" in caplog.text


async def test_a_caller_that_is_cancelled_while_another_run_holds_the_thread_creates_nothing() -> None:
    server = Server(creates_take=0.0)
    client = Client(transport=server)
    holder = await client.threads.create_and_run(assistant_id=ASSISTANT)
    work = client.run(
        assistant_id=ASSISTANT, message="Go", thread_id=holder.thread_id, on_busy="wait", on_exit="cancel"
    )
    task = asyncio.create_task(work)
    await anyio.sleep(5.0)
    began = anyio.current_time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert anyio.current_time() == began
    assert (len(server.creates), server.cancels) == (1, [])


@pytest.mark.parametrize("passes", [1, 2, 10, 60, 200])
async def test_watches_that_are_cancelled_a_few_passes_after_they_were_started_cancel_their_runs(passes: int) -> None:
    server = Server(creates_take=0.0)
    client = Client(transport=server)
    runs = [await client.threads.create_and_run(assistant_id=ASSISTANT) for _ in range(120)]
    responses = [await client.responses.create(model=MODEL, input="Go", background=True) for _ in range(80)]
    both: list[Any] = [*runs, *responses]
    watches: list[asyncio.Task[Any]] = [asyncio.create_task(client.watch(run, on_exit="cancel")) for run in both]
    watches += [
        asyncio.create_task(client.threads.runs.watch(run.id, thread_id=run.thread_id, on_exit="cancel"))
        for run in [await client.threads.create_and_run(assistant_id=ASSISTANT)]
    ]
    for _ in range(passes):
        await asyncio.sleep(0)
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    assert len(set(server.cancels)) == 201


async def test_leaving_a_stream_before_it_names_its_run_still_cancels_the_run() -> None:
    async with Emulator(Scenario(end="never", cancelling=0.05)) as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(end="never", cancelling=0.05), assistant_id=ASSISTANT)
        thread = await client.threads.create()
        stream = await client.threads.runs.create(thread.id, assistant_id=ASSISTANT, stream=True)
        task = asyncio.create_task(client.watch(stream, on_exit="cancel"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [body["status"] for body in emulator.runs.values()] == ["cancelled"]


async def test_a_follow_up_that_is_pending_when_its_caller_is_cancelled_is_cancelled(shell: Shell) -> None:
    server = Server(creates_take=0.0)
    lasting = Scenario(rounds=((FunctionCall("f", {}),),), end="never", cancelling=0.05)
    server.inner.script(lasting, model=MODEL)
    client = Client(transport=server)
    response = await client.responses.create(model=MODEL, input="Go", background=True)
    server.creates_take = 1.0

    async def f() -> str:
        return "out"

    async def watch() -> None:
        connection = client.responses.continued()
        async with shell(connection, response, tools=Toolset([f]), on_exit="cancel") as watcher:
            await watcher.wait()

    task = asyncio.create_task(watch())
    while len(server.creates) < 2:
        await anyio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.cancels == [f"/responses/{server.creates[1]}/cancel"]


# Closing a client


async def gathered_under_a_timeout(client: Client, run: Run) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await asyncio.gather(client.watch(run, on_exit="cancel"), asyncio.sleep(60.0))


async def cancelled_and_not_awaited(client: Client, run: Run) -> None:
    task = asyncio.create_task(client.watch(run, on_exit="cancel"))
    await asyncio.sleep(0.5)
    task.cancel()


async def neither_cancelled_nor_awaited(client: Client, run: Run) -> None:
    client.kept = asyncio.create_task(client.watch(run, on_exit="cancel"))  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)


async def a_fleet_that_is_cancelled_and_not_awaited(client: Client, run: Run) -> None:
    async def watch() -> None:
        async with Fleet(client, on_exit="cancel") as fleet:
            await fleet.watch(run)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.5)
    task.cancel()


async def a_fleet_that_goes_on(client: Client, run: Run) -> None:
    fleet = await Fleet(client, on_exit="cancel").__aenter__()
    fleet.watch(run)
    client.kept = fleet  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)


CLOSINGS: Final = [
    gathered_under_a_timeout,
    cancelled_and_not_awaited,
    neither_cancelled_nor_awaited,
    a_fleet_that_is_cancelled_and_not_awaited,
    a_fleet_that_goes_on,
]


@pytest.mark.parametrize("leave", CLOSINGS)
async def test_closing_a_client_waits_for_pending_cancels(
    leave: Callable[[Client, Run], Coroutine[Any, Any, None]],
) -> None:
    async with Emulator() as emulator:
        emulator.script(Scenario(end="never", cancelling=0.05), assistant_id=ASSISTANT)
        async with Client(emulator.base_url) as client:
            run = await client.threads.create_and_run(assistant_id=ASSISTANT)
            await leave(client, run)
            began = anyio.current_time()
        assert anyio.current_time() - began < 3.0
        assert emulator.runs[run.id]["status"] == "cancelled"
        await asyncio.sleep(1.0)


async def test_closing_a_client_waits_for_a_create_that_is_pending() -> None:
    server = Server()
    async with Client(transport=server) as client:
        task = asyncio.create_task(run_a_model(client, on_exit="cancel"))
        while not server.creates:
            await anyio.sleep(0.01)
        task.cancel()
    assert len(server.cancels) == 1


async def test_closing_a_client_waits_for_a_few_seconds_only(caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator() as emulator:
        emulator.script(Scenario(end="never", cancelling=float("inf")), assistant_id=ASSISTANT)
        async with Client(emulator.base_url) as client:
            run = await client.threads.create_and_run(assistant_id=ASSISTANT)
            task = asyncio.create_task(client.watch(run, on_exit="cancel"))
            await asyncio.sleep(0.5)
            began = anyio.current_time()
        assert anyio.current_time() - began == pytest.approx(5.0, abs=1.0)
        await task
        assert run.id in caplog.text


async def test_closing_a_client_waits_for_a_fleet_as_long_as_its_budget_needs(caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator() as emulator:
        emulator.script(Scenario(end="never", cancelling=0.1), assistant_id=ASSISTANT)
        async with Client(emulator.base_url) as client:
            runs = [await client.threads.create_and_run(assistant_id=ASSISTANT) for _ in range(40)]
            async with Fleet(client, on_exit="cancel", requests_per_second=5.0) as fleet:
                watches = [fleet.watch(run) for run in runs]
                await client.close()
                assert [type(watch.outcome) for watch in watches] == [Cancelled] * 40
        assert caplog.text == ""


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_watches_over_a_borrowed_transport_go_on_when_their_client_is_closed(
    on_exit: Literal["leave", "cancel"],
) -> None:
    server = Server(creates_take=0.0)
    client = Client(transport=server)
    run = await client.threads.create_and_run(assistant_id=ASSISTANT)
    async with RunWatcher(client, run, on_exit=on_exit) as watcher:
        await anyio.sleep(1.0)
        await client.close()
        assert watcher.outcome is None


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
@pytest.mark.parametrize("where", ["body", "tool", "handler", "observer", "a tool of a fleet"])
async def test_a_client_may_be_closed_from_within_a_watch(on_exit: Literal["leave", "cancel"], where: str) -> None:
    async with Emulator() as emulator:
        calls = (FunctionCall("f", {}),) if where != "body" else ()
        emulator.script(Scenario(rounds=(calls,) if calls else (), end="never"), assistant_id=ASSISTANT)
        client = Client(emulator.base_url)
        closed: list[float] = []

        async def close(_: object = None) -> None:
            began = anyio.current_time()
            try:
                await client.close()
            finally:
                closed.append(anyio.current_time() - began)

        async def closing() -> None:
            await close()

        tools = Toolset({"f": closing}) if "tool" in where else None
        run = await client.threads.create_and_run(assistant_id=ASSISTANT)
        with contextlib.suppress(Exception):
            if where == "a tool of a fleet":
                async with Fleet(client, tools=tools, on_exit=on_exit, timeout=20.0) as fleet:
                    await fleet.watch(run)
            else:
                observer = close if where == "observer" else None
                handler = close if where == "handler" else None
                async with RunWatcher(
                    client,
                    run,
                    tools=tools,
                    on_status=observer,
                    on_requires_action=handler,
                    on_exit=on_exit,
                    timeout=20.0,
                ) as watcher:
                    if where == "body":
                        await close()
                    await watcher.wait()
        assert closed
        assert max(closed) < 1.0
        if on_exit == "cancel":
            assert emulator.runs[run.id]["status"] in ("cancelling", "cancelled")
        await client.close()


# The end of the loop


def ends_with(main: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a program and end it with running tasks, as `asyncio.run` does, which cancels all of them once."""
    complaints: list[str] = []

    async def listening() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        await main()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(listening())
    assert complaints == []


@pytest.mark.parametrize("after", [0.0, 0.005, 0.015, 0.3, 3.0])
@pytest.mark.parametrize("how", ["watched", "forgotten"])
def test_a_watch_that_goes_on_when_the_loop_ends_cancels_its_run(shell: Shell, after: float, how: str) -> None:
    reported: list[Any] = []
    stage = scene(
        lambda: ok("cancelled" if "cancel" in stage.transport.finished else "in_progress"), cancels=[ok("cancelling")]
    )
    kept: list[object] = []

    async def watch() -> None:
        watcher = shell(stage, stage.ref, on_exit="cancel", on_terminal=reported.append)
        kept.append(watcher)
        if how == "forgotten":
            await watcher.__aenter__()
            return
        async with watcher:
            await watcher.wait()

    async def main() -> None:
        kept.append(asyncio.create_task(watch()))
        await asyncio.sleep(0)
        await asyncio.sleep(after)

    ends_with(main)
    assert stage.transport.count("cancel") == 1
    assert [type(outcome) for outcome in reported] == [Cancelled]


@pytest.mark.parametrize("refusal", [error(503), lost(), error(400, "Run is queued")])
def test_a_cancel_that_fails_while_the_loop_ends_is_sent_again(shell: Shell, refusal: Scripted) -> None:
    stage = scene(*[ok("queued")] * 4, *[ok("in_progress")] * 8, ok("cancelled"), cancels=[refusal, ok("cancelling")])

    async def watch() -> None:
        async with shell(stage, stage.ref, on_exit="cancel") as watcher:
            await watcher.wait()

    async def main() -> None:
        stage.task = asyncio.create_task(watch())  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)

    ends_with(main)
    assert stage.transport.count("cancel") == 2


def test_tools_and_a_cancel_that_is_in_flight_are_cut_off_when_the_loop_ends_and_the_run_is_cancelled(
    shell: Shell,
) -> None:
    polls: list[Scripted] = [*[ok("requires_action", ("call_1", "f", "{}"))] * 6, ok("cancelled")]
    stage = scene(*polls, cancels=[ok("cancelling")], cancels_take=0.4)

    async def f() -> None:
        await asyncio.sleep(100.0)

    async def watch() -> None:
        async with shell(stage, stage.ref, tools=Toolset([f]), on_exit="cancel") as watcher:
            await watcher.wait()

    async def main() -> None:
        task = asyncio.create_task(watch())
        await asyncio.sleep(3.0)
        task.cancel()
        await asyncio.sleep(0.2)

    ends_with(main)
    assert stage.transport.count("cancel") == 2
    assert stage.transport.finished.count("cancel") == 1


def test_a_run_whose_create_is_cut_off_when_the_loop_ends_is_found_and_cancelled() -> None:
    servers: list[Server] = []

    async def main() -> None:
        server = Server()
        servers.append(server)
        server.task = asyncio.create_task(run_a_thread(Client(transport=server), on_exit="cancel"))  # type: ignore[attr-defined]
        while not server.creates:
            await asyncio.sleep(0.01)

    ends_with(main)
    assert (len(servers[0].creates), len(servers[0].cancels)) == (1, 1)


def test_a_create_that_is_cut_off_when_the_loop_ends_and_cannot_be_found_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Server()
        server.task = asyncio.create_task(run_a_model(Client(transport=server), on_exit="cancel"))  # type: ignore[attr-defined]
        while not server.creates:
            await asyncio.sleep(0.01)

    ends_with(main)
    assert "a run may go on" in caplog.text
