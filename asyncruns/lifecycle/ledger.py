"""The ledger of a run's calls: which were handed out, which are answered, and how far each round has come.

A call is identified by id, name and arguments, since some servers use the same ids in each round. A round is
identified by the set of its calls. A call that was handed out is never handed out again, and its output is kept and
sent unchanged, unless the caller replaces it once the watch has finished: a poll may show the state before a submit,
and the answer to a submit may get lost (https://platform.openai.com/docs/assistants/deep-dive).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Final

from msgspec import Struct, field

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle.values import Answers, Call, CallKind, Outputs, approval_of

SUBMIT_GRACE_S: Final = 15.0  # how long a submit may be refused as too early; replicas were seen to lag by up to 8 s
SUBMIT_LAG_S: Final = 5.0  # how long polls may still show the state before a submit, or before more calls were added

CallKey = tuple[str, str, str]


def key_of(call: Call) -> CallKey:
    """Return what identifies a call."""
    return (call.id, call.name, call.arguments)


class Stage(enum.Enum):
    """How far a round has come."""

    OPEN = "open"  # some calls are not answered
    READY = "ready"  # all are answered; the outputs are to be sent, or sent again since the submit had no effect
    IN_FLIGHT = "in flight"
    UNSURE = "unsure"  # the answer to the submit was lost
    SENT = "sent"  # the server accepted the outputs, or does not want them (see `Round.refused`)


class Verdict(enum.Enum):
    """What to do about the calls that a poll shows."""

    ANSWER = "answer"
    WAIT = "wait"  # their outputs are about to be sent, or this poll is older than the submit
    SEND_AGAIN = "send again"  # the recorded outputs, unchanged
    IGNORED = "ignored"  # their outputs were sent again or refused, and the run still asks for them


class Round:
    """The calls that a run asked for at one time, each once.

    Times are those of the shell's clock.

    Attributes:
        calls: The calls, in the server's order.
        stage: How far it has come.
        at: When the stage was entered, or, after a submit, when the run was last seen going on.
        resent: Whether the outputs were sent again, or refused, since the run was last seen going on.
        send_at: When to send the outputs, if READY.
        answer_by: When the calls must be answered so that the run does not expire.
        seen_at: When it last began as the current round; not set when its outputs are sent again.
        failures: Number of its submits that failed and could be repeated.
        early_since: When the server first refused its present outputs as too early; None if it did not.
        refused: Why the server refused the outputs; None if it did not.
        shown_at: When the last poll was sent that showed it although its outputs had been sent.
    """

    __slots__ = (
        "answer_by",
        "at",
        "calls",
        "early_since",
        "failures",
        "refused",
        "resent",
        "seen_at",
        "send_at",
        "shown_at",
        "stage",
    )

    def __init__(self, calls: Iterable[Call]) -> None:
        self.calls: tuple[Call, ...] = tuple({key_of(call): call for call in calls}.values())
        self.stage: Stage = Stage.OPEN
        self.at: float = 0.0
        self.resent: bool = False
        self.send_at: float = math.inf
        self.answer_by: float = math.inf
        self.seen_at: float = -math.inf
        self.failures: int = 0
        self.early_since: float | None = None
        self.refused: Exception | None = None
        self.shown_at: float = -math.inf

    def move(self, stage: Stage, now: float) -> None:
        """Enter a stage."""
        self.stage = stage
        self.at = now

    def begin(self, now: float, answer_by: float) -> None:
        """Record that the run asks for it, and when its calls must be answered."""
        self.seen_at = max(self.seen_at, now)
        self.answer_by = answer_by

    def reopen(self, now: float) -> None:
        """Record that the caller provides new outputs. What happened to earlier ones no longer matters."""
        self.move(Stage.OPEN, now)
        self.resent, self.refused = False, None

    def make_ready(self, now: float) -> None:
        """Record that its outputs are to be sent now."""
        self.move(Stage.READY, now)
        self.send_at, self.early_since = now, None

    def postpone(self, stage: Stage, now: float, pause: float) -> None:
        """Record that a submit failed and may be repeated after a pause in seconds."""
        self.move(stage, now)
        self.send_at = now + pause
        self.failures += 1

    def refuse(self, now: float, cause: Exception) -> None:
        """Record that the server refused its outputs. The run may have gone on, or another process answered it."""
        self.move(Stage.SENT, now)
        # As if sent again: what was refused is not repeated, so `judge` decides IGNORED if the run still asks for it.
        self.resent, self.refused = True, cause

    def went_on(self, now: float) -> None:
        """Record that the run was seen going on after its outputs were sent."""
        self.move(Stage.SENT, now)
        self.resent, self.refused = False, None

    def refused_too_early(self, now: float) -> bool:
        """Record that the server refused its outputs as too early; return whether to send them again."""
        if self.early_since is None:
            self.early_since = now
        return now - self.early_since < SUBMIT_GRACE_S


class OpenRound(Struct, frozen=True):
    """What another watch needs to know to go on with a round.

    Attributes:
        answers: The calls that have an output.
        begun: Calls without an output that a handler or a tool has begun to answer.
        left: Those of them whose handler or tool has failed, or has left them to the caller.
        is_unsure: Whether the outputs may have been accepted, which is not known.
        accepted_for: Seconds since the outputs were accepted; None if they were not.
    """

    answers: Answers = ()
    begun: tuple[Call, ...] = ()
    left: tuple[Call, ...] = ()
    is_unsure: bool = False
    accepted_for: float | None = None


class Ledger(Struct, eq=False, gc=False):
    """All calls of one run.

    Attributes:
        current: The round that the run asked for last.
        in_flight: The round whose outputs are being submitted; one at a time.
        rounds_done: Number of submits that had an effect.
    """

    # Dicts as sets: an empty dict takes a third of the memory of an empty set (64 bytes, not 216), and costs the
    # garbage collector nothing. A fleet may hold ten thousand ledgers.
    _begun: dict[CallKey, None] = field(default_factory=dict)  # handed out
    _outputs: dict[CallKey, str] = field(default_factory=dict)
    _left: dict[CallKey, None] = field(default_factory=dict)  # left to the server, and reported
    _unanswered: dict[CallKey, Exception | None] = field(default_factory=dict)  # no handler or tool answers these
    _rounds: dict[frozenset[CallKey], Round] = field(default_factory=dict)
    current: Round | None = None
    in_flight: Round | None = None
    rounds_done: int = 0

    def round_of(self, calls: tuple[Call, ...]) -> Round:
        """Return the round of these calls: a new one if they were never seen together."""
        key = frozenset(map(key_of, calls))
        if key not in self._rounds:
            self._rounds[key] = Round(calls)
        return self._rounds[key]

    def judge(self, round_: Round, asked_at: float) -> Verdict:
        """Return what to do about a round that a poll shows.

        Args:
            round_: The round.
            asked_at: When the poll was sent; its answer may have taken long.
        """
        current = self.current or round_
        if round_.stage is Stage.OPEN:
            # Fewer calls than those being answered may be the state before the others were added.
            is_part = current.stage is Stage.OPEN and set(round_.calls) < set(current.calls)
            return Verdict.WAIT if is_part and asked_at - current.seen_at < SUBMIT_LAG_S else Verdict.ANSWER
        if current.stage in (Stage.OPEN, Stage.READY) or self.in_flight is not None:
            return Verdict.WAIT  # this poll is older than the submit that follows
        # Send again only what two polls show after the submit, the second at least 5 s after it. One may be an old
        # answer of a proxy, and if the server reuses ids, the outputs would go to the next round. Accepted at 100:
        # if polls sent at 103 and 106 show the calls, the second decides; if only that at 106 does, the next decides.
        was_shown, round_.shown_at = round_.shown_at > current.at, max(round_.shown_at, asked_at)
        if asked_at - current.at < SUBMIT_LAG_S or not was_shown:
            return Verdict.WAIT
        return Verdict.IGNORED if round_.stage is Stage.SENT and round_.resent else Verdict.SEND_AGAIN

    def begin_round(self, round_: Round, now: float, answer_by: float) -> None:
        """Record that the run asks for another round, and when its calls must be answered."""
        self.current = round_
        round_.begin(now, answer_by)

    def send_again(self, round_: Round, now: float) -> None:
        """Record that the outputs of a round are to be sent again, since the run still asks for them."""
        self.current = round_
        round_.resent = True
        round_.make_ready(now)

    def begin_submit(self, round_: Round, now: float) -> None:
        """Record that the outputs of a round are being sent."""
        self.in_flight = round_
        round_.move(Stage.IN_FLIGHT, now)

    def end_submit(self) -> Round | None:
        """Record that the submit in flight was answered or has failed; return its round, None if there was none."""
        round_, self.in_flight = self.in_flight, None
        return round_

    def accept(self, round_: Round, now: float) -> None:
        """Record that the server accepted the outputs of a round."""
        round_.move(Stage.SENT, now)
        self.rounds_done += 1

    def went_on(self, now: float) -> bool:
        """Record that the run was seen without calls; return whether outputs were sent for the current round.

        If the answer to their submit was lost, this shows that the submit was accepted. The lag counts from here: if a
        poll shows the same calls later, it is old, or the run asks for them once more.
        """
        round_ = self.current
        if round_ is None or round_.stage not in (Stage.UNSURE, Stage.SENT):
            return False
        self.rounds_done += round_.stage is Stage.UNSURE  # an accepted submit was counted by `accept`
        round_.went_on(now)
        return True

    def hand_out(self, calls: Iterable[Call]) -> tuple[Call, ...]:
        """Return the calls that were not handed out before, and record them as handed out."""
        fresh = tuple(call for call in calls if key_of(call) not in self._begun)
        self._begun.update(dict.fromkeys(map(key_of, fresh)))
        return fresh

    def leave_to_server(self, calls: Iterable[Call]) -> tuple[Call, ...]:
        """Record that the server answers these calls; return those that were not recorded before."""
        new = tuple(call for call in calls if key_of(call) not in self._left)
        self._left.update(dict.fromkeys(map(key_of, new)))
        return new

    def record(self, outputs: Iterable[tuple[Call, str]], *, replace: bool) -> list[tuple[Call, str]]:
        """Record outputs; return those that were recorded. A later one is dropped unless `replace`."""
        recorded = []
        for call, output in outputs:
            key = key_of(call)
            if replace or key not in self._outputs:
                self._outputs[key] = output
                recorded.append((call, output))
        return recorded

    def resolve(self, outputs: Outputs) -> Answers:
        """Return outputs from the caller together with the calls of the current round that they are for.

        Raises:
            InvalidRequestError: The current round has no such call, or the output for an approval is not an approval.
        """
        calls = self.current.calls if self.current else ()
        known = {call.id for call in calls}
        for call_id, _ in outputs:
            if call_id not in known:
                raise InvalidRequestError(f"The run waits for no call {call_id!r}; open calls: {self._shown_open()}")
        answers = tuple((call, output) for call_id, output in outputs for call in calls if call.id == call_id)
        check_answers(answers)
        return answers

    def _shown_open(self) -> str:
        return ", ".join(repr(call.id) for call in self.missing()) or "none"

    def leave_unanswered(self, calls: Iterable[Call], cause: Exception | None = None) -> None:
        """Record that no handler or tool answers these calls; `cause` is the error, if that is why."""
        for call in calls:
            self._unanswered.setdefault(key_of(call), cause)

    @property
    def cause(self) -> Exception | None:
        """The first error that left a call of the current round without output; None if there is none."""
        causes = (self._unanswered.get(key_of(call)) for call in self.missing())
        return next((cause for cause in causes if cause is not None), None)

    def missing(self) -> tuple[Call, ...]:
        """Return the calls of the current round that have no output."""
        calls = self.current.calls if self.current else ()
        return tuple(call for call in calls if key_of(call) not in self._outputs)

    def awaited(self) -> tuple[Call, ...]:
        """Return the calls of the current round that a handler or tool is still answering."""
        return tuple(call for call in self.missing() if key_of(call) not in self._unanswered)

    def answers(self, round_: Round | None) -> Answers:
        """Return the answered calls of a round with their outputs, in order, one for each id."""
        # Servers refuse two outputs for one id.
        calls = round_.calls if round_ else ()
        answered = ((call, self._outputs[key]) for call in calls if (key := key_of(call)) in self._outputs)
        return tuple({call.id: (call, output) for call, output in answered}.values())

    def open_round(self, now: float) -> OpenRound:
        """Return what is known of the round that is being submitted, or that the run asked for last."""
        round_ = self.in_flight or self.current
        if round_ is None:
            return OpenRound()
        open_ = [call for call in round_.calls if key_of(call) in self._begun and key_of(call) not in self._outputs]
        left = tuple(call for call in open_ if self._unanswered.get(key_of(call)) is not None)
        was_accepted = round_.stage is Stage.SENT and round_.refused is None
        return OpenRound(
            answers=self.answers(round_),
            begun=tuple(call for call in open_ if call in left or key_of(call) not in self._unanswered),
            left=left,
            is_unsure=round_.stage in (Stage.IN_FLIGHT, Stage.UNSURE),
            accepted_for=now - round_.at if was_accepted else None,
        )

    def outputs(self, round_: Round | None) -> Outputs:
        """Return the outputs of a round as pairs of call id and text."""
        return tuple((call.id, output) for call, output in self.answers(round_))


def check_answers(answers: Answers) -> None:
    """Check that each call that waits for an approval has one as its output.

    Raises:
        InvalidRequestError: The output for an approval is not an approval.
    """
    for call, output in answers:
        if call.kind is CallKind.APPROVAL and approval_of(output) is None:
            raise InvalidRequestError(
                f"The call {call.id!r} waits for an approval; "
                'answer it with True, False or {"approve": ..., "headers": ...}'
            )
