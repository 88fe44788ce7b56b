"""Which calls were handed out, what was answered, and how far its round has come.

A call is its id, name and arguments, since servers use the same ids in each round; a round is the set of its calls.
What was handed out once is never handed out again, and what was answered is kept and sent as it was: the ledger only
grows. See facts 12 and 13 in https://platform.openai.com/docs/assistants/deep-dive#runs-and-run-steps for the server's
side of it.
"""

from __future__ import annotations

import enum
from typing import Final

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle.values import Call, Outputs

LAG_S: Final = 5.0  # so long a read may be older than an accepted submit

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
    """The calls that a run asked for at one time."""

    __slots__ = ("at", "calls", "resends", "stage", "unanswered")

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self.calls: tuple[Call, ...] = calls
        self.stage: Stage = Stage.OPEN
        self.at: float = 0.0  # when the stage became SENT or UNSURE
        self.resends: int = 0
        self.unanswered: set[str] = set()  # ids that nobody here answers

    def move(self, stage: Stage, now: float) -> None:
        """Enter a stage."""
        self.stage = stage
        self.at = now


class Ledger:
    """All calls of one run."""

    __slots__ = ("_begun", "_outputs", "_rounds", "current")

    def __init__(self) -> None:
        self._begun: set[CallKey] = set()
        self._outputs: dict[CallKey, str] = {}
        self._rounds: dict[frozenset[CallKey], Round] = {}
        self.current: Round | None = None

    def round_of(self, calls: tuple[Call, ...]) -> Round:
        """Give the round that these calls are, a new one if they were never seen together."""
        key = frozenset(map(key_of, calls))
        if key not in self._rounds:
            self._rounds[key] = Round(calls)
        return self._rounds[key]

    def judge(self, round_: Round, now: float) -> Verdict:
        """Decide about a round that the run asks for at this moment."""
        current = self.current
        if round_.stage is Stage.OPEN:
            return Verdict.ANSWER
        if current is not None and current.stage is Stage.OPEN:
            return Verdict.WAIT  # the run has asked for newer calls since, so this read is old
        if round_.stage in (Stage.READY, Stage.IN_FLIGHT) or now - (current or round_).at < LAG_S:
            return Verdict.WAIT
        return Verdict.IGNORED if round_.stage is Stage.SENT and round_.resends else Verdict.SEND_AGAIN

    def hand_out(self, round_: Round) -> tuple[Call, ...]:
        """Give the calls that were never handed out, and count them as handed out from now on."""
        fresh = tuple(call for call in round_.calls if key_of(call) not in self._begun)
        self._begun.update(map(key_of, fresh))
        return fresh

    def record(self, outputs: Outputs, *, replace: bool = False) -> list[tuple[str, str]]:
        """Keep outputs; give those that are news. The first output of a call is kept, unless another shall replace it.

        An id means the current round's call; only where that has none of the id, an earlier round's.

        Raises:
            InvalidRequestError: An id that no round ever had; nothing is kept then.
        """
        known = {call.id for round_ in self._rounds.values() for call in round_.calls}
        for call_id, _ in outputs:
            if call_id not in known:
                open_ids = [call.id for call in self.missing()]
                raise InvalidRequestError(f"There is no call {call_id!r} to answer; open calls are {open_ids}")
        news = []
        for call_id, output in outputs:
            keys = self._keys_of(call_id)
            if not replace and not keys.isdisjoint(self._outputs):
                continue
            self._outputs.update(dict.fromkeys(keys, output))
            news.append((call_id, output))
        return news

    def _keys_of(self, call_id: str) -> set[CallKey]:
        rounds = [self.current] if self.current else []
        for round_ in [*rounds, *reversed(self._rounds.values())]:
            keys = {key_of(call) for call in round_.calls if call.id == call_id}
            if keys:
                return keys
        return set()

    def missing(self) -> tuple[Call, ...]:
        """Give the calls of the current round that have no output."""
        calls = self.current.calls if self.current else ()
        return tuple(call for call in calls if key_of(call) not in self._outputs)

    def outputs(self, round_: Round | None) -> Outputs:
        """Give the outputs of a round, one for each id, in the order of its calls."""
        calls = round_.calls if round_ else ()
        return tuple({call.id: self._outputs[k] for call in calls if (k := key_of(call)) in self._outputs}.items())
