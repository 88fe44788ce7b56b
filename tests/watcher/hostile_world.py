"""A hostile world: a server with faults, watches whose tools misbehave, other clients of the run, and the truth."""

from __future__ import annotations

import asyncio
import json
import math
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from hostile_plan import REQUEST_TIMEOUT_S, Plan
from msgspec import UNSET, UnsetType
from shells import OneWatch, Shell

from asyncruns import CancelRefused, Client, Ended, OutputsSubmitted, RunRef, RunWatcher, Toolset
from asyncruns.abc import RunClient
from asyncruns.testing import Emulator
from asyncruns.testing.emulator import SeenRequest
from asyncruns.testing.emulator.refusals import RefusedError
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES
from asyncruns.tools import worker_threads as threads
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

HELD_THREAD_S: Final = (
    30.0  # in real time, as fifteen virtual minutes take some; closing the world releases the threads before
)


def free_port() -> int:
    """Return a port that a server may leave and take again.

    It is below the ports of clients: a client on the port of a server that is down may connect to itself.
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class TellingEmulator(Emulator):
    """An emulator that records the requests that it refused itself, without those refused by a fault."""

    def __init__(self, plan: Plan, port: int) -> None:
        super().__init__(plan.scenario, port=port, clock_skew=plan.clock_skew, poll_after_ms=plan.poll_after_ms)
        self.refused: list[tuple[str, str]] = []

    def _act(self, seen: SeenRequest, *arguments: Any, **options: Any) -> Any:
        answer = super()._act(seen, *arguments, **options)
        if answer.status >= 400:
            self.refused.append((seen.operation, json.loads(answer.body)["error"]["message"]))
        return answer


class Watch:
    """One watch of the run, in a task of its own, with a record of what its tools did."""

    def __init__(
        self, world: World, number: int, timeout: float | UnsetType | None, on_exit: Literal["leave", "cancel"]
    ) -> None:
        self.number = number
        self.timeout = timeout
        self.on_exit = on_exit
        self.executed: Counter[tuple[str, int]] = Counter()
        self.accepted = 0  # rounds whose outputs were reported as submitted
        self.cancel_asked_at = math.inf
        self.cancel_refused_at = math.inf  # the cancel is sent again when the status has changed
        self.began_at = world.loop.time()  # or when it was resumed
        self.was_taken_up = False  # resumed by a cancel, after it had finished before its run
        self.left = False
        self.ends: list[AnyOutcome[Run]] = []
        self._world = world
        self._leave = asyncio.Event()
        self._ended = asyncio.Event()
        self.watcher: OneWatch = world.shell(
            world.connection, world.watched(), tools=self._tools(), timeout=timeout, on_exit=on_exit, **world.options
        )
        self.task = world.loop.create_task(self._live())
        self.task.add_done_callback(lambda _: self._ended.set())

    @property
    def outcome(self) -> AnyOutcome[Run] | None:
        return self.watcher.outcome

    @property
    def is_over(self) -> bool:
        return self.task.done() or self.outcome is not None

    @property
    def is_leaving(self) -> bool:
        return self._leave.is_set() or self.left or self.task.cancelling() > 0

    async def until_over(self) -> None:
        while not self.is_over:
            self._ended.clear()
            await self._ended.wait()

    def leave(self) -> None:
        self._leave.set()

    async def _live(self) -> None:
        try:
            async with self.watcher as watcher:
                readers = {
                    asyncio.ensure_future(self._read(watcher)),
                    asyncio.ensure_future(self._world.poll_on(watcher)),
                }
                try:
                    await self._leave.wait()
                finally:
                    for reader in readers:
                        reader.cancel()
                    await asyncio.wait(readers)
                    for reader in readers:
                        if not reader.cancelled() and reader.exception() is not None:
                            self._world.complain(repr(reader.exception()))
        finally:
            self.left = True

    async def _read(self, watcher: OneWatch) -> None:
        was_taken_up_again = True
        while was_taken_up_again:
            was_taken_up_again = False
            async for event in watcher:
                if isinstance(event, OutputsSubmitted):
                    self.accepted += 1
                elif isinstance(event, CancelRefused):
                    self.cancel_asked_at, self.cancel_refused_at = math.inf, self._world.loop.time()
                elif isinstance(event, Ended):
                    self.ends.append(event.outcome)
                    self._ended.set()
                    was_taken_up_again = True

    async def cancel_run(self) -> None:
        self._world.cancel_was_asked = True
        if self.outcome is not None and self.outcome.reason is not None:
            self.began_at = self._world.loop.time()
            self.was_taken_up = True
        if self.outcome is None or self.outcome.reason is not None:
            self.cancel_asked_at = min(self.cancel_asked_at, self._world.loop.time())
        await self.watcher.cancel_run()

    def _tools(self) -> Toolset:
        begun = self._begun

        async def quick(n: int) -> str:
            return begun("quick", n)

        async def slow(n: int) -> str:
            output = begun("slow", n)
            await asyncio.sleep(3.0)
            return output

        async def raises(n: int) -> str:
            raise ValueError(begun("raises", n))

        async def hangs(n: int) -> str:
            begun("hangs", n)
            await asyncio.get_running_loop().create_future()
            return "never"

        def in_thread(n: int) -> str:
            return begun("in_thread", n)

        def hangs_in_thread(n: int) -> str:
            begun("hangs_in_thread", n)
            with self._world.in_a_thread():
                self._world.let_go.wait(HELD_THREAD_S)
            return "too late"

        return Toolset([quick, slow, raises, hangs, in_thread, hangs_in_thread])

    def _begun(self, name: str, n: int) -> str:
        self.executed[name, n] += 1
        if self._world.loop.time() > self.cancel_asked_at:
            self._world.complain(f"{name} {n} began after the cancel")
        return f"{name} {n} by {self.number}"


class World:
    """The whole world, on a loop that the caller owns. `begin` starts the server and creates the run."""

    shell: Shell = RunWatcher  # of the watches

    def __init__(self, loop: asyncio.AbstractEventLoop, plan: Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.emulator = TellingEmulator(plan, free_port())
        self.is_up = False
        self.watches: list[Watch] = []
        self.theirs: set[int] = set()  # rounds that another party answered
        self.cancelled_by_others = False
        self.cancel_was_asked = False  # by a watch of this world
        self.let_go = threading.Event()
        self.held_threads: set[threading.Thread] = set()
        self.complaints: list[str] = []
        self.client: Client
        self.connection: RunClient[Any]
        self.options: dict[str, Any] = {}  # of the watches
        self.ref: RunRef
        self._threads_before = threads.running()
        loop.set_exception_handler(lambda _, context: self.complain(repr(context)))

    def complain(self, what: str) -> None:
        """Record a broken promise, where an exception would not be noticed."""
        self.complaints.append(what)

    @contextmanager
    def in_a_thread(self) -> Iterator[None]:
        self.held_threads.add(threading.current_thread())
        try:
            yield
        finally:
            self.held_threads.discard(threading.current_thread())

    async def begin(self) -> None:
        await self.start()
        self.client = Client(self.emulator.base_url, request_timeout=REQUEST_TIMEOUT_S)
        await self.begin_run()
        self.emulator.requests.clear()

    async def begin_run(self) -> None:
        """Create the run, and set the client that watches it."""
        self.connection = self.client
        assistant = await self.client.assistants.create(model="gpt-4o")
        thread = await self.client.threads.create()
        run = await self.client.threads.runs.create(thread.id, assistant_id=assistant.id)
        self.ref = self.client.dialect.identify(run, {})

    def watched(self) -> Any:
        """Return what the next watch gets as its run."""
        return self.ref

    async def poll_on(self, watcher: OneWatch) -> None:
        """Do something concurrently with a watch; for subclasses."""

    async def start(self) -> None:
        if not self.is_up:
            await self.emulator.start()
            self.is_up = True

    async def stop(self) -> None:
        await self.emulator.stop()
        self.is_up = False

    def watch(self, timeout: float | UnsetType | None = UNSET, on_exit: Literal["leave", "cancel"] = "leave") -> Watch:
        self.cancel_was_asked |= on_exit == "cancel"
        self.watches.append(Watch(self, len(self.watches), timeout, on_exit))
        return self.watches[-1]

    # The truth

    @property
    def run_id(self) -> str:
        return self.ref.ids[1]

    @property
    def status(self) -> str:
        return str(self.emulator.runs[self.run_id]["status"])

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def age(self) -> float:
        return self.emulator.now() - float(self._run.created)

    @property
    def _run(self) -> Any:
        return self.emulator._store.runs.all[self.run_id]

    @property
    def rounds(self) -> list[tuple[float, Mapping[str, str]]]:
        """The accepted rounds: the age of the run, and the outputs by call id."""
        return [(one.at - self._run.created, one.outputs) for one in self._run.submissions]

    def asked(self, place: int) -> list[tuple[str, str]]:
        """The calls of a round, as (id, name)."""
        return [(call.id, call.name) for call in self._run.rounds[place]]

    @property
    def was_cancelled(self) -> bool:
        return self._run.cancelled is not None

    # Other clients, whose connections have no faults

    def others_cancel(self) -> None:
        self.cancelled_by_others |= self._try(lambda: self._runs.cancel(*self.ref.ids, self.emulator.now()))

    def others_submit(self) -> None:
        place = len(self._run.submissions)
        if place >= len(self._run.rounds):
            return
        outputs = [{"tool_call_id": id, "output": "theirs"} for id, _ in self.asked(place)]
        body = {"tool_outputs": outputs}
        if self._try(lambda: self._runs.submit(*self.ref.ids, body, self.emulator.now())):
            self.theirs.add(place)

    @property
    def _runs(self) -> Any:
        return self.emulator._store.runs

    def _try(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except RefusedError:
            return False
        return True

    # The end

    async def leave(self) -> None:
        """Leave all watches."""
        for watch in self.watches:
            watch.leave()
        if self.watches:
            await asyncio.wait({watch.task for watch in self.watches})

    async def close(self) -> None:
        """Close everything that was opened, after all watches were left."""
        self.let_go.set()
        await self.client.close()
        await self.stop()

    def leftovers(self) -> list[str]:
        """Return the tasks, sockets and threads that are left after `close`."""
        self.loop.run_until_complete(asyncio.sleep(0))
        left = [f"task {task!r}" for task in asyncio.all_tasks(self.loop)]
        selector: Any = self.loop._selector  # type: ignore[attr-defined]
        own_pipe = 1
        left += [f"socket {key!r}" for key in list(selector.get_map().values())[own_pipe:]]
        for thread in list(self.held_threads):
            thread.join(HELD_THREAD_S)
        if threads.running() > self._threads_before:
            left.append(f"{threads.running()} places of threads")
        return left + self.complaints
