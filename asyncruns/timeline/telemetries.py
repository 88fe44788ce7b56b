"""Lets several telemetries follow the same watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from asyncruns.abc import Telemetry, WatchTrace
from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Call, Notice, Observed, Refused, RunRef


class Telemetries(Telemetry):
    """Passes all on to several telemetries."""

    def __init__(self, inner: Sequence[Telemetry]) -> None:
        self._inner = tuple(inner)

    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        """Return what passes on what a watch does."""
        return _Traces([telemetry.watch(ref, run, server, link, label) for telemetry in self._inner])

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


def together(*telemetries: Telemetry | None) -> Telemetry | None:
    """Return a telemetry that passes all on to these; the only one itself, and None for none."""
    given = [telemetry for telemetry in telemetries if telemetry is not None]
    return Telemetries(given) if len(given) > 1 else next(iter(given), None)


def given_telemetry(telemetry: Telemetry | Sequence[Telemetry] | None) -> Telemetry | None:
    """Return the telemetry that a caller gave, or several as one.

    Raises:
        ConfigurationError: It is something else.
    """
    given = telemetry if isinstance(telemetry, Sequence) else [telemetry]
    for each in given:
        if each is not None and not isinstance(each, Telemetry):
            what = each.__name__ if isinstance(each, type) else type(each).__name__
            raise ConfigurationError(f"telemetry must be a Telemetry, such as OpenTelemetry(), or several; got {what}")
    return together(*given)
