"""What to do about a run, a response or a batch, by what the server shows of it. Does no I/O, and reads no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from asyncruns.cli.output import counted
from asyncruns.cli.times import local_time, span
from asyncruns.lifecycle import CallKind, Phase, RunRef, Snapshot
from asyncruns.wire.names import BATCH, MESSAGE_BATCH

LONG_S: Final = 60.0  # a queue or a cancel that takes longer is worth a word
CLOCK_S: Final = 10.0  # of difference between two clocks; `Date` has whole seconds, and some servers cache it

MEANINGS: Final[Mapping[Phase, str]] = {
    Phase.PENDING: "the server has not begun it",
    Phase.RUNNING: "the server works on it",
    Phase.NEEDS_CALLER: "it waits for outputs of the caller",
    Phase.CANCELLING: "the server is cancelling it",
    Phase.SUCCEEDED: "it has ended",
    Phase.FAILED: "it has ended",
    Phase.CANCELLED: "it has ended",
    Phase.EXPIRED: "it has ended: the server ended it, as it took too long",
    Phase.INCOMPLETE: "it has ended before its text was complete",
    Phase.UNKNOWN: "a status that this version does not know",
}
_RAISE: Final = {
    "max_completion_tokens": "Raise max_completion_tokens, and create it again",
    "max_prompt_tokens": "Raise max_prompt_tokens or shorten the thread with truncation_strategy, and create it again",
    "max_output_tokens": "Raise max_output_tokens, and create it again",
    "content_filter": "A content filter ended it: change the instructions or the message",
}
_BY_CODE: Final = {
    "rate_limit_exceeded": "The model's limit or the account's quota was reached: check it, wait, and create it again",
    "insufficient_quota": "The quota of the account is spent: waiting does not help, check the billing",
    "server_error": "The server's own error: create it again; if that repeats, send its operators the ids above",
    "token_limit_exceeded": "Too many tokens are enqueued: create it again when other batches have ended",
}


def advice_on(ref: RunRef, snapshot: Snapshot[Any], *, now: float, waits: float | None, unanswered: str) -> list[str]:
    """Return what to do next, as sentences; none if there is nothing to do.

    Args:
        ref: The ref.
        snapshot: What the server shows.
        now: The time by the server's clock.
        waits: Since when the run has been in its status, by that clock; None if that is not known.
        unanswered: The names of the calls that got no output before the run ended; "" for none.
    """
    return [*_on(ref, snapshot, now, waits, unanswered), *_on_expiry(ref, snapshot, now)]


def _on(ref: RunRef, snapshot: Snapshot[Any], now: float, waits: float | None, unanswered: str) -> Iterator[str]:
    lasts = 0.0 if waits is None else now - waits
    code = snapshot.fault.code if snapshot.fault else ""
    match snapshot.phase:
        case Phase.NEEDS_CALLER:
            yield from _on_calls(ref, snapshot, lasts)
        case Phase.PENDING if lasts > LONG_S:
            yield f"It has been waiting for {span(lasts)}: `asyncruns doctor` shows whether the server answers in time"
        case Phase.RUNNING if lasts > LONG_S and ref.dialect not in (BATCH, MESSAGE_BATCH):
            yield f"Nothing new for {span(lasts)}: models may take that long; otherwise end it: {cancel_line(ref)}"
        case Phase.CANCELLING if lasts > LONG_S:
            yield f"It has been cancelling for {span(lasts)}: some servers take 10 minutes, or only expire it"
        case Phase.EXPIRED if unanswered:
            yield f"No outputs came for {unanswered}: check that a process watches such runs, with tools="
        case Phase.EXPIRED:
            yield "It took longer than the server allows: create it again"
        case Phase.FAILED:
            yield _BY_CODE.get(code, "The error above says why; change what it names, and create it again")
        case Phase.INCOMPLETE:
            yield _RAISE.get(code, "Its text is cut: the reason above says why")
        case _:
            pass


def _on_calls(ref: RunRef, snapshot: Snapshot[Any], lasts: float) -> Iterator[str]:
    since = f" for {span(lasts)}" if lasts >= 1 else ""
    calls = [call for call in snapshot.calls if call.kind is not CallKind.SERVER]
    if not calls:
        yield f"It has been waiting{since} for outputs, but shows no calls that need any: {cancel_line(ref)}"
        return
    what = counted(len(calls), "call")
    yield f"{what} {'has' if len(calls) == 1 else 'have'} had no output{since}; nothing goes on until all have one"
    yield "Is the process that answers them alive? It watches the run with tools=, or submits outputs by itself"
    if any(call.kind is CallKind.APPROVAL for call in calls):
        yield "An approval is a decision: a watch asks on_requires_action= for it"
    if not snapshot.is_final:
        yield f"To end the run in place of that: {cancel_line(ref)}"


def _on_expiry(ref: RunRef, snapshot: Snapshot[Any], now: float) -> Iterator[str]:
    if snapshot.expires_at is None or snapshot.phase.is_terminal or snapshot.is_final:
        return
    left = snapshot.expires_at - now
    if left < -LONG_S:
        yield f"It should have expired {span(left)} ago; the server may have lost it: {cancel_line(ref)}"
    elif snapshot.phase is Phase.NEEDS_CALLER:
        yield f"Without outputs the server expires it at {local_time(snapshot.expires_at)}, in {span(left)}"


def cancel_line(ref: RunRef) -> str:
    """Return the command that cancels a run."""
    return f"asyncruns cancel {ref}"


def clock_words(offset: float | None) -> str:
    """Return in words how far this machine's clock is off, in seconds ahead of the server's; "" if it is not."""
    if offset is None or abs(offset) <= CLOCK_S:
        return ""
    return f"this machine's clock is {span(offset)} {'ahead of' if offset > 0 else 'behind'} the server's"
