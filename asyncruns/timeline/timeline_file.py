"""Writes what watches do to a file, as they go, from which `asyncruns timeline` makes a picture.

It must never write what models, tools and callers write, but labels if the caller asks for that; nor a credential.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import AsyncOnly, Telemetry, WatchTrace
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Call, Notice, Observed, Refused, RunRef, StatusChanged
from asyncruns.lifecycle.run_shapes import dialect_and_ids
from asyncruns.timeline.line_writer import LineWriter
from asyncruns.timeline.lines import AnsweredLine, CallLine, EndLine, PollLine, SentLine, StatusLine, WatchLine
from asyncruns.timeline.values import ServerFacts, server_facts
from asyncruns.wire.plain import is_plain, plain_value

_DIGITS: Final = 3  # of times in seconds


class TimelineFile(AsyncOnly, Telemetry):
    """Writes the timelines of watches to a file, as lines of JSON: when a run had which status, its calls, its polls.

        async with TimelineFile("runs.jsonl") as timelines:
            client = Client.from_env(telemetry=timelines)

    `asyncruns timeline runs.jsonl -o runs.html` makes a picture of it. `fleet.record(path)` is the same for one fleet.
    What happened is written within a second; after a crash of the process, the file has what was written until then. A
    file that another process has written goes on. Arguments, outputs and messages are not written. If a line can't be
    written, as on a full disk, a warning is logged, nothing more is written, and the watches go on.

    Args:
        path: The file. It is created for its owner alone.
        labels: Whether labels of watches are written, if they are plain JSON. Default False: they may be secret.
    """

    def __init__(self, path: str | os.PathLike[str], *, labels: bool = False) -> None:
        self._writer = LineWriter(path)
        self._labels = labels
        self._count = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the file; `async with` does it. What is watched before is not written. Safe to cancel.

        Raises:
            ConfigurationError: The file holds something else, another process writes to it, or it cannot be opened.
            InvalidRequestError: It is open.
        """
        if self._writer.is_open:
            raise InvalidRequestError(f"The timelines are written to {self._writer.path} already")
        await self._writer.open(round(wall_time(), _DIGITS))

    async def aclose(self) -> None:
        """Write what is waiting, and close the file. Never raises; may be called twice; safe to cancel."""
        await self._writer.aclose()

    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        """Follow a watch that begins now."""
        self._count += 1
        label = plain_value(label) if self._labels and is_plain(label) else None
        host = urlsplit(server).hostname or ""
        self._writer.put(WatchLine(self._count, _now(), ref.dialect, ref.ids, host, label))
        return _Timeline(self._writer, self._count, ref)

    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        """Do nothing: what matters of the requests of a watch is told to it."""


class _Timeline(WatchTrace):
    """Writes the lines of one watch."""

    __slots__ = ("_calls", "_clock", "_is_known", "_n", "_put", "_ref")

    def __init__(self, writer: LineWriter, n: int, ref: RunRef) -> None:
        self._put = writer.put
        self._n = n
        self._ref = ref
        self._calls = 0
        self._is_known = False
        self._clock: float | None = None  # what the server shows is cut to whole seconds, so the least is the best

    def notice(self, notice: Notice) -> None:
        if isinstance(notice, StatusChanged):
            facts = ServerFacts() if self._is_known else server_facts(notice.run)  # who made it, and when, is said once
            self._is_known = True
            of = (facts.assistant, facts.model, facts.created_at)
            self._put(StatusLine(self._n, _now(), notice.status, notice.phase.value, *of, self._new_ids(notice.run)))

    def _new_ids(self, run: object) -> tuple[str, ...]:
        """Return the ids of the run, if they are not those that were written last."""
        found = dialect_and_ids(run)
        if found is None or found == (self._ref.dialect, self._ref.ids):
            return ()
        self._ref = RunRef(*found)
        return self._ref.ids

    def polled(self, event: Observed | Refused) -> None:
        if isinstance(event, Refused):
            self._put(PollLine(self._n, _now(), 0.0, event.refusal.kind.value))
            return
        took = 0.0 if event.asked_at is None else round(event.now - event.asked_at, _DIGITS)
        now = wall_time()
        shown = event.snapshot.server_time
        if shown is not None and (self._clock is None or now - shown < self._clock):
            self._clock = now - shown
        self._put(PollLine(self._n, round(now, _DIGITS), took))

    @contextmanager
    def calling(self, calls: Sequence[Call], handler: str = "") -> Iterator[Callable[[str, bool], None]]:
        self._calls += 1
        number, failed = self._calls, False

        def note(output: str, is_error: bool) -> None:
            nonlocal failed
            failed = failed or is_error

        self._put(CallLine(self._n, number, _now(), handler or calls[0].name, calls[0].id))
        try:
            yield note
        except BaseException:
            failed = True
            raise
        finally:
            self._put(AnsweredLine(self._n, number, _now(), failed))

    @contextmanager
    def sending(self, asked: Asked) -> Iterator[Callable[[Observed | Refused], None]]:
        began, refusal = loop_time(), "left"

        def note(event: Observed | Refused) -> None:
            nonlocal refusal
            refusal = event.refusal.kind.value if isinstance(event, Refused) else ""

        try:
            yield note
        finally:
            self._put(SentLine(self._n, _now(), asked.value, round(loop_time() - began, _DIGITS), refusal))

    def ended(self, outcome: Any) -> None:
        clock = None if self._clock is None else round(self._clock, _DIGITS)
        if outcome is None:
            self._put(EndLine(self._n, _now(), "left", clock=clock))
            return
        known = outcome.timeline()
        self._put(
            EndLine(
                self._n,
                _now(),
                known.outcome,
                known.ref.ids if known.ref != self._ref else (),
                known.status,
                known.reason,
                known.error,
                known.poll_count,
                known.created_at,
                known.started_at,
                known.ended_at,
                clock,
            )
        )


def _now() -> float:
    return round(wall_time(), _DIGITS)
