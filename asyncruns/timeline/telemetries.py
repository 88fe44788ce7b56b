"""Lets several telemetries follow the same watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from asyncruns.abc import Telemetry, WatchTrace
from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Call, Notice, Observed, Refused, RunRef
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry


class Telemetries(Telemetry):
    """Passes all on to several telemetries. What one of them raises does not affect the others."""

    def __init__(self, inner: Sequence[Telemetry]) -> None:
        self._inner = [GuardedTelemetry(telemetry) for telemetry in inner]

    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        """Return what passes on what a watch does."""
        return traced_by(self._inner, ref, run, server, link, label) or _Traces([])

    @contextmanager
    def creating(self, dialect: str, server: str) -> Iterator[Callable[[object], None]]:
        """Pass on a create."""
        with ExitStack() as stack:
            notes = [stack.enter_context(telemetry.creating(dialect, server)) for telemetry in self._inner]

            def note(created: object) -> None:
                for each in notes:
                    each(created)

            yield note

    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        """Pass on a request."""
        for telemetry in self._inner:
            telemetry.requested(request, answer, seconds)


class _Traces(WatchTrace):
    __slots__ = ("_inner",)

    def __init__(self, inner: Sequence[WatchTrace]) -> None:
        self._inner = inner

    def notice(self, notice: Notice) -> None:
        for trace in self._inner:
            trace.notice(notice)

    @contextmanager
    def calling(self, calls: Sequence[Call], handler: str = "") -> Iterator[Callable[[str, bool], None]]:
        with ExitStack() as stack:
            notes = [stack.enter_context(trace.calling(calls, handler)) for trace in self._inner]

            def note(output: str, is_error: bool) -> None:
                for each in notes:
                    each(output, is_error)

            yield note

    @contextmanager
    def sending(self, asked: Asked) -> Iterator[Callable[[Observed | Refused], None]]:
        with ExitStack() as stack:
            notes = [stack.enter_context(trace.sending(asked)) for trace in self._inner]

            def note(event: Observed | Refused) -> None:
                for each in notes:
                    each(event)

            yield note

    def polled(self, event: Observed | Refused) -> None:
        for trace in self._inner:
            trace.polled(event)

    def ended(self, outcome: Any) -> None:
        for trace in self._inner:
            trace.ended(outcome)


def traced_by(
    telemetries: Iterable[GuardedTelemetry], ref: RunRef, run: object, server: str, link: str, label: object
) -> WatchTrace | None:
    """Return what passes on to several telemetries what a watch does; None if none of them follows it."""
    traces = [
        trace for telemetry in telemetries if (trace := telemetry.watch(ref, run, server, link, label)) is not None
    ]
    return _Traces(traces) if len(traces) > 1 else next(iter(traces), None)


def given_telemetry(telemetry: Telemetry | Sequence[Telemetry] | None) -> Telemetry | None:
    """Return the telemetry that a caller gave, or several as one.

    Raises:
        ConfigurationError: It is something else.
    """
    if telemetry is None or isinstance(telemetry, Telemetry):
        return telemetry
    given: Sequence[Any] = telemetry if isinstance(telemetry, list | tuple) else [telemetry]
    for each in given:
        if not isinstance(each, Telemetry):
            what = each.__name__ if isinstance(each, type) else type(each).__name__
            raise ConfigurationError(f"telemetry must be a Telemetry, such as OpenTelemetry(), or several; got {what}")
    return Telemetries(given) if len(given) > 1 else next(iter(given), None)
