"""The life of a watched run, as a machine that is told what was seen and says what to do next.

Theory of operation. The run lives at the server, and all we get are samples, late, repeated and out of order. The
machine keeps the last sample, the ledger of the calls, and the times; each event gives a list of commands for its
shell. It does no I/O, reads no clock and holds no task, so that one shell can run it for a single watch, another ten
thousand of them, and a third inside a workflow engine.

What we do follows from what there is, so it is never stored beside it (theirs is in `phases.py`)::

    DONE         the run ended, or patience did; a watch that ended before its run is taken up by outputs from the
                 caller, where it lacked them, or by a cancel
    CANCELLING   the caller asked for it, until the server refuses
    DISPATCHING  the current round is OPEN: calls are out; polls go on, slower
    SUBMITTING   a round is IN_FLIGHT; or the current one READY (to be sent, or sent again since it had no effect), or
                 UNSURE (no answer came: poll, and send the same again only if the run still asks after the lag)
    POLLING      else

It owns three parts that note what happened and answer questions about it, and never call back: the ledger (calls and
rounds), the cancellation, and the patience (times, connectivity, and how far the run has come, for the cadence). What
refusals mean is in `fatal_refusals.py` and `cancelling.py`.

Illegal local input raises and leaves the machine as it was. Whatever a server says never raises.
"""

from __future__ import annotations

import math
import sys
from typing import Final, assert_never

from msgspec import Struct, UnsetType, field

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import commands as do
from asyncruns.lifecycle import events as ev
from asyncruns.lifecycle import notices
from asyncruns.lifecycle.cancelling import CANCEL_BOUND_S, CANCEL_HOLD_S, CancelAnswer, Cancellation
from asyncruns.lifecycle.commands import ENDS, Command, End, EndKind, Reason
from asyncruns.lifecycle.fatal_refusals import FATAL_POLLS, FATAL_SUBMITS, TOO_EARLY
from asyncruns.lifecycle.ledger import Ledger, Round, Stage, Verdict
from asyncruns.lifecycle.patience import Patience, Policy, backoff
from asyncruns.lifecycle.phases import OBSERVABLE, Phase, State
from asyncruns.lifecycle.values import Answers, AnySnapshot, Asked, Call, CallKind, Refusal, RefusalKind, Snapshot

NOT_FOUND_GRACE_S: Final = 5.0  # so long a run that was just created may not be there yet
EARLY_STEPS: Final = 2  # the pause after such a refusal grows so often, to 2 s: the lag mostly ends within a second
POLLS_WITHOUT_CALLS: Final = 4
DISPATCHING_SHARE: Final = 0.1
SILENCE_S: Final = 5.0  # so long a stream may say nothing, then a poll tells; models think for longer
TIMED_OUT_OUTPUT: Final = '{"error": "The call did not finish in time."}'

NOT_ASKED: Final = Cancellation()  # shared by the many that nobody cancels, and never changed
ENDS_BY_ITSELF: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.INCOMPLETE)  # what durations are learned from
_NOT_THERE: Final = (Reason.NOT_FOUND, Reason.GONE)


class RunLifecycle(Struct, eq=False, gc=False):
    """One watched run. Feed it with `receive`; wake it with a `Tick` at `wake_at`."""

    _policy: Policy = Policy()
    _patience: Patience = None  # type: ignore[assignment]
    _ledger: Ledger = field(default_factory=Ledger)
    _cancellation: Cancellation = NOT_ASKED
    _begun: bool = False
    _seen: bool = False  # by a poll of ours; a caller's object may be of a replica that others lag behind
    _empty_polls: int = 0
    _unknown_since: float | None = None
    _ended_at: float = math.inf
    _streams: bool = False
    _new_at: float = -math.inf  # since when there is what is watched, as far as we know
    _unsettled: Exception | None = None  # why the last submit of this round failed, until one is accepted
    snapshot: AnySnapshot | None = None
    end: End | None = None

    def __post_init__(self) -> None:
        self._patience = Patience(self._policy)

    @property
    def cancel_requested(self) -> bool:
        """Whether the caller asked for a cancel, and the server did not surely refuse it."""
        cancellation = self._cancellation
        return (cancellation.requested and not cancellation.is_refused) or cancellation.may_have_acted

    @property
    def is_cancelling(self) -> bool:
        """Whether the run goes on, and its cancel is still wanted: nothing else is done for it then."""
        return self.end is None and self._cancellation.requested

    @property
    def cancel_error(self) -> Exception | None:
        """Why a run that the caller wanted cancelled is not; None when it is, or may be, or when nothing goes on."""
        is_cancelled = self.snapshot is not None and self.snapshot.phase is Phase.CANCELLED
        return None if is_cancelled or self._nothing_goes_on else self._cancellation.error

    @property
    def _nothing_goes_on(self) -> bool:
        return self.snapshot is not None and self.snapshot.is_final and self._ledger.in_flight is None

    @property
    def state(self) -> State:
        """What the watch is doing."""
        current = self._ledger.current
        if self.end is not None:
            return State.DONE
        if self._cancellation.active:
            return State.CANCELLING
        if current is not None and current.stage is Stage.OPEN:
            return State.DISPATCHING
        if self._ledger.in_flight or (current is not None and current.stage in (Stage.READY, Stage.UNSURE)):
            return State.SUBMITTING
        return State.POLLING

    @property
    def wake_at(self) -> float:
        """When the machine wants a `Tick`, beside the polls that it asked for; infinity for never."""
        if self.end is not None:
            return math.inf
        return min(self._patience.over_at, self._cancellation.at, self._send_at, self._late_at)

    def receive(self, event: ev.Event) -> list[Command]:
        """Take an event; give what to do, in order.

        Raises:
            InvalidRequestError: The event cannot be: a watch that began twice or never, an output for a call that does
                not exist. The machine is as before.
        """
        if self._begun is isinstance(event, ev.Begun):
            raise InvalidRequestError("A watch begins once, with Begun")
        if self.end is not None:
            return self._after_end(event, self.end)
        match event:
            case ev.Begun():
                return self._begin(event)
            case ev.Observed():
                return self._observed(event)
            case ev.Refused():
                return self._refused(event)
            case ev.CallsAnswered():
                return [*self._record(event.outputs), *self._settle(event.now)]
            case ev.OutputsProvided():
                outputs = self._ledger.resolve(event.outputs)
                return [*self._record(outputs), *self._settle(event.now)]
            case ev.CallsUnanswered():
                self._ledger.leave_unanswered(event.calls, event.cause)
                return self._settle(event.now)
            case ev.CancelAsked():
                return self._cancel_asked(event)
            case ev.StreamBegun():
                self._streams = True
                return [self._poll(event.now)]
            case ev.StreamEnded():
                return self._stream_ended(event)
            case ev.Tick():
                return self._tick(event.now)
            case _:
                assert_never(event)

    def delay(self, now: float) -> float:
        """Give how many seconds the run's end is expected to have waited for a poll by now: what a poll is worth."""
        if self.state is State.DISPATCHING:  # it waits for us, and can only have expired or been cancelled
            return self._patience.delay(now) * DISPATCHING_SHARE
        return self._patience.delay(now)

    def delayed_at(self, delay: float) -> float:
        """Give when the run's end is expected to have waited so many seconds for a poll; may be infinite."""
        if self.state is State.DISPATCHING:
            delay /= DISPATCHING_SHARE
        return self._patience.delayed_at(delay)

    @property
    def open_calls(self) -> tuple[Call, ...]:
        """The calls that have no output yet."""
        return self._ledger.missing()

    @property
    def connectivity(self) -> notices.Connectivity:
        """How it stands with the server."""
        return self._patience.connectivity

    @property
    def trouble(self) -> Exception | None:
        """Why the last request failed, if it did."""
        return self._patience.trouble

    @property
    def expiry(self) -> float:
        """When the run expires at the server, by the shell's clock; infinity where that is not known."""
        return math.inf if self._patience.expiry is None else self._patience.expiry

    @property
    def polls_once_more(self) -> bool:
        """Whether the deadline has passed unnoticed, and one last poll decides."""
        return self._patience.final_until is not None

    def forget_resource(self) -> None:
        """Keep of the last snapshot only what the machine goes by: ten thousand bodies would be many megabytes."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.resource is None:
            return
        if snapshot.phase is not Phase.NEEDS_CALLER and not snapshot.is_final:
            status = sys.intern(snapshot.status)  # few words, in ten thousand copies
            self.snapshot = Snapshot(phase=snapshot.phase, status=status, fault=snapshot.fault, resource=None)

    def waits_for_poll(self, now: float) -> bool:
        """Whether the default wait is over by now, but may last until a poll that is due was answered.

        The caller's own timeout and the bound of a cancel may not: they were promised.
        """
        is_default = isinstance(self._policy.timeout, UnsetType) and not self._cancellation.requested
        return is_default and not self.polls_once_more and now >= self._patience.over_at

    # Beginning and ending

    def _begin(self, event: ev.Begun) -> list[Command]:
        self._begun = True
        self._new_at = event.now
        self._patience.begin(event.now)
        snapshot = event.snapshot
        if snapshot is None:
            return [do.PollAt(event.now, event.now)]
        reports = self._status(snapshot, event.now)
        if snapshot.phase.is_terminal:
            return [*reports, self._finish(event.now, ENDS[snapshot.phase])]
        if snapshot.is_final:  # a poll could not tell more, and some servers can't be polled
            return [*reports, *self._go_on(snapshot, event.now, event.now)]
        # What the object says else may be old: poll before anything is done about it.
        return [*reports, do.PollAt(event.now, event.now)]

    def _finish(
        self, now: float, kind: EndKind, reason: Reason | None = None, cause: Exception | None = None
    ) -> do.Finish:
        self._ended_at = now
        if kind is not EndKind.COMPLETED:
            cause = cause or self._patience.trouble or self._unsettled
        self.end = End(
            kind=kind,
            snapshot=self.snapshot,
            reason=reason,
            cause=cause,
            calls=() if kind.is_final else self._ledger.missing(),
            outputs=() if kind.is_final else self._ledger.outputs(self._ledger.current),
        )
        return do.Finish(self.end)

    def _after_end(self, event: ev.Event, end: End) -> list[Command]:
        """Take up a watch that ended before its run, with outputs that it lacked or a cancel; all else is too late."""
        if end.kind.is_final:
            return self._revoked(event)
        if isinstance(event, ev.CancelAsked):
            return self._cancel_after_end(event, end)
        if isinstance(event, ev.Observed | ev.Refused) and event.asked is Asked.SUBMIT:
            self._landed_after_end(event)
            return []
        if not isinstance(event, ev.OutputsProvided) or end.kind is not EndKind.NEEDS_CALLER:
            return []
        answers = self._ledger.resolve(event.outputs)
        round_ = self._ledger.current
        if round_ is None:  # no outputs, for no calls
            return []
        self._go_on_after_end(event.now)
        self._cancellation.forget_refusal()
        round_.reopen(event.now)
        self._ledger.leave_unanswered(self._ledger.missing())
        commands = [*self._record(answers, replace=True), *self._settle(event.now)]
        return commands if self.end else [*commands, self._poll(event.now)]

    def _go_on_after_end(self, now: float, at_least: float = 0.0) -> None:
        self.end = None
        self._unknown_since = None
        self._empty_polls = 0
        self._streams = False
        self._patience.begin_again(now, at_least)

    def _landed_after_end(self, event: ev.Observed | ev.Refused) -> None:
        round_ = self._ledger.end_submit()
        if round_ is not None:
            round_.move(Stage.SENT if isinstance(event, ev.Observed) else Stage.UNSURE, event.now)

    def _revoked(self, event: ev.Event) -> list[Command]:
        """Report, once, that the server shows a run that had ended otherwise now. Older polls may show that."""
        if not isinstance(event, ev.Observed) or self.snapshot is None:
            return []
        asked_at = event.now if event.asked_at is None else event.asked_at
        if asked_at <= self._ended_at or event.snapshot.phase in OBSERVABLE[self.snapshot.phase]:
            return []
        self._ended_at = math.inf
        return [do.Report(notices.EndRevoked(status=event.snapshot.status, previous=self.snapshot.status))]

    # Polls

    def _observed(self, event: ev.Observed) -> list[Command]:
        now, snapshot = event.now, event.snapshot
        commands: list[Command] = []
        if self._patience.heard():
            commands.append(do.Report(notices.ConnectivityChanged(connectivity=self._patience.connectivity)))
        self._seen = True
        asked_at = now if event.asked_at is None else event.asked_at
        self._patience.learn(snapshot, now, asked_at)
        if event.asked is Asked.SUBMIT:
            commands += self._accepted(now)
        elif event.asked is Asked.CANCEL and self._cancellation.active:
            self._patience.restart()
            self._cancellation.taken(now)
        elif snapshot.phase is not Phase.NEEDS_CALLER and not snapshot.phase.is_terminal:
            self._went_on(now)
        was_final = self.snapshot is not None and self.snapshot.is_final
        commands += self._status(snapshot, now)
        if snapshot.phase.is_terminal:
            if snapshot.phase in ENDS_BY_ITSELF:
                self._patience.left_stage(now)
            return [*commands, self._finish(now, ENDS[snapshot.phase])]
        is_new = event.asked is Asked.SUBMIT and was_final
        if is_new:
            self._new_at = now
        wants_cancel = self._ledger.in_flight is None and self._cancellation.is_due(snapshot, now)
        if wants_cancel or (is_new and self._cancellation.requested):
            return [*commands, *self._cancel(), self._poll(now)]
        return commands + self._go_on(snapshot, now, asked_at)

    def _status(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        previous = self.snapshot.status if self.snapshot else None
        self.snapshot = snapshot
        if snapshot.status == previous:
            return []
        self._unknown_since = now if snapshot.phase is Phase.UNKNOWN else None
        change = notices.StatusChanged(
            status=snapshot.status, phase=snapshot.phase, previous=previous, run=snapshot.resource
        )
        return [do.Report(change)]

    def _go_on(self, snapshot: AnySnapshot, now: float, asked_at: float) -> list[Command]:
        """Decide about a run that has not ended."""
        if self._patience.final_until is not None:
            return [self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT)]
        if self._cancellation.is_hopeless(snapshot.phase):
            return [self._leave_uncancelled(now)]
        if snapshot.phase is Phase.NEEDS_CALLER:
            if not self._cancellation.requested:
                return self._needs_caller(snapshot, now, asked_at)
        else:
            self._empty_polls = 0
        if self._nothing_goes_on and self._cancellation.confirm_by < math.inf:
            return [self._finish(now, EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED)]
        if now >= self._cancellation.confirm_by:
            return [self._finish(now, EndKind.GAVE_UP, Reason.CANCEL_UNCONFIRMED)]
        if self._unknown_since is not None and now - self._unknown_since >= self._policy.unknown_s:
            return [self._finish(now, EndKind.GAVE_UP, Reason.UNKNOWN_STATUS)]
        return [self._poll(now, hint=snapshot.hint)]

    def _went_on(self, now: float) -> None:
        """Note that the run was seen without calls."""
        if self._ledger.went_on(now):
            self._unsettled = None

    def _poll(self, now: float, pause: float | None = None, hint: float | None = None) -> do.PollAt:
        listens = pause is None and self._streams and not self._cancellation.requested
        if listens:
            pause = SILENCE_S
        elif pause is None and self.state is State.DISPATCHING:
            pause = self._patience.slow_pause(now, hint)
        before = math.inf if self._unknown_since is None else self._unknown_since + self._policy.unknown_s
        before = min(before, self._cancellation.confirm_by)
        window = self._patience.next_poll(now, pause, hint=hint, before=before)
        return do.PollAt(*window, if_silent=SILENCE_S if listens else 0.0)

    def _poll_now(self, now: float) -> do.PollAt:
        return do.PollAt(*self._patience.next_poll(now, 0.0))

    def _stream_ended(self, event: ev.StreamEnded) -> list[Command]:
        """Go over to polls. A stream that ends where the run waits for the caller has told all there is."""
        if not self._streams:
            return []
        self._streams = False
        waits = self.snapshot is not None and self.snapshot.phase is Phase.NEEDS_CALLER
        if waits and event.cause is None:
            return [self._poll(event.now)]
        return [do.Report(notices.StreamBroken(cause=event.cause)), self._poll_now(event.now)]

    # Rounds of calls

    def _needs_caller(self, snapshot: AnySnapshot, now: float, asked_at: float) -> list[Command]:
        if not snapshot.calls:
            self._empty_polls += 1
            if self._empty_polls >= POLLS_WITHOUT_CALLS:
                return [self._finish(now, EndKind.NEEDS_CALLER, Reason.NO_CALLS)]
            return [self._poll(now)]
        self._empty_polls = 0
        calls = tuple(call for call in snapshot.calls if call.kind is not CallKind.SERVER)
        left = self._left_to_server(snapshot.calls)
        return left + (self._round(calls, snapshot, now, asked_at) if calls else self._went_past(snapshot, now))

    def _left_to_server(self, calls: tuple[Call, ...]) -> list[Command]:
        news = self._ledger.leave_to_server(call for call in calls if call.kind is CallKind.SERVER)
        return [do.Report(notices.CallsLeftToServer(calls=news))] if news else []

    def _went_past(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        self._went_on(now)
        return [self._poll(now, hint=snapshot.hint)]

    def _round(self, calls: tuple[Call, ...], snapshot: AnySnapshot, now: float, asked_at: float) -> list[Command]:
        round_ = self._ledger.round_of(calls)
        verdict = self._ledger.judge(round_, asked_at)
        match verdict:
            case Verdict.ANSWER:
                return self._open(round_, snapshot, now)
            case Verdict.WAIT:
                return [self._poll(now, hint=snapshot.hint)]
            case Verdict.SEND_AGAIN:
                if round_.stage is Stage.UNSURE and self._policy.on_lost_submit == "give_up":
                    # Taken up again by a cancel that came to nothing; the outputs may have had their effect.
                    return [self._finish(now, EndKind.GAVE_UP, Reason.SUBMIT_LOST)]
                if self._ledger.rounds_done > self._max_rounds:  # each with the same calls
                    return [self._finish(now, EndKind.NEEDS_CALLER, Reason.MAX_ROUNDS)]
                self._ledger.send_again(round_, now)
                return [*self._send(now), self._poll(now, hint=snapshot.hint)]
            case Verdict.IGNORED:
                reason = Reason.OUTPUTS_IGNORED if round_.refused is None else Reason.SUBMIT_REFUSED
                return [self._finish(now, EndKind.NEEDS_CALLER, reason, round_.refused)]
            case _:
                assert_never(verdict)

    def _open(self, round_: Round, snapshot: AnySnapshot, now: float) -> list[Command]:
        commands: list[Command] = []
        if self._ledger.current is not round_:
            # What never changes does not expire either, so its calls have their time.
            answer_by = math.inf if snapshot.is_final else self._patience.answer_by(now)
            self._ledger.begin_round(round_, now, answer_by)
            self._patience.left_stage(now)
            self._cancellation.forget_refusal()
            self._unsettled = None
            commands.append(do.Report(notices.ActionRequired(calls=round_.calls)))
            if self._ledger.rounds_done >= self._max_rounds:
                self._ledger.leave_unanswered(round_.calls)
                return [*commands, self._finish(now, EndKind.NEEDS_CALLER, Reason.MAX_ROUNDS)]
        if fresh := self._ledger.hand_out(round_.calls):
            commands.append(do.RunTools(fresh))
        commands += self._settle(now)
        return commands if self.end else [*commands, self._poll(now, hint=snapshot.hint)]

    @property
    def _max_rounds(self) -> float:
        return math.inf if self._policy.max_rounds is None else self._policy.max_rounds

    def _record(self, outputs: Answers, *, replace: bool = False) -> list[Command]:
        news = self._ledger.record(outputs, replace=replace)
        return [do.Report(notices.CallAnswered(call_id=call_id, output=output)) for call_id, output in news]

    def _settle(self, now: float) -> list[Command]:
        """Submit when every call is answered; end when what is missing will come from nobody here."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.OPEN or self._cancellation.requested:
            return []
        if not self._ledger.missing():
            round_.make_ready(now)
            return self._send(now)
        if not self._ledger.awaited():
            if self._cancellation.refused is not None:
                return [self._finish(now, EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, self._cancellation.refused)]
            cause = self._ledger.cause
            reason = Reason.UNANSWERED if cause is None else Reason.HANDLER_FAILED
            return [self._finish(now, EndKind.NEEDS_CALLER, reason, cause)]
        return []

    def _send(self, now: float) -> list[Command]:
        """Send the outputs of the current round when it is time."""
        round_, snapshot = self._ledger.current, self.snapshot
        if round_ is None or snapshot is None or now < self._send_at:
            return []
        self._ledger.begin_submit(round_, now)
        return [do.Submit(self._ledger.answers(round_), snapshot, self._policy.keep_tool_choice)]

    @property
    def _send_at(self) -> float:
        """When the outputs of the current round are to be sent, one submit after the other; infinity for not."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.READY or self._ledger.in_flight is not None:
            return math.inf
        return math.inf if self._cancellation.requested else round_.send_at

    def _accepted(self, now: float) -> list[Command]:
        self._patience.restart()
        round_ = self._ledger.end_submit()
        if round_ is None:
            return []
        self._ledger.accept(round_, now)
        self._unsettled = None
        self._patience.progress.go_on(now)
        return [do.Report(notices.OutputsSubmitted(outputs=self._ledger.outputs(round_))), *self._send(now)]

    # Refusals

    def _refused(self, event: ev.Refused) -> list[Command]:
        match event.asked:
            case Asked.POLL:
                self._patience.excuse(event.held_back, event.now)
                return self._poll_refused(event.refusal, event.now)
            case Asked.SUBMIT:
                return self._submit_refused(event.refusal, event.now)
            case Asked.CANCEL:
                return self._cancel_answered(event.refusal, event.now)
            case _:
                assert_never(event.asked)

    def _poll_refused(self, refusal: Refusal, now: float) -> list[Command]:
        if self.snapshot is not None and self.snapshot.is_final:
            # It shows what never changes, so a poll that fails tells as much as one that does not.
            return self._go_on(self.snapshot, now, now)
        if refusal.kind in FATAL_POLLS:
            return [self._finish(now, EndKind.GAVE_UP, FATAL_POLLS[refusal.kind], refusal.cause)]
        if refusal.kind is RefusalKind.NOT_FOUND:
            if now - self._new_at >= NOT_FOUND_GRACE_S or self._patience.final_until is not None:
                reason = Reason.GONE if self._seen else Reason.NOT_FOUND
                return [self._finish(now, EndKind.GAVE_UP, reason, refusal.cause)]
            self._patience.not_found(refusal.cause)
            return [self._poll(now)]
        pause, reports = self._trouble(refusal, now)
        # Being throttled is no answer: what is left of the last poll's time is used.
        may_pass = refusal.kind is RefusalKind.THROTTLED and now + pause < self._patience.over_at
        if self.polls_once_more and self.end is None and not may_pass:
            reports.append(self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT, refusal.cause))
        return reports if self.end else [*reports, self._poll(now, pause)]

    def _trouble(self, refusal: Refusal, now: float) -> tuple[float, list[Command]]:
        """Note that the server is not well; give the pause, and what to report, an end of patience included."""
        pause, changed = self._patience.failed(refusal, now)
        commands: list[Command] = []
        if changed:
            notice = notices.ConnectivityChanged(connectivity=self._patience.connectivity, cause=refusal.cause)
            commands.append(do.Report(notice))
        if self._patience.outage_is_over_budget(now):
            commands.append(self._finish(now, EndKind.GAVE_UP, Reason.UNREACHABLE, refusal.cause))
        return pause, commands

    def _submit_refused(self, refusal: Refusal, now: float) -> list[Command]:
        round_ = self._ledger.end_submit()
        if round_ is None:
            return []
        kind = refusal.kind
        commands: list[Command] = []
        if kind is not RefusalKind.NOT_ACCEPTING:
            self._unsettled = refusal.cause
        if kind in TOO_EARLY and round_.refused_too_early(now):
            round_.postpone(Stage.READY, now, backoff(min(round_.failures, EARLY_STEPS), refusal))
        elif kind.passes:
            _, commands = self._trouble(refusal, now)
            is_lost = kind.may_have_acted
            if is_lost and self._gives_up_lost and self.end is None:
                round_.move(Stage.UNSURE, now)
                return [*commands, self._finish(now, EndKind.GAVE_UP, Reason.SUBMIT_LOST, refusal.cause)]
            polls = is_lost and self._policy.on_lost_submit == "poll"
            round_.postpone(Stage.UNSURE if polls else Stage.READY, now, backoff(round_.failures, refusal))
        elif kind in FATAL_SUBMITS and round_ is self._ledger.current and not self._cancellation.requested:
            round_.move(Stage.READY, now)
            return [self._finish(now, *FATAL_SUBMITS[kind], refusal.cause)]
        elif kind is RefusalKind.NOT_ACCEPTING:
            round_.move(Stage.SENT, now)  # the run has gone on or ended, or another has answered it
        else:
            round_.refuse(now, refusal.cause)  # which of those it is, polls tell, over the lag
        if self.end is not None:
            return commands
        if self._cancellation.waits:
            return [*commands, *self._cancel()]
        self._patience.restart()
        return [*commands, *self._send(now), self._poll_now(now)]

    @property
    def _gives_up_lost(self) -> bool:
        """Whether the watch ends when an answer to a submit is lost: who cancels does not send it again either."""
        policy = self._policy.on_lost_submit
        return policy == "give_up" or (policy == "resend" and self._cancellation.requested)

    # Cancelling

    def _cancel_asked(self, event: ev.CancelAsked) -> list[Command]:
        now = event.now
        if self._cancellation is NOT_ASKED:
            self._cancellation = Cancellation()
        cancellation = self._cancellation
        if cancellation.leave_by(event.by):  # leaving has a time of its own, however short the wait was to be
            self._patience.begin_again(now, at_least=event.by - now)
        if cancellation.requested:
            return []
        if self._ledger.in_flight is not None:
            # A submit on its way is not overtaken: its result is wanted, and the cancel follows it, or comes after a
            # while in any case; but not over what is final, where only what the submit begins can be cancelled.
            is_final = self.snapshot is not None and self.snapshot.is_final
            cancellation.ask(now, at=math.inf if is_final else now + CANCEL_HOLD_S)
            return []
        cancellation.ask(now)
        return self._cancel()

    def _cancel_after_end(self, event: ev.CancelAsked, end: End) -> list[Command]:
        """Take up a watch that ended before its run; a caller that leaves has nothing to cancel where no run is."""
        round_ = self._ledger.current
        # The answer to a submit may have come after the end, and then the snapshot is not of what that began.
        has_begun_more = round_ is not None and round_.stage is Stage.SENT and round_.refused is None
        is_nothing = end.reason in _NOT_THERE or (self._nothing_goes_on and not has_begun_more)
        if event.by < math.inf and is_nothing:
            return []
        self._go_on_after_end(event.now, at_least=CANCEL_BOUND_S)
        self._cancellation = Cancellation(end)
        commands = self._cancel_asked(event)
        return commands if self.end else [*commands, self._poll_now(event.now)]

    def _leave_uncancelled(self, now: float) -> do.Finish:
        """End the watch of a caller that leaves: as it had ended before, or for want of a confirmed cancel."""
        error, earlier = self._cancellation.give_up(), self._cancellation.earlier
        if earlier is not None:
            return self._finish(now, earlier.kind, earlier.reason, earlier.cause)
        if self.snapshot is not None and self.snapshot.phase is Phase.NEEDS_CALLER and self._ledger.missing():
            return self._finish(now, EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, error)
        return self._finish(now, EndKind.GAVE_UP, Reason.NOT_CANCELLED, error)

    def _cancel(self) -> list[Command]:
        self._cancellation.send()
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.OPEN:
            return [do.Cancel()]
        # A call that was begun is not begun again, so from here on nobody answers it.
        self._ledger.leave_unanswered(self._ledger.missing())
        return [do.StopTools(), do.Cancel()]

    def _cancel_answered(self, refusal: Refusal, now: float) -> list[Command]:
        if not self._cancellation.active:
            return []
        status = self.snapshot.status if self.snapshot else None
        is_new = now - self._new_at < NOT_FOUND_GRACE_S
        answer = self._cancellation.answered(refusal, now, status=status, is_new=is_new)
        match answer:
            case CancelAnswer.OVER:
                return [self._poll_now(now)]
            case CancelAnswer.AGAIN:
                return self._trouble(refusal, now)[1] if refusal.kind.passes else []
            case CancelAnswer.REFUSED:
                told: list[Command] = [do.Report(notices.CancelRefused(cause=refusal.cause))]
                if not self._ledger.missing():
                    told += self._settle(now)  # the last output came while nothing was to be submitted
                return [*told, self._poll_now(now)]
            case _:
                assert_never(answer)

    # Time

    def _tick(self, now: float) -> list[Command]:
        if now >= self._cancellation.by:
            return [self._leave_uncancelled(now)]
        if now >= self._patience.over_at:
            if self._patience.may_poll_once_more(now):
                return [do.PollAt(now, now)]
            # Why the last polls failed, if they did: a wait that never reached the server must say so.
            return [self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT, self._patience.trouble)]
        if now >= self._cancellation.at:
            return self._cancel()
        if now >= self._late_at:
            return self._answer_late_calls(now)
        return self._send(now)

    @property
    def _late_at(self) -> float:
        """When calls that still run are too late for the run; infinity for never, or when none runs."""
        round_ = self._ledger.current
        if round_ is None or not self._late_calls():
            return math.inf
        return round_.answer_by

    def _late_calls(self) -> list[Call]:
        """Give the calls that run here. An approval, say, is not answered with rubbish, however late it is."""
        return [call for call in self._ledger.awaited() if call.kind is CallKind.FUNCTION]

    def _answer_late_calls(self, now: float) -> list[Command]:
        """Answer the calls that are not done, so that the others' work is not lost with the run."""
        late = tuple((call, TIMED_OUT_OUTPUT) for call in self._late_calls())
        return [do.StopTools(approvals=False), *self._record(late), *self._settle(now)]
