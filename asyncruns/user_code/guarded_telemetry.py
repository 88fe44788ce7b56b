"""Keeps what a telemetry raises away from the watches and requests that it follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncruns.abc import Telemetry, WatchTrace
from asyncruns.http import Request, Response
from asyncruns.lifecycle.values import RunRef
from asyncruns.user_code.attempt import Raised, attempt_now

if TYPE_CHECKING:
    from asyncruns.lifecycle import Asked, Call, Notice, Observed, Refused

T = TypeVar("T")

_Note = Callable[..., object]

log: Final = logging.getLogger("asyncruns.telemetry")


class GuardedTelemetry:
    """Passes everything on to a telemetry. The first exception that it raises is logged, the others are dropped.

    Args:
        inner: The caller's telemetry.
    """

    def __init__(self, inner: Telemetry) -> None:
        self._inner = inner
        self._has_warned = False

    def watch(self, ref: RunRef, run: object, server: str, link: str) -> WatchTrace | None:
        """Return what follows a watch, as `Telemetry.watch` describes; None if it raises."""
        trace = self.attempt(lambda: self._inner.watch(ref, run, server, link))
        return None if trace is None else _GuardedTrace(self, trace)

    def creating(self, dialect: str, server: str) -> AbstractContextManager[Callable[[object], object]]:
        """Follow a create, as `Telemetry.creating` describes."""
        return self.following(lambda: self._inner.creating(dialect, server))

    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        """Note a request, as `Telemetry.requested` describes."""
        self.attempt(lambda: self._inner.requested(request, answer, seconds))

    def attempt(self, work: Callable[[], T]) -> T | None:
        """Return what a function of the telemetry returns; None if it raises."""
        found = attempt_now(work)
        if not isinstance(found, Raised):
            return found
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "The telemetry raised an exception; watches go on, and the next exceptions are not logged",
                exc_info=found.error,
            )
        return None

    @contextmanager
    def following(self, make: Callable[[], AbstractContextManager[_Note]]) -> Iterator[_Note]:
        """Enter and leave a context manager of the telemetry. What the body raises passes, and nothing else."""
        manager = self.attempt(make)
        note = None if manager is None else self.attempt(manager.__enter__)
        if manager is None or note is None:
            yield _ignore
            return
        try:
            yield lambda *told: self.attempt(lambda: note(*told))
        except BaseException as error:
            raised = type(error), error, error.__traceback__
            self.attempt(lambda: manager.__exit__(*raised))
            raise
        self.attempt(lambda: manager.__exit__(None, None, None))


class _GuardedTrace(WatchTrace):
    __slots__ = ("_inner", "_of")

    def __init__(self, of: GuardedTelemetry, inner: WatchTrace) -> None:
        self._of = of
        self._inner = inner

    def notice(self, notice: Notice) -> None:
        self._of.attempt(lambda: self._inner.notice(notice))

    def calling(
        self, calls: Sequence[Call], handler: str = ""
    ) -> AbstractContextManager[Callable[[str, bool], object]]:
        return self._of.following(lambda: self._inner.calling(calls, handler))

    def sending(self, asked: Asked) -> AbstractContextManager[Callable[[Observed | Refused], object]]:
        return self._of.following(lambda: self._inner.sending(asked))

    def polled(self, event: Observed | Refused) -> None:
        self._of.attempt(lambda: self._inner.polled(event))

    def ended(self, outcome: Any) -> None:
        self._of.attempt(lambda: self._inner.ended(outcome))


def _ignore(*told: object) -> None:
    pass
