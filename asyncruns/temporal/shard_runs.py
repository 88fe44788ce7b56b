"""The runs of a shard, as its workflow keeps them: which are open, where each is, and how the others ended.

It awaits nothing, and keeps what it holds so small that Temporal takes it: 2,000 runs that have ended fit into the
result of the workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.lifecycle.records import WatchRecord
from asyncruns.temporal.messages import EndedRun, Shard, ShardRun
from asyncruns.temporal.reports import LARGEST_TOKEN, cut_message
from asyncruns.temporal.rounds import RoundProgress
from asyncruns.temporal.sizes import first_piece, json_size
from asyncruns.watch.handover import Token, with_outputs
from asyncruns.watch.outcome import AnyOutcome

MOST_ENDED: Final = 1_200_000
"""Bytes of the runs that have ended, from which on only how they ended is kept, in some 170 bytes each."""
CANCELLED_AT_ONCE: Final = 250


class ShardRuns:
    """The runs of a shard. An open run is with the fleet, or is about to be added to it, or its calls are answered.

    Args:
        shard: What the workflow began with.

    Attributes:
        open: The runs whose watches have not finished, by key.
        ended: The others.
        again: Keys of the runs that the fleet is to watch again.
        rounds: How far the calls have come that are being answered, by the key of their run.
        later: Keys of the runs whose calls are answered when there is room for them.
    """

    def __init__(self, shard: Shard) -> None:
        self.open: dict[str, ShardRun] = {run.key: run for run in shard.runs}
        self.ended: list[EndedRun] = list(shard.ended)
        self.again: dict[str, None] = dict.fromkeys(shard.again)
        self.rounds: dict[str, RoundProgress] = {}
        self.later: dict[str, None] = {}
        self._adding: tuple[str, ...] = ()
        self._ended_size = sum(map(json_size, self.ended))

    @property
    def has_watched(self) -> bool:
        """Whether there are runs that a fleet watches, or is to watch."""
        return len(self.open) > len(self.rounds) + len(self.later)

    @property
    def is_answering(self) -> bool:
        """Whether tools answer calls, or outputs are about to be submitted; people may take their time."""
        return any(each.running or len(each.outputs) >= each.calls for each in self.rounds.values())

    # Which runs a fleet is given

    def begin(self) -> list[ShardRun]:
        """Return the runs that a new fleet begins with; the others, if there are too many, are added to it."""
        runs = self._watched(self.open)
        number = first_piece(runs)
        self.again = {run.key: None for run in runs[number:]}
        return runs[:number]

    def take_again(self) -> list[ShardRun]:
        """Return the runs that are to be added now: as many as a payload holds."""
        runs = self._watched(self.again)
        number = first_piece(runs)
        self.again = {run.key: None for run in runs[number:]}
        self._adding = tuple(run.key for run in runs[:number])
        return runs[:number]

    def added(self, is_certain: bool) -> None:
        """Note that the runs that were taken have been added, or perhaps not: then they are added again."""
        if not is_certain:
            self.again |= dict.fromkeys(self._adding)
        self._adding = ()

    def _watched(self, keys: Iterable[str]) -> list[ShardRun]:
        return [self.open[key] for key in keys if key in self.open and key not in self.rounds and key not in self.later]

    def to_cancel(self) -> Iterator[list[ShardRun]]:
        """Yield all open runs in pieces, without the outputs of their calls."""
        runs = [replace(run, token=_bare(run.token)) for run in self.open.values()]
        while runs:
            number = min(first_piece(runs), CANCELLED_AT_ONCE)
            yield runs[:number]
            runs = runs[number:]

    # What has changed

    def pass_on(self, key: str, token: Token, *, answered: int = 0) -> None:
        """Pass a run on to the fleet again, in a turn of its own, with what has come since."""
        run = self.open[key]
        self.open[key] = replace(run, token=token, turn=run.turn + 1, rounds=run.rounds + answered)
        self.again[key] = None

    def settle(self, key: str, turn: int) -> None:
        """Discard the outputs of a run that has gone on with them; of many runs, they would fill each new history."""
        run = self.open.get(key)
        if run is not None and run.turn == turn and key not in self.rounds:
            self.open[key] = replace(run, token=_bare(run.token))

    def finish(self, key: str, outcome: AnyOutcome[Any]) -> None:
        """Note how the watch of a run has finished."""
        token = self.open.pop(key).token
        is_kept = outcome.reason is not None and token.record is not None and json_size(token) <= LARGEST_TOKEN
        ended = EndedRun(
            ref=outcome.ref,
            outcome=type(outcome).__name__,
            status=outcome.status,
            at=outcome.at,
            reason="" if outcome.reason is None else outcome.reason.value,
            error=None if outcome.error is None else _cut(outcome.error.to_dict()),
            cause="" if outcome.cause is None else cut_message(str(outcome.cause)),
            token=token if is_kept else None,
        )
        if self._ended_size + (size := json_size(ended)) > MOST_ENDED:
            ended = replace(ended, error=None, cause="", token=None)
            size = json_size(ended)
        self._ended_size += size
        self.ended.append(ended)

    def next_shard(self, shard: Shard, host: str, polls: int) -> Shard:
        """Return what a new history begins with; calls that are being answered are asked for again there.

        Args:
            shard: What this history has begun with.
            host: The task queue of the worker that has the fleet.
            polls: Number of polls that earlier fleets have sent.
        """
        runs = dict(self.open)
        for key in (*self.later, *self.rounds):
            if (run := runs.get(key)) is not None:
                outputs = self.rounds[key].outputs if key in self.rounds else ()
                runs[key] = replace(run, token=with_outputs(run.token, outputs), turn=run.turn + 1)
        again = dict.fromkeys((*self._adding, *self.again, *self.later, *self.rounds))
        return replace(
            shard,
            runs=list(runs.values()),
            ended=self.ended,
            again=[key for key in again if key in runs],
            host=host,
            polls=polls,
        )


def _cut(error: dict[str, Any]) -> dict[str, Any]:
    return {"code": str(error.get("code"))[:80], "message": cut_message(str(error.get("message", "")))}


def _bare(token: Token) -> Token:
    """Return a token that only says which run it is, and how its client is chosen.

    Of the runs of a watch, the first and the last are enough: with all of them, it would grow by each round.
    """
    record = token.record
    if record is None:
        return token
    refs = tuple(dict.fromkeys((*record.refs[:1], *record.refs[-1:])))
    return replace(token, record=WatchRecord(key=record.key, ref=record.ref, refs=refs, label=record.label))
