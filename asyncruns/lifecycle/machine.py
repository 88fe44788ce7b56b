"""The state machine of one watched run: it receives events and returns commands.

Theory of operation. The run lives at the server. A watch sees only samples of it, and these may arrive late, repeated
or out of order. The machine keeps the last sample, a ledger of the calls, and the times. Each event returns a list of
commands that a shell executes. The machine does no I/O, reads no clock and owns no task, so the same code serves a
shell for one watch, a shell for ten thousand watches, and a shell inside a workflow engine.

The state of the watch is never stored: `RunLifecycle.state` derives it from the parts, by the first line that applies
(the phases of the run at the server are in `phases.py`)::

    DONE         The watch has finished: the run ended, the caller is needed, or the watch gave up. In the last two
                 cases a cancel reopens it; outputs from the caller reopen it if they were what it needed.
    CANCELLING   A cancel was sent and the server has not refused it. (A cancel that waits for a submit in flight
                 comes later; until then the state is SUBMITTING.)
    DISPATCHING  The current round is OPEN: its calls are being answered. Polls continue, at a slower pace.
    SUBMITTING   A round is IN_FLIGHT; or the current round is READY (to be sent, or sent again because the last
                 submit had no effect) or UNSURE (the answer to the submit was lost: poll, and send the same outputs
                 again only if the run still asks for them after the lag).
    POLLING      None of these.

The machine owns three parts. They record what happened and answer questions about it, and never call back: the ledger
(calls and rounds), the cancellation, and the patience (times, connectivity, and the progress that the cadence needs).
What refusals mean is in `refusals.py` and `cancelling.py`.

Illegal local input raises and leaves the machine unchanged. Nothing that a server sends may raise here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, assert_never

from msgspec import Struct, UnsetType

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import commands as do
from asyncruns.lifecycle import events as ev
from asyncruns.lifecycle import notices
from asyncruns.lifecycle.cancelling import CANCEL_HOLD_S, CancelAnswer, Cancellation
from asyncruns.lifecycle.commands import ENDS, NOTHING_USED, Command, End, EndKind, Reason
from asyncruns.lifecycle.ledger import Ledger, OpenRound, Round, Stage, Verdict
from asyncruns.lifecycle.patience import Patience, backoff
from asyncruns.lifecycle.phases import OBSERVABLE, Phase, State
from asyncruns.lifecycle.policy import CANCEL_BOUND_S, Policy
from asyncruns.lifecycle.progress import AT_WORK
from asyncruns.lifecycle.refusals import FATAL_POLLS, FATAL_SUBMITS, TOO_EARLY
from asyncruns.lifecycle.values import (
    Answers,
    AnySnapshot,
    Asked,
    Call,
    CallKind,
    Counts,
    Refusal,
    RefusalKind,
    Snapshot,
    TokenUsage,
)

# How long a 404 to a poll or a cancel is tolerated after the watch began, or after a submit began a new run: a replica
# may not have the run yet.
NOT_FOUND_GRACE_S: Final = 5.0
# How many times the pause doubles while a submit is refused as too early: 0.5, 1, 2, 2, ... s. The lag mostly ends
# within a second, so longer pauses would waste time.
EARLY_STEPS: Final = 2
POLLS_WITHOUT_CALLS: Final = 4  # polls in a row that show a run waiting for no call, before the watch finishes
DISPATCHING_SHARE: Final = 0.1  # what a poll is worth while tools run, compared with other times; see `delay`
SILENCE_S: Final = 5.0  # after this silence of a stream a poll checks the run; models may think for longer
TIMED_OUT_OUTPUT: Final = '{"error": "The call did not finish in time."}'  # sent just before the expiry

# Shared by all watches without a cancel, and by all without calls, to save memory; never modify them.
NOT_ASKED: Final = Cancellation()
NO_CALLS: Final = Ledger()
# Durations are learned from these ends and from rounds of calls. CANCELLED and EXPIRED are absent: they do not show how
# long the run would have taken.
ENDS_BY_ITSELF: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.INCOMPLETE)
_NOT_OURS: Final = (Reason.NOT_FOUND, Reason.GONE, Reason.TAKEN_OVER)


@lru_cache(maxsize=64)  # a dialect knows a few statuses, and ten thousand runs have one of them
def _reduced(phase: Phase, status: str) -> Snapshot[None]:
    return Snapshot(phase=phase, status=status, resource=None)


class RunLifecycle(Struct, eq=False, gc=False):
    """One watched run. Pass events to `receive`, and a `Tick` at `wake_at`."""

    _policy: Policy = Policy()
    _patience: Patience = None  # type: ignore[assignment]
    _ledger: Ledger = None  # type: ignore[assignment]
    _cancellation: Cancellation = NOT_ASKED
    _begun: bool = False
    # Whether the server has shown the run to this watch. The caller's object does not count: it may come from a replica
    # that is ahead of the others. It decides between the reasons GONE and NOT_FOUND.
    _seen: bool = False
    _empty_polls: int = 0  # in a row
    _unknown_since: float | None = None  # since when the run has had its present, unknown status
    _ended_at: float = math.inf  # when the watch finished; infinity again once `EndRevoked` was reported
    _streams: bool = False  # whether a stream reports the run, so that polls only check its silence
    _new_at: float = -math.inf  # when the watched run began to exist, as far as is known: a 404 is tolerated after it
    _unsettled: Exception | None = None  # why the last submit of this round failed, until one is accepted
    _used_before: TokenUsage = NOTHING_USED  # by the runs before the present one
    _used: TokenUsage = NOTHING_USED  # by the present run, as far as was seen
    snapshot: AnySnapshot | None = None
    end: End | None = None
    counts: Counts | None = None  # of a batch, as the last poll that had them showed them

    def __post_init__(self) -> None:
        self._patience = Patience(self._policy)
        self._ledger = NO_CALLS

    @property
    def cancel_requested(self) -> bool:
        """Whether the caller asked for a cancel that the server has not definitely refused."""
        cancellation = self._cancellation
        # If the answer to one try was lost, that try may have worked, even if a later one was refused.
        return (cancellation.requested and not cancellation.is_refused) or cancellation.may_have_acted

    @property
    def is_cancelling(self) -> bool:
        """Whether the watch goes on and a cancel is wanted; then no call is handed out and nothing is submitted."""
        return self.end is None and self._cancellation.requested

    @property
    def cancel_error(self) -> Exception | None:
        """Why the run is not cancelled although the caller wanted it.

        The error of the last try, or a timeout if the caller left before a poll confirmed the cancel. None without
        such an error, if the run is cancelled, or if nothing is left to cancel.
        """
        is_cancelled = self.snapshot is not None and self.snapshot.phase is Phase.CANCELLED
        return None if is_cancelled or self._nothing_goes_on else self._cancellation.error

    @property
    def _nothing_goes_on(self) -> bool:
        """Whether the server is doing nothing that a cancel could stop."""
        return self.snapshot is not None and self.snapshot.is_final and self._ledger.in_flight is None

    @property
    def state(self) -> State:
        """What the watch is doing. The order of the tests is that of the table at the head of this module."""
        current = self._ledger.current
        if self.end is not None:
            return State.DONE
        if self._cancellation.active:
            return State.CANCELLING
        if self._is_dispatching:
            return State.DISPATCHING
        if self._ledger.in_flight or (current is not None and current.stage in (Stage.READY, Stage.UNSURE)):
            return State.SUBMITTING
        return State.POLLING

    @property
    def _is_dispatching(self) -> bool:
        """Whether the state is DISPATCHING."""
        current = self._ledger.current
        return (
            current is not None and current.stage is Stage.OPEN and not self._cancellation.active and self.end is None
        )

    @property
    def policy(self) -> Policy:
        """The options of the watch."""
        return self._policy

    @property
    def wake_at(self) -> float:
        """Time at which the machine wants a `Tick`, besides the polls that it has asked for; infinity for never."""
        if self.end is not None:
            return math.inf
        # The bounds of a stuck cancel and of an unknown status are absent: only a poll can show that they are over.
        at = min(self._patience.over_at, self._cancellation.at)
        return at if self._ledger.current is None else min(at, self._send_at, self._late_at)

    def receive(self, event: ev.Event) -> list[Command]:
        """Process an event and return the commands to execute, in order.

        Raises:
            InvalidRequestError: The event is impossible: the first event is not `Begun`, or a later one is; an output
                is for a call that the current round does not have, or is not an approval although the call needs one;
                or outputs are provided after the watch gave up. The machine is unchanged.
        """
        if self._begun is isinstance(event, ev.Begun):
            raise InvalidRequestError(f"A watch begins once: send Begun first, and once; got {type(event).__name__}")
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
                self._need_ledger()
                return [*self._record(event.outputs, failed=event.failed), *self._settle(event.now)]
            case ev.OutputsProvided():
                outputs = self._ledger.resolve(event.outputs)
                return [*self._record(outputs), *self._settle(event.now)]
            case ev.CallsUnanswered():
                self._need_ledger()
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
        """Return the seconds by which the watch is expected to be late now in noticing the end of its run.

        A shell with many watches polls first where this is largest.
        """
        # The run waits for our outputs, so it can only have expired or been cancelled. Learned durations do not apply,
        # except after a late answer to the previous submit: 8 s after the last poll count as 8 / 2 * 0.1 = 0.4 s.
        return self._patience.delay(now) * (DISPATCHING_SHARE if self._is_dispatching else 1.0)

    def delayed_at(self, delay: float) -> float:
        """Return when the watch will be expected to be `delay` seconds late in noticing the end.

        If the run expires before that, its expiry is returned; it is polled first then.
        """
        if self._is_dispatching:
            delay /= DISPATCHING_SHARE
        at, expiry = self._patience.delayed_at(delay), self._patience.expiry
        return at if expiry is None or at < expiry else expiry

    @property
    def usage(self) -> TokenUsage:
        """The tokens used so far, over all runs that were watched, as far as the server says."""
        return self._used_before + self._used

    @property
    def answer_by(self) -> float:
        """Time by which the calls of the current round must be answered; infinity if there is no limit."""
        return min(self.expires_with_calls_at, self._patience.over_at)

    @property
    def expires_with_calls_at(self) -> float:
        """Time by which the calls must be answered so that the run does not expire; infinity if that is not known."""
        round_ = self._ledger.current
        return math.inf if round_ is None else round_.answer_by

    @property
    def outage_since(self) -> float | None:
        """Since when all requests have failed; None if the last one did not."""
        return self._patience.outage_since

    @property
    def open_calls(self) -> tuple[Call, ...]:
        """The calls that have no output yet."""
        return self._ledger.missing()

    def open_round(self, now: float) -> OpenRound:
        """Return what another watch needs to know to go on with the round that is open."""
        return self._ledger.open_round(now)

    @property
    def connectivity(self) -> notices.Connectivity:
        """How well the server can be reached."""
        return self._patience.connectivity

    @property
    def trouble(self) -> Exception | None:
        """Why the last request failed; None if it succeeded."""
        return self._patience.trouble

    @property
    def polls_once_more(self) -> bool:
        """Whether the deadline has passed without a last poll, and one more poll decides the outcome."""
        return self._patience.final_until is not None

    def forget_resource(self) -> None:
        """Reduce the last snapshot to what the machine needs: ten thousand bodies would take many megabytes."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.resource is None:
            return
        if snapshot.phase is Phase.NEEDS_CALLER or snapshot.is_final:
            return
        if snapshot.phase is Phase.UNKNOWN or snapshot.fault is not None:
            self.snapshot = Snapshot(phase=snapshot.phase, status=snapshot.status, fault=snapshot.fault, resource=None)
        else:
            self.snapshot = _reduced(snapshot.phase, snapshot.status)

    def waits_for_poll(self, now: float) -> bool:
        """Return whether the default deadline has passed but may be extended until a poll that is due is answered.

        The caller's own timeout and the bound of a cancel are promises, so they are never extended.
        """
        is_default = isinstance(self._policy.timeout, UnsetType) and not self._cancellation.requested
        return is_default and not self.polls_once_more and now >= self._patience.over_at

    @property
    def poll_by(self) -> float:
        """Time by which to poll a run that is at work, however rarely a shell wants to; -infinity in other states.

        It is infinity if no poll is needed for the deadline of the watch or an unknown status.
        """
        if self.state is not State.POLLING or self._cancellation.requested:
            return -math.inf
        since = math.inf if self._unknown_since is None else self._unknown_since
        return min(self._patience.last_poll_at, since + self._policy.unknown_s)

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
        if snapshot.is_final:  # a poll would show nothing new, and some servers cannot be polled
            return [*reports, *self._go_on(snapshot, event.now, event.now)]
        # Do not act on the calls of the caller's object: it may be old, and another process may have answered them.
        return [*reports, do.PollAt(event.now, event.now)]

    def _finish(
        self, now: float, kind: EndKind, reason: Reason | None = None, cause: Exception | None = None
    ) -> do.Finish:
        self._ended_at = now
        # An outcome that is not a success names the last known error, even where nothing in the run points to one: a
        # run may have expired because its submits failed.
        if kind is not EndKind.COMPLETED:
            cause = cause or self._patience.trouble or self._unsettled
        self.end = End(
            kind=kind,
            snapshot=self.snapshot,
            reason=reason,
            cause=cause,
            calls=() if kind.is_final else self._ledger.missing(),
            outputs=() if kind.is_final else self._ledger.outputs(self._ledger.current),
            usage=self.usage,
        )
        return do.Finish(self.end)

    def _after_end(self, event: ev.Event, end: End) -> list[Command]:
        """Reopen a watch that finished before its run, for outputs that it needed or for a cancel.

        Of the other events, a late answer to a submit is recorded, and another status of an ended run is reported once.

        Raises:
            InvalidRequestError: Outputs are provided, but the watch gave up, or they fit no open call.
        """
        if end.kind.is_final:
            return self._revoked(event)
        if isinstance(event, ev.CancelAsked):
            return self._cancel_after_end(event, end)
        if isinstance(event, ev.Observed | ev.Refused) and event.asked is Asked.SUBMIT:
            self._landed_after_end(event)
            return []
        if not isinstance(event, ev.OutputsProvided):
            return []
        if end.kind is not EndKind.NEEDS_CALLER:
            raise InvalidRequestError(
                "The watch gave up, so outputs cannot be submitted through it: watch the run again, or use "
                "client.threads.runs.submit_tool_outputs()"
            )
        # This may raise, so it comes before any change.
        answers = self._ledger.resolve(event.outputs)
        round_ = self._ledger.current
        if round_ is None:  # no call is open, so `resolve` has accepted no output
            return []
        self._go_on_after_end(event.now)
        self._cancellation.forget_refusal()
        round_.reopen(event.now)
        # The tools were stopped when the watch finished, so the missing outputs can only come from the caller.
        self._ledger.leave_unanswered(self._ledger.missing())
        commands = [*self._record(answers, replace=True), *self._settle(event.now)]
        return commands if self.end else [*commands, self._poll(event.now)]

    def _go_on_after_end(self, now: float, at_least: float = 0.0) -> None:
        """Reopen the watch, with at least this many seconds, and without a stream."""
        self.end = None
        self._unknown_since = None
        self._empty_polls = 0
        self._streams = False
        self._patience.begin_again(now, at_least)

    def _landed_after_end(self, event: ev.Observed | ev.Refused) -> None:
        """Record the answer to a submit that was in flight when the watch finished, in case it is reopened."""
        round_ = self._ledger.end_submit()
        if round_ is None:
            return
        if isinstance(event, ev.Observed):
            if self.snapshot is not None and self.snapshot.is_final:
                self._used_before, self._used = self.usage, event.snapshot.usage or NOTHING_USED
            self._ledger.accept(round_, event.now)  # it counts for `max_rounds` if the watch is reopened
        else:
            round_.move(Stage.UNSURE, event.now)

    def _revoked(self, event: ev.Event) -> list[Command]:
        """Report once that the server shows another status for a run that had ended. The outcome stays."""
        if not isinstance(event, ev.Observed) or self.snapshot is None:
            return []
        asked_at = event.now if event.asked_at is None else event.asked_at
        # A poll that was sent before the end was seen may show an earlier status; that proves nothing.
        if asked_at <= self._ended_at or event.snapshot.phase in OBSERVABLE[self.snapshot.phase]:
            return []
        self._ended_at = math.inf
        return [do.Report(notices.EndRevoked(status=event.snapshot.status, previous=self.snapshot.status))]

    # Polls

    def _observed(self, event: ev.Observed) -> list[Command]:
        now, snapshot = event.now, self._shown_by(event)
        commands: list[Command] = []
        if self._patience.heard():
            commands.append(do.Report(notices.ConnectivityChanged(connectivity=self._patience.connectivity)))
        self._seen = True
        asked_at = now if event.asked_at is None else event.asked_at
        self._patience.learn(snapshot, now, asked_at)
        self._patience.progress.among = event.among
        if event.is_announced:
            self._patience.progress.believe(snapshot)
        if event.asked is Asked.SUBMIT:
            commands += self._accepted(now)
        elif event.asked is Asked.CANCEL and self._cancellation.active:
            # Poll quickly again: the run is about to end.
            self._patience.restart()
            self._cancellation.taken(now)
        elif snapshot.phase is not Phase.NEEDS_CALLER and not snapshot.phase.is_terminal:
            self._went_on(now)  # if the answer to a submit was lost, this shows that the submit was accepted
        # Read this before `_status` replaces the snapshot.
        was_final = self.snapshot is not None and self.snapshot.is_final
        is_new = event.asked is Asked.SUBMIT and was_final
        if is_new:
            self._used_before, self._used = self.usage, NOTHING_USED
        commands += self._status(snapshot, now)
        if snapshot.phase.is_terminal:
            if snapshot.phase in ENDS_BY_ITSELF:
                self._patience.left_stage(now)
            return [*commands, self._finish(now, ENDS[snapshot.phase])]
        if is_new:  # the submit began another run, which replicas may not have yet
            self._new_at = now
        # While a submit is in flight, only `_tick` sends a cancel, once that has waited long enough. A cancel that
        # waited over a final snapshot has something to stop now.
        cancellation = self._cancellation
        wants_cancel = cancellation is not NOT_ASKED and self._ledger.in_flight is None
        if (wants_cancel and cancellation.is_due(snapshot, now)) or (is_new and cancellation.requested):
            return [*commands, *self._cancel(), self._poll(now)]
        return commands + self._go_on(snapshot, now, asked_at)

    def _shown_by(self, event: ev.Observed) -> AnySnapshot:
        """Return what an answer shows. What was final never changes: an answer with the run at work is an old one."""
        kept, shown = self.snapshot, event.snapshot
        is_old = kept is not None and kept.is_final and event.asked is not Asked.SUBMIT and shown.phase in AT_WORK
        return kept if is_old and kept is not None else shown

    def _status(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        """Keep the snapshot, and report its status if it has changed."""
        previous = self.snapshot.status if self.snapshot else None
        self.snapshot = snapshot
        if snapshot.usage is not None:
            self._used = snapshot.usage
        progress = self._progressed(snapshot.counts)
        if snapshot.status == previous:
            return progress
        self._unknown_since = now if snapshot.phase is Phase.UNKNOWN else None
        change = notices.StatusChanged(
            status=snapshot.status, phase=snapshot.phase, previous=previous, run=snapshot.resource
        )
        return [do.Report(change), *progress]

    def _progressed(self, counts: Counts | None) -> list[Command]:
        """Keep the counts of a batch, and report them if more requests have ended. An older poll shows fewer."""
        before = self.counts
        if counts is None or counts == before or (before is not None and counts.is_before(before)):
            return []
        self.counts = counts
        return [do.Report(notices.ProgressChanged(done=counts.done, failed=counts.failed, total=counts.total))]

    def _go_on(self, snapshot: AnySnapshot, now: float, asked_at: float) -> list[Command]:
        """Decide what to do about a run that has not ended."""
        if self._patience.final_until is not None:  # this was the last poll
            return [self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT)]
        if self._cancellation.is_hopeless(snapshot.phase):
            return [self._leave_uncancelled(now)]
        if snapshot.phase is Phase.NEEDS_CALLER:
            # A snapshot that never changes shows nothing more, even after another process has answered its calls.
            is_for_another = self._policy.observe_only and not snapshot.is_final
            if not self._cancellation.requested and not is_for_another:
                return self._needs_caller(snapshot, now, asked_at)
        else:
            self._empty_polls = 0
        # Over a final snapshot, a cancel has nothing to stop, although the server took it.
        if self._cancellation.confirm_by < math.inf and self._nothing_goes_on:
            return [self._finish(now, EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED)]
        if now >= self._cancellation.confirm_by:
            return [self._finish(now, EndKind.GAVE_UP, Reason.CANCEL_UNCONFIRMED)]
        if self._unknown_since is not None and now - self._unknown_since >= self._policy.unknown_s:
            return [self._finish(now, EndKind.GAVE_UP, Reason.UNKNOWN_STATUS)]
        return [self._poll(now, hint=snapshot.hint)]

    def _went_on(self, now: float) -> None:
        """Record that the run was seen without calls: what was submitted has had its effect."""
        if self._ledger.went_on(now):
            self._unsettled = None

    def _poll(self, now: float, pause: float | None = None, hint: float | None = None) -> do.PollAt:
        """Return when to poll next. `pause` replaces that of the stream or the cadence, after a failed poll."""
        # A cancel is confirmed by polls only, so a stream does not put them off.
        relies_on_stream = pause is None and self._streams and not self._cancellation.requested
        if relies_on_stream:
            pause = SILENCE_S
        elif pause is None and self._is_dispatching:
            pause = self._patience.slow_pause(now, hint)
        # A bound that only a poll can notice needs a poll when it is reached: with `max_unknown_status` at 10 s, a hint
        # of 60 s becomes a pause of 10 s.
        before = math.inf if self._unknown_since is None else self._unknown_since + self._policy.unknown_s
        before = min(before, self._cancellation.confirm_by)
        window = self._patience.next_poll(now, pause, hint=hint, before=before)
        return do.PollAt(*window, if_silent=SILENCE_S if relies_on_stream else 0.0)

    def _poll_now(self, now: float) -> do.PollAt:
        return do.PollAt(*self._patience.next_poll(now, 0.0))

    def _stream_ended(self, event: ev.StreamEnded) -> list[Command]:
        """Switch to polls. Not reported if the stream ended without an error and the run waits for the caller."""
        if not self._streams:
            return []
        self._streams = False
        waits = self.snapshot is not None and self.snapshot.phase is Phase.NEEDS_CALLER
        if waits and event.cause is None:
            return [self._poll(event.now)]
        return [do.Report(notices.StreamBroken(cause=event.cause)), self._poll_now(event.now)]

    # Rounds of calls

    def _needs_caller(self, snapshot: AnySnapshot, now: float, asked_at: float) -> list[Command]:
        if not snapshot.calls:  # the calls may be missing from an answer, but not from several in a row
            self._empty_polls += 1
            if self._empty_polls >= POLLS_WITHOUT_CALLS:
                return [self._finish(now, EndKind.NEEDS_CALLER, Reason.NO_CALLS)]
            return [self._poll(now, hint=snapshot.hint)]
        self._empty_polls = 0
        self._need_ledger()
        calls = tuple(call for call in snapshot.calls if call.kind is not CallKind.SERVER)
        left = self._left_to_server(snapshot.calls)
        return left + (self._round(calls, snapshot, now, asked_at) if calls else self._went_past(snapshot, now))

    def _need_ledger(self) -> None:
        """Create a ledger of its own, unless the watch has one."""
        if self._ledger is NO_CALLS:
            self._ledger = Ledger()

    def _left_to_server(self, calls: tuple[Call, ...]) -> list[Command]:
        left = self._ledger.leave_to_server(call for call in calls if call.kind is CallKind.SERVER)
        return [do.Report(notices.CallsLeftToServer(calls=left))] if left else []

    def _went_past(self, snapshot: AnySnapshot, now: float) -> list[Command]:
        """Handle a run that asks for nothing but calls that its server answers: for the watch, it goes on."""
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
                    # A cancel reopened the watch and failed. The lost submit may still have worked: do not repeat it.
                    return [self._finish(now, EndKind.GAVE_UP, Reason.SUBMIT_LOST)]
                # Bounds a model that repeats the same calls for ever. `>`, not `>=` as in `_open`: with `max_rounds` 1,
                # the one round is counted, but its outputs may be sent once more if they had no effect.
                if self._ledger.rounds_done > self._max_rounds:
                    return [self._finish(now, EndKind.NEEDS_CALLER, Reason.MAX_ROUNDS)]
                self._ledger.send_again(round_, now)
                return [*self._send(now), self._poll(now, hint=snapshot.hint)]
            case Verdict.IGNORED:
                reason = Reason.OUTPUTS_IGNORED if round_.refused is None else Reason.SUBMIT_REFUSED
                return [self._finish(now, EndKind.NEEDS_CALLER, reason, round_.refused)]
            case _:
                assert_never(verdict)

    def _open(self, round_: Round, snapshot: AnySnapshot, now: float) -> list[Command]:
        """Hand out the calls of a round that were not handed out before, and submit if all are answered already."""
        commands: list[Command] = []
        if self._ledger.current is not round_:
            # A snapshot that never changes does not expire either, so its calls are not cut short.
            answer_by = math.inf if snapshot.is_final else self._patience.answer_by(now)
            self._ledger.begin_round(round_, now, answer_by)
            self._patience.left_stage(now)
            # A refusal explains only why the calls that were stopped for the cancel have no output, not these.
            self._cancellation.forget_refusal()
            self._unsettled = None
            commands.append(do.Report(notices.ActionRequired(calls=round_.calls)))
            # With `max_rounds` 50, this is the 51st round; it is left to the caller.
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

    def _record(self, outputs: Answers, *, replace: bool = False, failed: bool = False) -> list[Command]:
        return [
            do.Report(notices.CallAnswered(call_id=call.id, tool=call.name, output=output, failed=failed))
            for call, output in self._ledger.record(outputs, replace=replace)
        ]

    def _settle(self, now: float) -> list[Command]:
        """Submit if every call is answered; finish if no handler or tool will supply the missing outputs."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.OPEN or self._cancellation.requested:
            return []
        if not self._ledger.missing():
            round_.make_ready(now)
            return self._send(now)
        # Calls that no handler answers do not finish the watch while others are being worked on: the caller wants their
        # outputs.
        if not self._ledger.awaited():
            if self._cancellation.refused is not None:
                return [self._finish(now, EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, self._cancellation.refused)]
            cause = self._ledger.cause
            reason = Reason.UNANSWERED if cause is None else Reason.HANDLER_FAILED
            return [self._finish(now, EndKind.NEEDS_CALLER, reason, cause)]
        return []

    def _send(self, now: float) -> list[Command]:
        """Submit the outputs of the current round if they are due."""
        round_, snapshot = self._ledger.current, self.snapshot
        if round_ is None or snapshot is None or now < self._send_at:
            return []
        self._ledger.begin_submit(round_, now)
        return [do.Submit(self._ledger.answers(round_), snapshot, self._policy.keep_tool_choice)]

    @property
    def _send_at(self) -> float:
        """Time at which to send the outputs of the current round; infinity if they must not be sent now."""
        round_ = self._ledger.current
        if round_ is None or round_.stage is not Stage.READY or self._ledger.in_flight is not None:
            return math.inf
        return math.inf if self._cancellation.requested else round_.send_at

    def _accepted(self, now: float) -> list[Command]:
        self._patience.restart()
        round_ = self._ledger.end_submit()
        if round_ is None:
            return []
        # The round that was sent, which may not be the current one: polls may have shown the next round by now.
        self._ledger.accept(round_, now)
        self._unsettled = None
        self._patience.progress.go_on(now)
        return [do.Report(notices.OutputsSubmitted(outputs=self._ledger.outputs(round_))), *self._send(now)]

    # Refusals

    def _refused(self, event: ev.Refused) -> list[Command]:
        if event.refusal.kind is RefusalKind.TAKEN_OVER:
            return self._taken_over(event)
        match event.asked:
            case Asked.POLL:
                self._patience.excuse(event.held_back, event.now)  # a delay by the shell is not an outage
                return self._poll_refused(event.refusal, event.now)
            case Asked.SUBMIT:
                return self._submit_refused(event.refusal, event.now)
            case Asked.CANCEL:
                return self._cancel_answered(event.refusal, event.now)
            case _:
                assert_never(event.asked)

    def _taken_over(self, event: ev.Refused) -> list[Command]:
        """Finish, since another process watches the run. A submit that was refused so was not sent."""
        if event.asked is Asked.SUBMIT and (round_ := self._ledger.end_submit()) is not None:
            round_.move(Stage.READY, event.now)
        return [self._finish(event.now, EndKind.GAVE_UP, Reason.TAKEN_OVER, event.refusal.cause)]

    def _poll_refused(self, refusal: Refusal, now: float) -> list[Command]:
        if self.snapshot is not None and self.snapshot.is_final:
            # The snapshot never changes, so a failed poll is as good as a successful one.
            return self._go_on(self.snapshot, now, now)
        if refusal.kind in FATAL_POLLS:
            return [self._finish(now, EndKind.GAVE_UP, FATAL_POLLS[refusal.kind], refusal.cause)]
        if refusal.kind is RefusalKind.NOT_FOUND:
            if now - self._new_at >= NOT_FOUND_GRACE_S or self._patience.final_until is not None:
                reason = Reason.GONE if self._seen else Reason.NOT_FOUND
                return [self._finish(now, EndKind.GAVE_UP, reason, refusal.cause)]
            self._patience.not_found(refusal.cause)  # a 404 is an answer, so it does not count as an outage
            return [self._poll(now)]
        pause, reports = self._trouble(refusal, now)
        # The last poll has 5 s. If it is throttled with a pause of 2 s, there is time to repeat it; any other failure
        # is final.
        may_pass = refusal.kind is RefusalKind.THROTTLED and now + pause < self._patience.over_at
        if self.polls_once_more and self.end is None and not may_pass:
            reports.append(self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT, refusal.cause))
        return reports if self.end else [*reports, self._poll(now, pause)]

    def _trouble(self, refusal: Refusal, now: float) -> tuple[float, list[Command]]:
        """Record a failed request; return the pause and the commands, with a `Finish` if the outage is too long."""
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
        # NOT_ACCEPTING is not a failure: the run does not need the outputs any more.
        if kind is not RefusalKind.NOT_ACCEPTING:
            self._unsettled = refusal.cause
        # The order matters: the kinds of TOO_EARLY are in FATAL_SUBMITS as well, for when they persist.
        if kind in TOO_EARLY and round_.refused_too_early(now):
            round_.postpone(Stage.READY, now, backoff(min(round_.failures, EARLY_STEPS), refusal))
        elif kind.passes:
            _, commands = self._trouble(refusal, now)
            # A submit that surely had no effect (NOT_SENT, THROTTLED) is repeated, whatever the policy for lost ones.
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
            round_.move(Stage.SENT, now)  # the run went on or ended, or another process answered the calls
        else:
            # Wrong outputs, or one of the cases above. Polls over the lag show which: do not finish yet.
            round_.refuse(now, refusal.cause)
        if self.end is not None:  # the outage was too long
            return commands
        if self._cancellation.waits:
            return [*commands, *self._cancel()]
        self._patience.restart()
        return [*commands, *self._send(now), self._poll_now(now)]

    @property
    def _gives_up_lost(self) -> bool:
        """Whether the watch gives up when the answer to a submit is lost.

        It does if that is the policy. Under "resend" it does if a cancel is wanted, since nothing is submitted then.
        """
        policy = self._policy.on_lost_submit
        return policy == "give_up" or (policy == "resend" and self._cancellation.requested)

    # Cancelling

    def _cancel_asked(self, event: ev.CancelAsked) -> list[Command]:
        now = event.now
        if self._cancellation is NOT_ASKED:
            self._cancellation = Cancellation(bound=self._policy.cancel_bound)
        cancellation = self._cancellation
        if cancellation.leave_by(event.by):  # leaving has its own time limit, even if the timeout is nearer
            self._patience.begin_again(now, at_least=event.by - now)
        if cancellation.requested:
            return []
        if self._ledger.in_flight is not None:
            # The outcome of a submit in flight is wanted, so the cancel waits for it: 2 s, then it is sent in any case.
            # Over a final snapshot it waits without limit, since only the run that the submit begins can be cancelled.
            is_final = self.snapshot is not None and self.snapshot.is_final
            cancellation.ask(now, at=math.inf if is_final else now + CANCEL_HOLD_S)
            return []
        cancellation.ask(now)
        return self._cancel()

    def _cancel_after_end(self, event: ev.CancelAsked, end: End) -> list[Command]:
        """Reopen a watch that finished before its run, unless the caller is leaving and nothing is left to cancel."""
        round_ = self._ledger.current
        # A submit that was accepted after the watch finished has begun a run that the snapshot does not show.
        has_begun_more = round_ is not None and round_.stage is Stage.SENT and round_.refused is None
        nothing_to_cancel = end.reason in _NOT_OURS or (self._nothing_goes_on and not has_begun_more)
        if event.by < math.inf and nothing_to_cancel:
            return []
        # The cancel has 60 s, or the timeout if that is longer: a timeout of 5 s would be too short to confirm it.
        self._go_on_after_end(event.now, at_least=self._policy.cancel_bound)
        self._cancellation = Cancellation(end, self._policy.cancel_bound)
        commands = self._cancel_asked(event)
        return commands if self.end else [*commands, self._poll_now(event.now)]

    def _leave_uncancelled(self, now: float) -> do.Finish:
        """Finish the watch of a caller that leaves, as it had finished before, or because no cancel was confirmed."""
        # Where a cancel takes minutes, the status that says that it is under way is all that leaving can wait for.
        if self._policy.cancel_bound > CANCEL_BOUND_S and self.snapshot and self.snapshot.phase is Phase.CANCELLING:
            return self._finish(now, EndKind.GAVE_UP, Reason.NOT_CANCELLED)
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
        # No call is run twice, so the calls stopped here stay unanswered, even if the server refuses the cancel. Tools
        # are stopped first, so that none works on a run that is being cancelled.
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
                # `_cancellation.at` has the time of the next try. A 404 for a new run is not an outage.
                return self._trouble(refusal, now)[1] if refusal.kind.passes else []
            case CancelAnswer.REFUSED:
                commands: list[Command] = [do.Report(notices.CancelRefused(cause=refusal.cause))]
                if not self._ledger.missing():
                    commands += self._settle(now)  # the last output came while nothing could be submitted
                return [*commands, self._poll_now(now)]
            case _:
                assert_never(answer)

    # Time

    def _tick(self, now: float) -> list[Command]:
        # One thing a tick. What is left is due at once: `wake_at` is then in the past, and the shell ticks again.
        if now >= self._cancellation.by:
            return [self._leave_uncancelled(now)]
        if now >= self._patience.over_at:
            if self._patience.may_poll_once_more(now):
                return [do.PollAt(now, now)]
            # If the last polls failed, say why: the watch may never have reached the server.
            return [self._finish(now, EndKind.GAVE_UP, Reason.TIMEOUT, self._patience.trouble)]
        if now >= self._cancellation.at:
            return self._cancel()
        if now >= self._late_at:
            return self._answer_late_calls(now)
        return self._send(now)

    @property
    def _late_at(self) -> float:
        """Time at which calls that still run are too late for the run; infinity for never, or if none runs."""
        round_ = self._ledger.current
        if round_ is None or not self._late_calls():
            return math.inf
        return round_.answer_by

    def _late_calls(self) -> list[Call]:
        """Return the calls that still run here. Approvals never time out: an invented answer would be a decision."""
        return [call for call in self._ledger.awaited() if call.kind is CallKind.FUNCTION]

    def _answer_late_calls(self, now: float) -> list[Command]:
        """Answer the unfinished calls with an error, so that the outputs of the others are not lost with the run."""
        late = tuple((call, TIMED_OUT_OUTPUT) for call in self._late_calls())
        return [do.StopTools(approvals=False), *self._record(late, failed=True), *self._settle(now)]
