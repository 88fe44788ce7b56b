"""The output of `asyncruns watch`: lines for people, or JSON for programs."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from typing import Any, assert_never

from asyncruns.cli.ends import end_of
from asyncruns.cli.output import complain, counted, on_one_line, say, say_json
from asyncruns.errors import RunError
from asyncruns.lifecycle import (
    ActionRequired,
    Call,
    CallAnswered,
    CallsLeftToServer,
    CancelRefused,
    ConnectivityChanged,
    EndRevoked,
    Notice,
    OutputsSubmitted,
    ProgressChanged,
    StatusChanged,
    StreamBroken,
    ToolReported,
)
from asyncruns.watch.outcome import AnyOutcome


class Reporter(ABC):
    """Prints the notices and the outcome of a watch."""

    @abstractmethod
    def notice(self, notice: Notice) -> None:
        """Print one notice."""

    @abstractmethod
    def end(self, outcome: AnyOutcome[Any], text: str | None, trouble: Exception | None) -> None:
        """Print the outcome.

        Args:
            outcome: The outcome of the watch.
            text: The answer of a completed run.
            trouble: The error if the answer could not be fetched.
        """


class LineReport(Reporter):
    """Lines with the time, the status and a note. Changes of the connection go to stderr."""

    def notice(self, notice: Notice) -> None:
        match notice:
            case StatusChanged():
                self._line(notice.status)
            case ProgressChanged(done=done, failed=failed, total=total):
                self._line("", f"{done} of {total} done{f', {failed} failed' if failed else ''}")
            case ActionRequired(calls=calls):
                self._line("", f"{counted(len(calls), 'call')} to answer:")
                for call in calls:
                    self._line("", _shown(call))
            case ConnectivityChanged():
                cause = "" if notice.cause is None else f": {notice.cause}"
                complain(f"connection {notice.connectivity.value}{cause}")
            case CallsLeftToServer(calls=calls):
                for call in calls:
                    self._line("", f"left to the server: {_shown(call)}")
            case EndRevoked(status=status, previous=previous):
                complain(f"the server shows the run as {status} after it was {previous}")
            case CallAnswered() | ToolReported() | OutputsSubmitted() | CancelRefused() | StreamBroken():
                pass  # this watch answers no calls, cancels no run and reads no stream
            case _:
                assert_never(notice)

    def end(self, outcome: AnyOutcome[Any], text: str | None, trouble: Exception | None) -> None:
        say(on_one_line(sentence(outcome)))
        if trouble is not None:
            complain(f"the answer could not be fetched: {trouble}")
        if text:
            say(text)

    def _line(self, status: str, note: str = "") -> None:
        now = datetime.datetime.now().astimezone()
        say(f"{now:%H:%M:%S}  {on_one_line(status):<15}  {note}".rstrip())


class JsonReport(Reporter):
    """One JSON object per line, each with `at` (ISO 8601) and `event`.

    Events: status, progress, calls, calls_left, connection, end, end_revoked.

    Args:
        **common: What each line has beside its own fields.
    """

    def __init__(self, **common: str) -> None:
        self._common = common

    def notice(self, notice: Notice) -> None:
        match notice:
            case StatusChanged():
                self._line(
                    "status",
                    status=notice.status,
                    phase=notice.phase.value,
                    previous=notice.previous,
                    run=notice.run.id,
                )
            case ProgressChanged(done=done, failed=failed, total=total):
                self._line("progress", done=done, failed=failed, total=total)
            case ActionRequired(calls=calls):
                self._line("calls", calls=[_call(call) for call in calls])
            case ConnectivityChanged():
                cause = None if notice.cause is None else str(notice.cause)
                self._line("connection", state=notice.connectivity.value, cause=cause)
            case CallsLeftToServer(calls=calls):
                self._line("calls_left", calls=[_call(call) for call in calls])
            case EndRevoked(status=status, previous=previous):
                self._line("end_revoked", status=status, previous=previous)
            case CallAnswered() | ToolReported() | OutputsSubmitted() | CancelRefused() | StreamBroken():
                pass
            case _:
                assert_never(notice)

    def end(self, outcome: AnyOutcome[Any], text: str | None, trouble: Exception | None) -> None:
        self._line(
            "end",
            outcome=end_of(outcome).value,
            status=outcome.status or None,
            reason=outcome.reason.value if outcome.reason else None,
            message=sentence(outcome),
            error={"code": outcome.error.code, "message": outcome.error.message} if outcome.error else None,
            calls=[_call(call) for call in outcome.calls],
            polls=outcome.polls,
            seconds=round(outcome.elapsed, 3),
            text=text,
            trouble=None if trouble is None else str(trouble),
        )

    def _line(self, event: str, **fields: Any) -> None:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        say_json({"at": at, "event": event, **self._common, **fields})


def sentence(outcome: AnyOutcome[Any]) -> str:
    """Return one sentence on how a watch ended."""
    # The error of an outcome that is not "completed" already explains it, with ids and what to do next.
    try:
        outcome.unwrap()
    except RunError as error:
        return str(error)
    return (
        f"The run {outcome.ref} is {outcome.status} after {outcome.elapsed:.1f} s and {counted(outcome.polls, 'poll')}"
    )


def _shown(call: Call) -> str:
    what = f"{call.name}({call.arguments})" if call.name else call.type
    return on_one_line(f"{what}  {call.id}")


def _call(call: Call) -> dict[str, str]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments, "type": call.type}
