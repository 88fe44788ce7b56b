"""The life of a watched run, as a machine that is told what was seen and says what to do next.

Theory of operation. The run lives at the server, and all we get are samples, late, repeated and out of order. The
machine keeps the last sample, the ledger of the calls, and the times; each event gives a list of commands for its
shell. It does no I/O, reads no clock and holds no task, so that one shell can run it for a single watch, another ten
thousand of them, and a third inside a workflow engine.

Our states, and what leads from one to the next (theirs are in `phases.py`)::

    POLLING      a new round of calls                                   -> DISPATCHING
    DISPATCHING  all answered, or the expiry is near                    -> SUBMITTING
    SUBMITTING   accepted, or the run went on                           -> POLLING
                 refused before it had an effect                        -> SUBMITTING, later
                 no answer: look, and send the same again only when the
                 run still asks for the same after the lag              -> SUBMITTING
    any          the caller cancels                                     -> CANCELLING, after a submit in flight
    CANCELLING   the server refuses                                     -> POLLING
    any          the run ended, or patience did                         -> DONE
    DONE         outputs from the caller, if it was they that we lacked -> SUBMITTING

Illegal local input raises and leaves the machine as it was. Whatever a server says never raises.
"""

from __future__ import annotations

import math
from typing import Final, assert_never

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import commands as do
from asyncruns.lifecycle import events as ev
from asyncruns.lifecycle import notices
from asyncruns.lifecycle.commands import ENDS, FATAL_LOOKS, Command, End, EndKind, Reason
from asyncruns.lifecycle.ledger import Ledger, Round, Stage, Verdict
from asyncruns.lifecycle.patience import Patience, Policy
from asyncruns.lifecycle.phases import Phase, State
from asyncruns.lifecycle.values import AnySnapshot, Asked, Outputs, Refusal, RefusalKind

NOT_FOUND_GRACE_S: Final = 5.0  # so long a run that was just created may not be there yet
UNKNOWN_STATUS_S: Final = 60.0
LOOKS_WITHOUT_CALLS: Final = 4
CANCEL_TRIES: Final = 5
TIMED_OUT_OUTPUT: Final = '{"error": "The call did not finish in time."}'


class RunLifecycle:
    """One watched run. Feed it with `receive`; wake it with a `Tick` at `wake_at`."""

    __slots__ = (
        "_begun",
        "_cancel_at",
        "_cancel_tries",
        "_empty_looks",
        "_ledger",
        "_patience",
        "_resend_at",
        "_seen",
        "_unknown_since",
        "cancel_requested",
        "end",
        "snapshot",
        "state",
    )

    def __init__(self, policy: Policy | None = None) -> None:
        self._ledger = Ledger()
        self._patience = Patience(Policy() if policy is None else policy)
        self._begun = False
        self._seen = False  # by a look of ours; a caller's object may be of a replica that others lag behind
        self._empty_looks = 0
        self._unknown_since: float | None = None
        self._resend_at = math.inf
        self._cancel_at = math.inf
        self._cancel_tries = 0
        self.state: State = State.POLLING
        self.snapshot: AnySnapshot | None = None
        self.cancel_requested: bool = False
        self.end: End | None = None

    def receive(self, event: ev.Event) -> list[Command]:
        """Take an event; give what to do, in order.

        Raises:
            InvalidRequestError: The event cannot be: a watch that began twice or never, an output for a call that does
                not exist. The machine is as before.
        """
        if self._begun is isinstance(event, ev.Begun):
            raise InvalidRequestError("A watch begins once, with Begun")
        if self.state is State.DONE:
            return self._take_up_again(event)
        match event:
            case ev.Begun():
                return self._begin(event)
            case ev.Observed():
                return self._observed(event)
            case ev.Refused():
                return self._refused(event)
            case ev.Answered():
                return [*self._record(event.outputs), *self._settle_round(event.now)]
            case ev.Unanswered():
                return self._unanswered(event)
            case ev.CancelAsked():
                return self._cancel_asked(event.now)
            case ev.Tick():
                return self._tick(event.now)
            case _:
                assert_never(event)

    @property
    def wake_at(self) -> float:
        """When the machine wants a `Tick`, beside the looks that it asked for; infinity for never."""
        if self.state is State.DONE:
            return math.inf
        tools = self._patience.tools_deadline if self.state is State.DISPATCHING else math.inf
        return min(self._patience.over_at, self._resend_at, self._cancel_at, tools)

    # Beginning and ending

    def _begin(self, event: ev.Begun) -> list[Command]:
        self._begun = True
        self._patience.started = event.now
        snapshot = event.snapshot
        if snapshot is None:
            return [do.PollAt(event.now, event.now)]
        reports = self._status(snapshot, event.now)
        if snapshot.phase.is_terminal:
            return [*reports, self._finish(ENDS[snapshot.phase])]
        # What the object says else may be old: look before anything is done about it.
        return [*reports, do.PollAt(event.now, event.now)]

    def _finish(self, kind: EndKind, reason: Reason | None = None, cause: Exception | None = None) -> do.Finish:
        self.state = State.DONE
        self._resend_at = self._cancel_at = math.inf
        over = kind not in (EndKind.NEEDS_CALLER, EndKind.GAVE_UP)
        self.end = End(
            kind=kind,
            snapshot=self.snapshot,
            reason=reason,
            cause=cause,
            calls=() if over else self._ledger.missing(),
            outputs=() if over else self._ledger.outputs(self._ledger.current),
        )
        return do.Finish(self.end)

    def _take_up_again(self, event: ev.Event) -> list[Command]:
        """Take outputs from the caller after the watch ended for want of them; anything else comes too late."""
        if not isinstance(event, ev.Answered) or self.end is None or self.end.kind is not EndKind.NEEDS_CALLER:
            return []
        reports = self._record(event.outputs, by_caller=True)
        round_ = self._ledger.current
        if round_ is None:
            return []
        self.end = None
        self.state = State.DISPATCHING
        self._patience.started = event.now  # the caller's own time is not the run's
        round_.move(Stage.OPEN, event.now)
        round_.unanswered.update(call.id for call in self._ledger.missing())
        return [*reports, *self._settle_round(event.now)]

    # Looks

    def _observed(self, event: ev.Observed) -> list[Command]:
        now, snapshot = event.now, event.snapshot
        commands: list[Command] = []
        if self._patience.heard():
            commands.append(do.Report(notices.ConnectivityChanged(connectivity=self._patience.connectivity)))
        self._seen = True
        self._patience.learn(snapshot, now)
        if event.asked is Asked.SUBMIT:
            commands += self._accepted(now)
        commands += self._status(snapshot, now)
        if snapshot.phase.is_terminal:
            return [*commands, self._finish(ENDS[snapshot.phase])]
        if event.asked is Asked.SUBMIT and self.cancel_requested:
            return [*commands, *self._cancel()]
        return commands + self._go_on(snapshot, now)

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

    def _go_on(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        """Decide about a run that has not ended."""
        if self._patience.final_until is not None:
            return [self._finish(EndKind.GAVE_UP, Reason.TIMEOUT)]
        round_ = self._ledger.current
        if snapshot.phase is Phase.NEEDS_CALLER:
            if self.state is not State.CANCELLING:
                return self._needs_caller(snapshot, now)
        else:
            self._empty_looks = 0
            if round_ is not None and round_.stage in (Stage.UNSURE, Stage.SENT):
                # The run went on: a submit whose answer was lost had been accepted, and who shows the calls from now
                # on is behind, or asks for the same again; so the lag counts from here.
                round_.move(Stage.SENT, now)
                self._resume_polling()
        if self._unknown_since is not None and now - self._unknown_since >= UNKNOWN_STATUS_S:
            return [self._finish(EndKind.GAVE_UP, Reason.UNKNOWN_STATUS)]
        return [self._look(now, hint=snapshot.hint)]

    def _look(self, now: float, pause: float | None = None, hint: float | None = None) -> do.PollAt:
        if pause is None and self.state is State.DISPATCHING:
            pause = self._patience.slow_pause(hint)
        return do.PollAt(*self._patience.next_look(now, pause, hint=hint))

    def _resume_polling(self) -> None:
        if self.state is not State.CANCELLING:
            self.state = State.POLLING

    # Rounds of calls

    def _needs_caller(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        if not snapshot.calls:
            self._empty_looks += 1
            if self._empty_looks >= LOOKS_WITHOUT_CALLS:
                return [self._finish(EndKind.NEEDS_CALLER, Reason.NO_CALLS)]
            return [self._look(now)]
        round_ = self._ledger.round_of(snapshot.calls)
        verdict = self._ledger.judge(round_, now)
        match verdict:
            case Verdict.ANSWER:
                return self._open_round(round_, snapshot, now)
            case Verdict.WAIT:
                return [self._look(now, hint=snapshot.hint)]
            case Verdict.SEND_AGAIN:
                round_.resends += 1
                return self._submit(round_, now)
            case Verdict.IGNORED:
                return [self._finish(EndKind.NEEDS_CALLER, Reason.OUTPUTS_IGNORED)]
            case _:
                assert_never(verdict)

    def _open_round(self, round_: Round, snapshot: AnySnapshot, now: float) -> list[Command]:
        commands: list[Command] = []
        self._ledger.current = round_
        fresh = self._ledger.hand_out(round_)
        if self.state is not State.DISPATCHING or fresh:
            self.state = State.DISPATCHING
            commands.append(do.Report(notices.ActionRequired(calls=round_.calls)))
        if fresh:
            commands.append(do.RunTools(fresh))
        commands += self._settle_round(now)
        if self.state is State.DISPATCHING:
            commands.append(self._look(now, hint=snapshot.hint))
        return commands

    def _record(self, outputs: Outputs, *, by_caller: bool = False) -> list[Command]:
        news = self._ledger.record(outputs, replace=by_caller)
        return [do.Report(notices.CallAnswered(call_id=call_id, output=output)) for call_id, output in news]

    def _settle_round(self, now: float) -> list[Command]:
        """Submit when every call is answered; end when what is missing will come from nobody here."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.OPEN or self.state is not State.DISPATCHING:
            return []
        missing = {call.id for call in self._ledger.missing()}
        if not missing:
            return self._submit(round_, now)
        if missing <= round_.unanswered:
            return [self._finish(EndKind.NEEDS_CALLER, Reason.UNANSWERED)]
        return []

    def _unanswered(self, event: ev.Unanswered) -> list[Command]:
        round_ = self._ledger.current
        if round_ is None:
            raise InvalidRequestError(f"There are no such calls: {event.call_ids}")
        if event.cause is not None:
            return [self._finish(EndKind.NEEDS_CALLER, Reason.HANDLER_FAILED, event.cause)]
        round_.unanswered.update(event.call_ids)
        return self._settle_round(event.now)

    def _submit(self, round_: Round, now: float) -> list[Command]:
        self.state = State.SUBMITTING
        self._resend_at = math.inf
        self._ledger.current = round_
        round_.move(Stage.IN_FLIGHT, now)
        return [do.Submit(self._ledger.outputs(round_))]

    def _accepted(self, now: float) -> list[Command]:
        self._resume_polling()
        self._patience.restart()
        if self._ledger.current is None:
            return []
        self._ledger.current.move(Stage.SENT, now)
        return [do.Report(notices.OutputsSubmitted(outputs=self._ledger.outputs(self._ledger.current)))]

    # Refusals

    def _refused(self, event: ev.Refused) -> list[Command]:
        match event.asked:
            case Asked.POLL:
                return self._look_refused(event.refusal, event.now)
            case Asked.SUBMIT:
                return self._submit_refused(event.refusal, event.now)
            case Asked.CANCEL:
                return self._cancel_refused(event.refusal, event.now)
            case _:
                assert_never(event.asked)

    def _look_refused(self, refusal: Refusal, now: float) -> list[Command]:
        if refusal.kind in FATAL_LOOKS:
            return [self._finish(EndKind.GAVE_UP, FATAL_LOOKS[refusal.kind], refusal.cause)]
        if refusal.kind is RefusalKind.NOT_FOUND:
            if self._seen:
                return [self._finish(EndKind.GAVE_UP, Reason.GONE, refusal.cause)]
            if now - self._patience.started >= NOT_FOUND_GRACE_S:
                return [self._finish(EndKind.GAVE_UP, Reason.NOT_FOUND, refusal.cause)]
            return [self._look(now)]
        pause, reports = self._trouble(refusal, now)
        if self._patience.final_until is not None and self.state is not State.DONE:
            reports.append(self._finish(EndKind.GAVE_UP, Reason.TIMEOUT, refusal.cause))
        if self.state is State.DONE:
            return reports
        return [*reports, self._look(now, pause)]

    def _trouble(self, refusal: Refusal, now: float) -> tuple[float, list[Command]]:
        """Note that the server is not well; give the pause, and what to report, an end of patience included."""
        pause, changed = self._patience.failed(refusal, now)
        commands: list[Command] = []
        if changed:
            notice = notices.ConnectivityChanged(connectivity=self._patience.connectivity, cause=refusal.cause)
            commands.append(do.Report(notice))
        if self._patience.outage_is_over_budget(now):
            commands.append(self._finish(EndKind.GAVE_UP, Reason.UNREACHABLE, refusal.cause))
        return pause, commands

    def _submit_refused(self, refusal: Refusal, now: float) -> list[Command]:
        round_ = self._ledger.current
        if round_ is None:
            return []
        # First what came of the submit; then, if a cancel waits for it, the cancel.
        kind = refusal.kind
        commands: list[Command] = []
        if kind in (RefusalKind.NOT_SENT, RefusalKind.THROTTLED):
            pause, commands = self._trouble(refusal, now)
            round_.move(Stage.READY, now)
            self._resend_at = now + pause if self.state is not State.DONE else math.inf
        elif kind in (RefusalKind.LOST, RefusalKind.UNAVAILABLE):
            _, commands = self._trouble(refusal, now)
            round_.move(Stage.UNSURE, now)
        elif kind is RefusalKind.NOT_ACCEPTING:
            # Outputs were taken before, ours or another's, or the run has ended: the next look tells.
            round_.move(Stage.SENT, now)
            self._resume_polling()
        elif kind is RefusalKind.NOT_FOUND:
            return [self._finish(EndKind.GAVE_UP, Reason.GONE, refusal.cause)]
        else:
            round_.move(Stage.READY, now)
            return [self._finish(EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED, refusal.cause)]
        if self.state is State.DONE:
            return commands
        if self.cancel_requested:
            return [*commands, *self._cancel()]
        if round_.stage is not Stage.READY:
            self._patience.restart()
            commands.append(do.PollAt(*self._patience.next_look(now, 0.0)))
        return commands

    # Cancelling

    def _cancel_asked(self, now: float) -> list[Command]:
        self.cancel_requested = True
        round_ = self._ledger.current
        if self.state is State.CANCELLING or (round_ and round_.stage is Stage.IN_FLIGHT):
            return []  # a submit on its way is not overtaken: its result is wanted, and the cancel follows it
        return self._cancel()

    def _cancel(self) -> list[Command]:
        self.state = State.CANCELLING
        self._resend_at = self._cancel_at = math.inf
        self._cancel_tries += 1
        return [*self._abandon_calls(), do.Cancel()]

    def _abandon_calls(self) -> list[Command]:
        """Stop what runs. A call that was begun is not begun again, so from here on nobody answers it."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.OPEN:
            return []
        round_.unanswered.update(call.id for call in self._ledger.missing())
        return [do.StopTools()]

    def _cancel_refused(self, refusal: Refusal, now: float) -> list[Command]:
        if refusal.kind is RefusalKind.ALREADY_OVER:
            return [do.PollAt(*self._patience.next_look(now, 0.0))]
        passing = (RefusalKind.NOT_SENT, RefusalKind.LOST, RefusalKind.UNAVAILABLE, RefusalKind.THROTTLED)
        if refusal.kind in passing and self._cancel_tries < CANCEL_TRIES:
            pause, commands = self._trouble(refusal, now)
            self._cancel_at = now + pause if self.state is not State.DONE else math.inf
            return commands
        self.state = State.POLLING
        self.cancel_requested = False
        return [do.Report(notices.CancelRefused(cause=refusal.cause)), do.PollAt(*self._patience.next_look(now, 0.0))]

    # Time

    def _tick(self, now: float) -> list[Command]:
        if now >= self._patience.over_at:
            if self._patience.may_look_once_more(now):
                return [do.PollAt(now, now)]
            return [self._finish(EndKind.GAVE_UP, Reason.TIMEOUT)]
        round_ = self._ledger.current
        if now >= self._resend_at and round_ is not None:
            return self._submit(round_, now)
        if now >= self._cancel_at:
            return self._cancel()
        if self.state is State.DISPATCHING and now >= self._patience.tools_deadline:
            return self._answer_late_calls(now)
        return []

    def _answer_late_calls(self, now: float) -> list[Command]:
        """Answer the calls that are not done, so that the others' work is not lost with the run."""
        late = tuple((call.id, TIMED_OUT_OUTPUT) for call in self._ledger.missing())
        return [do.StopTools(), *self._record(late), *self._settle_round(now)]
