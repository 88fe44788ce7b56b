"""What is known of the time of one run, as a value: when it was in which status, its calls, and how it was polled.

It must never hold what models, tools and callers write; a label is in it only if the caller asks for that.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import RunRef
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.plain import Plain

_ENDS: Final = ("completed_at", "failed_at", "cancelled_at", "ended_at", "expired_at")


class TimedStatus(Plain, frozen=True, gc=False):
    """A status of a run.

    Attributes:
        at: When the watch noticed it, in seconds since the epoch.
        status: The server's own word.
        phase: The value of the `Phase` that it means.
    """

    at: float
    status: str
    phase: str


class TimedCall(Plain, frozen=True, gc=False):
    """A tool, or a handler, at work.

    Attributes:
        call_id: The server's id of the call; of a handler, of its first call.
        name: The name of the tool or handler.
        began_at: When it began.
        ended_at: When it had its output; None if it has none.
        failed: Whether its output is an error of ours, or it raised.
    """

    call_id: str
    name: str
    began_at: float
    ended_at: float | None = None
    failed: bool = False


class TimedRequest(Plain, frozen=True, gc=False):
    """A submit, a cancel or a poll of a run.

    Attributes:
        at: When it was answered.
        took: Seconds.
        refusal: Why it failed, in a word; "" if it did not.
        kind: "submit", "cancel" or "poll".
    """

    at: float
    took: float = 0.0
    refusal: str = ""
    kind: str = "poll"


class RunTimeline(Plain, frozen=True, kw_only=True):
    """What is known of the time of a run and its watch. All times are in seconds since the epoch.

    Without a recording (`outcome.timeline()`), `statuses`, `calls`, `submits` and `polls` are empty.

    Attributes:
        ref: The ref of the run, the last one if outputs created new ones; it has no ids if the run was not created.
        assistant: The id of its assistant; "" if there is none.
        model: Its model; "" if the server does not say.
        label: What the caller passed as `label=`, if it is plain JSON.
        server: The host of the server; "" if it is not known.
        began_at: When the watch began, by this machine's clock.
        finished_at: When the watch finished; None if it has not, or not yet.
        outcome: The name of the outcome's class; "left" if the watch was left before; "" if it has not finished.
        reason: Why the watch finished before the run ended; "".
        status: The last status, in the server's own word.
        error: The code of the server's error; "".
        created_at: When the run was created, by the server's clock, as the two that follow; None if it is not known.
        started_at: When it began to work.
        ended_at: When it ended.
        clock_offset: Seconds by which this machine's clock is ahead of the server's; None if it is not known.
        poll_count: Number of polls.
        statuses: The statuses that were noticed.
        calls: The calls of tools and handlers.
        submits: The submits and cancels.
        polls: The polls.
        waits_for: What it waits for, in words, if a journal says so; "".
    """

    ref: RunRef
    assistant: str = ""
    model: str = ""
    label: Any = None
    server: str = ""
    began_at: float | None = None
    finished_at: float | None = None
    outcome: str = ""
    reason: str = ""
    status: str = ""
    error: str = ""
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    clock_offset: float | None = None
    poll_count: int = 0
    statuses: tuple[TimedStatus, ...] = ()
    calls: tuple[TimedCall, ...] = ()
    submits: tuple[TimedRequest, ...] = ()
    polls: tuple[TimedRequest, ...] = ()
    waits_for: str = ""

    @property
    def estimated_end(self) -> float | None:
        """When the run ended, by this machine's clock, estimated; None if it has not, or nothing is known of it.

        It is between the last sight of the run at work and the answer that showed its end. Within that, it is when the
        server says, whose times are mostly whole seconds and its clock another one; if it does not say, in the middle.
        """
        noticed = next((status.at for status in self.statuses if status.phase in _ENDED), None)
        said = None if self.ended_at is None or self.clock_offset is None else self.ended_at + self.clock_offset
        if noticed is None:
            return said
        shown = [poll for poll in self.polls if not poll.refusal and poll.at <= noticed]
        sights = [poll.at - poll.took for poll in shown[-2:-1]]
        sights += [sent.at - sent.took for sent in self.submits if not sent.refusal and sent.at < noticed]
        if said is None:
            return (max(sights) + noticed) / 2 if sights else None
        if self.ended_at is not None and self.ended_at.is_integer():
            said = (max([said, *sights]) + min(said + 1.0, noticed)) / 2
        return min(max([said, *sights]), noticed)

    @property
    def end_delay(self) -> float | None:
        """Seconds from the end of the run to its being noticed, estimated; None if that is not known."""
        ended, finished = self.estimated_end, self.finished_at
        noticed = next((status.at for status in self.statuses if status.phase in _ENDED), finished)
        return None if ended is None or noticed is None else max(noticed - ended, 0.0)


_ENDED: Final = frozenset(phase.value for phase in Phase if phase.is_terminal)


class ServerFacts(Struct, frozen=True, kw_only=True):
    """What an object of the server says of the time of its run, and who made it."""

    assistant: str = ""
    model: str = ""
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


def server_facts(run: object) -> ServerFacts:
    """Return what a run, a response or a batch says; nothing for None or an object of another kind."""
    ends = [at for name in _ENDS if (at := epoch_seconds(getattr(run, name, None))) is not None]
    return ServerFacts(
        assistant=_text(getattr(run, "assistant_id", None)),
        model=_text(getattr(run, "model", None)),
        created_at=epoch_seconds(getattr(run, "created_at", None)),
        started_at=epoch_seconds(getattr(run, "started_at", None) or getattr(run, "in_progress_at", None)),
        ended_at=max(ends, default=None),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
