"""Which calls were handed out, what was answered, and how far each round has come.

A call is its id, name and arguments, since servers use the same ids in each round; a round is the set of its calls.
What was handed out once is never handed out again, and what was answered is kept and sent as it was: a read may be
older than a submit, and an answer to a submit may get lost (https://platform.openai.com/docs/assistants/deep-dive).
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
SUBMIT_LAG_S: Final = 5.0  # so long a read may be older than an accepted submit

CallKey = tuple[str, str, str]


def key_of(call: Call) -> CallKey:
    """Give what makes two calls the same."""
    return (call.id, call.name, call.arguments)


class Stage(enum.Enum):
    """How far a round has come."""

    OPEN = "open"  # not all calls are answered
    READY = "ready"  # all answered; not sent, or refused before it had an effect
    IN_FLIGHT = "in flight"
    UNSURE = "unsure"  # sent, and no answer came
    SENT = "sent"  # accepted, by the server's word


class Verdict(enum.Enum):
    """What is to be done about calls that a run asks for."""

    ANSWER = "answer"
    WAIT = "wait"  # their outputs are on the way, or this read is older than the submit
    SEND_AGAIN = "send again"  # the recorded outputs, as they were
    IGNORED = "ignored"  # they were sent again, and are still asked for


class Round:
    """The calls that a run asked for at one time, each once.

    Attributes:
        at: When the stage became SENT or UNSURE, or when the run was last seen going on after that.
        resent: Whether the outputs were sent again since the run was last seen going on.
        send_at: When outputs that are READY are to be sent.
        answer_by: When calls must be answered for the run to live.
        seen_at: When it was first asked for.
        failures: How often a submit failed that may be repeated.
        early_since: When the server first refused it as too early since it was READY; None when it did not.
        refused: Why the outputs were refused when they were sent again.
        shown_at: When the last poll was asked that showed it although its outputs were sent.
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
        """Note that the run asks for it; its calls must be answered by then."""
        self.seen_at = max(self.seen_at, now)
        self.answer_by = answer_by

    def reopen(self, now: float) -> None:
        """Note that the caller provides outputs anew, whatever became of those before."""
        self.move(Stage.OPEN, now)
        self.resent, self.refused = False, None

    def make_ready(self, now: float) -> None:
        """Note that its outputs are to be sent, now."""
        self.move(Stage.READY, now)
        self.send_at, self.early_since = now, None

    def postpone(self, stage: Stage, now: float, pause: float) -> None:
        """Note that a submit failed that may be repeated, after a pause in seconds."""
        self.move(stage, now)
        self.send_at = now + pause
        self.failures += 1

    def refuse(self, now: float, cause: Exception) -> None:
        """Note that the server does not want its outputs; the run may have gone on, or another has answered it."""
        self.move(Stage.SENT, now)
        self.resent, self.refused = True, cause

    def went_on(self, now: float) -> None:
        """Note that the run was seen going on after its outputs were sent."""
        self.move(Stage.SENT, now)
        self.resent, self.refused = False, None

    def refused_too_early(self, now: float) -> bool:
        """Note that the server refuses its outputs as too early; return whether that is to be waited out."""
        if self.early_since is None:
            self.early_since = now
        return now - self.early_since < SUBMIT_GRACE_S


class Ledger(Struct, eq=False, gc=False):
    """All calls of one run.

    Attributes:
        current: The round that the run asked for last.
        in_flight: The round whose outputs are being submitted; one at a time.
        rounds_done: How many submits had their effect.
    """

    # Dicts where sets would do: empty ones are a third as large, and no matter for the garbage collector.
    _begun: dict[CallKey, None] = field(default_factory=dict)
    _outputs: dict[CallKey, str] = field(default_factory=dict)
    _left: dict[CallKey, None] = field(default_factory=dict)
    _unanswered: dict[CallKey, Exception | None] = field(default_factory=dict)
    _rounds: dict[frozenset[CallKey], Round] = field(default_factory=dict)
    current: Round | None = None
    in_flight: Round | None = None
    rounds_done: int = 0

    def round_of(self, calls: tuple[Call, ...]) -> Round:
        """Give the round that these calls are, a new one if they were never seen together."""
        key = frozenset(map(key_of, calls))
        if key not in self._rounds:
            self._rounds[key] = Round(calls)
        return self._rounds[key]

    def judge(self, round_: Round, asked_at: float) -> Verdict:
        """Decide about a round that a poll shows.

        Args:
            round_: The round.
            asked_at: When the poll was asked: its answer may have been long on its way.
        """
        current = self.current or round_
        if round_.stage is Stage.OPEN:
            # A part of the calls that are out may be a read from before the others came.
            is_part = current.stage is Stage.OPEN and set(round_.calls) < set(current.calls)
            return Verdict.WAIT if is_part and asked_at - current.seen_at < SUBMIT_LAG_S else Verdict.ANSWER
        if current.stage in (Stage.OPEN, Stage.READY) or self.in_flight is not None:
            return Verdict.WAIT  # this read is older than what is about to be sent
        # One poll may be a proxy's old answer, and where ids are reused the outputs would go to the next round.
        was_shown, round_.shown_at = round_.shown_at > current.at, max(round_.shown_at, asked_at)
        if asked_at - current.at < SUBMIT_LAG_S or not was_shown:
            return Verdict.WAIT
        return Verdict.IGNORED if round_.stage is Stage.SENT and round_.resent else Verdict.SEND_AGAIN

    def begin_round(self, round_: Round, now: float, answer_by: float) -> None:
        """Note that the run asks for another round; its calls must be answered by then."""
        self.current = round_
        round_.begin(now, answer_by)

    def send_again(self, round_: Round, now: float) -> None:
        """Note that the run asks for a round again whose outputs were sent: they are sent once more."""
        self.current = round_
        round_.resent = True
        round_.make_ready(now)

    def begin_submit(self, round_: Round, now: float) -> None:
        """Note that the outputs of a round are being sent."""
        self.in_flight = round_
        round_.move(Stage.IN_FLIGHT, now)

    def end_submit(self) -> Round | None:
        """Return the round whose submit was answered, or failed; no other is on its way then."""
        round_, self.in_flight = self.in_flight, None
        return round_

    def accept(self, round_: Round, now: float) -> None:
        """Note that the server took the outputs of a round."""
        round_.move(Stage.SENT, now)
        self.rounds_done += 1

    def went_on(self, now: float) -> bool:
        """Note that the run was seen without calls; return whether outputs had been sent for the current round.

        A submit whose answer was lost had been accepted then. A poll that shows the calls from now on is behind, or
        asks for the same again; so the lag counts from here.
        """
        round_ = self.current
        if round_ is None or round_.stage not in (Stage.UNSURE, Stage.SENT):
            return False
        self.rounds_done += round_.stage is Stage.UNSURE
        round_.went_on(now)
        return True

    def hand_out(self, calls: Iterable[Call]) -> tuple[Call, ...]:
        """Give the calls that were never handed out, and count them as handed out from now on."""
        fresh = tuple(call for call in calls if key_of(call) not in self._begun)
        self._begun.update(dict.fromkeys(map(key_of, fresh)))
        return fresh

    def leave_to_server(self, calls: Iterable[Call]) -> tuple[Call, ...]:
        """Note that the server answers these calls; give those that are news."""
        news = tuple(call for call in calls if key_of(call) not in self._left)
        self._left.update(dict.fromkeys(map(key_of, news)))
        return news

    def record(self, outputs: Iterable[tuple[Call, str]], *, replace: bool) -> list[tuple[str, str]]:
        """Keep outputs; give those that are news. A call's first output is kept, unless another shall replace it."""
        news = []
        for call, output in outputs:
            key = key_of(call)
            if replace or key not in self._outputs:
                self._outputs[key] = output
                news.append((call.id, output))
        return news

    def resolve(self, outputs: Outputs) -> Answers:
        """Give the calls that the ids of outputs from the caller mean, which are those of the current round.

        Raises:
            InvalidRequestError: The current round has no such call, or this is no answer to it.
        """
        calls = self.current.calls if self.current else ()
        known = {call.id for call in calls}
        for call_id, _ in outputs:
            if call_id not in known:
                raise InvalidRequestError(f"There is no call {call_id!r} to answer; open are {self._shown_open()}")
        answers = tuple((call, output) for call_id, output in outputs for call in calls if call.id == call_id)
        check_answers(answers)
        return answers

    def _shown_open(self) -> str:
        return ", ".join(repr(call.id) for call in self.missing()) or "none"

    def leave_unanswered(self, calls: Iterable[Call], cause: Exception | None = None) -> None:
        """Note that nobody here answers these calls; `cause` is why, if that is an error."""
        for call in calls:
            self._unanswered.setdefault(key_of(call), cause)

    @property
    def cause(self) -> Exception | None:
        """The first error for which a call of the current round has no output."""
        causes = (self._unanswered.get(key_of(call)) for call in self.missing())
        return next((cause for cause in causes if cause is not None), None)

    def missing(self) -> tuple[Call, ...]:
        """Give the calls of the current round that have no output."""
        calls = self.current.calls if self.current else ()
        return tuple(call for call in calls if key_of(call) not in self._outputs)

    def awaited(self) -> tuple[Call, ...]:
        """Give the calls of the current round whose outputs will still come, or be given up, here."""
        return tuple(call for call in self.missing() if key_of(call) not in self._unanswered)

    def answers(self, round_: Round | None) -> Answers:
        """Give the calls of a round that have outputs, with these, one for each id, in their order."""
        calls = round_.calls if round_ else ()
        answered = ((call, self._outputs[key]) for call in calls if (key := key_of(call)) in self._outputs)
        return tuple({call.id: (call, output) for call, output in answered}.values())

    def outputs(self, round_: Round | None) -> Outputs:
        """Give the outputs of a round by the ids of its calls."""
        return tuple((call.id, output) for call, output in self.answers(round_))


def check_answers(answers: Answers) -> None:
    """Check that these are answers to these calls.

    Raises:
        InvalidRequestError: An approval has an output that is none.
    """
    for call, output in answers:
        if call.kind is CallKind.APPROVAL and approval_of(output) is None:
            raise InvalidRequestError(
                f'The call {call.id!r} waits for an approval: True, False, or {{"approve": ..., "headers": ...}}'
            )
