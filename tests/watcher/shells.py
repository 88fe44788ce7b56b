"""The shells that watch a run (`RunWatcher` and `Fleet`) with one interface, so that one suite tests both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal

from asyncruns import Cadence, Ended, Fleet, RunRef, RunWatcher
from asyncruns.abc import RunClient
from asyncruns.fleet import Watch
from asyncruns.lifecycle import Notice
from asyncruns.streams.event_stream import EventStream
from asyncruns.watch.call_answerer import GivenOutputs
from asyncruns.watch.outcome import AnyOutcome


class FleetOfOne:
    """A fleet that watches one run, with the interface of a `RunWatcher`.

    It has no limit of its own, polls as often as a single watch does, and does not wait for the end when it is left.
    """

    def __init__(
        self,
        connection: RunClient[Any],
        run: Any = None,
        *,
        on_exit: Literal["drain", "leave", "cancel"] = "leave",
        thread_id: str | None = None,
        run_id: str | None = None,
        **options: Any,
    ) -> None:
        ids: dict[str, Any] = {"thread_id": thread_id, "run_id": run_id}
        self._run = run
        self._ids = {name: id_ for name, id_ in ids.items() if id_ is not None}
        is_stream = isinstance(run, EventStream)
        self._ref = RunRef(connection.dialect.name, ()) if is_stream else connection.dialect.identify(run, self._ids)
        options.setdefault("cadence", Cadence.hinted())
        self.fleet: Fleet[Any] = Fleet(connection, requests_per_second=None, on_exit=on_exit, **options)
        self._watch: Watch[Any] | None = None

    async def __aenter__(self) -> FleetOfOne:
        await self.fleet.__aenter__()
        self._watch = self.fleet.watch(self._run, **self._ids)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.fleet.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return repr(self._watch)

    @property
    def watch(self) -> Watch[Any]:
        assert self._watch is not None, "enter it first"
        return self._watch

    async def wait(self) -> AnyOutcome[Any]:
        return await self.watch

    def __aiter__(self) -> AsyncIterator[Notice | Ended[Any]]:
        return aiter(self.watch)

    def subscribe(self) -> AsyncGenerator[Any]:
        return self.watch.subscribe()

    async def submit(self, outputs: GivenOutputs) -> None:
        await self.watch.submit(outputs)

    def poll_now(self) -> None:
        self.watch.poll_now()

    async def cancel_run(self) -> None:
        await self.watch.cancel_run()

    @property
    def ref(self) -> RunRef:
        return self._ref if self._watch is None else self._watch.ref

    @property
    def polls(self) -> int:
        return 0 if self._watch is None else self._watch.polls

    @property
    def status(self) -> str:
        return "" if self._watch is None else self._watch.status

    @property
    def outcome(self) -> AnyOutcome[Any] | None:
        return None if self._watch is None else self._watch.outcome


OneWatch = RunWatcher[Any] | FleetOfOne
Shell = Callable[..., OneWatch]
"""Takes the arguments of `RunWatcher`."""

SHELLS: Final[Mapping[str, Shell]] = {"watcher": RunWatcher, "fleet": FleetOfOne}


def is_running(watch: OneWatch) -> bool:
    """Return whether the watch accepts events from its caller, as it does from its first step until it is left."""
    return watch.fleet.is_running if isinstance(watch, FleetOfOne) else watch._engine.is_running


async def watched(shell: Shell, connection: Any, run: Any = None, **options: Any) -> AnyOutcome[Any]:
    """Watch a run until the watch finishes."""
    async with shell(connection, run, **options) as watch:
        return await watch.wait()
