"""What a shard keeps of its runs, and that Temporal takes it, whatever becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from asyncruns import Completed, Failed, GaveUp, NeedsCaller, Reason, RunRef
from asyncruns.lifecycle import Call, RunFault
from asyncruns.lifecycle.records import key_of_run
from asyncruns.temporal.messages import Shard, ShardRun, ShardState
from asyncruns.temporal.rounds import RoundProgress
from asyncruns.temporal.shard_runs import CANCELLED_AT_ONCE, ShardRuns
from asyncruns.temporal.shards import MOST_RUNS
from asyncruns.temporal.sizes import LARGEST_PAYLOAD, LARGEST_PIECE, first_piece, json_size
from asyncruns.watch.handover import Token, with_outputs
from asyncruns.watch.outcome_clients import LeftBehind


def ref_of(number: int) -> RunRef:
    return RunRef("thread_run", (f"thread_{number:024}", f"run_{number:024}"))


def shard_of(number: int) -> Shard:
    refs = map(ref_of, range(number))
    return Shard(runs=[ShardRun(key=key_of_run(ref), token=Token(ref=ref)) for ref in refs], total=number)


def outcome(kind: type[Any], ref: RunRef, **fields: Any) -> Any:
    return kind(ref=ref, refs=(ref,), status="s", run=None, polls=1, elapsed=1.0, _client=LeftBehind(), **fields)


def call_of(size: int) -> tuple[Call, str, bool]:
    return Call(id="call_1", name="get_weather", arguments="{}"), "x" * size, False


def key(number: int) -> str:
    return key_of_run(ref_of(number))


@pytest.mark.parametrize("message", ["gone", "é" * 5_000])
def test_a_full_shard_fits_into_a_payload_whatever_became_of_its_runs(message: str) -> None:
    runs = ShardRuns(shard_of(MOST_RUNS))
    assert json_size(shard_of(MOST_RUNS)) < LARGEST_PAYLOAD
    for number in range(MOST_RUNS):
        runs.pass_on(key(number), with_outputs(Token(ref=ref_of(number)), [call_of(1_000)]))
        kind = (Failed, GaveUp, NeedsCaller)[number % 3]
        runs.finish(
            key(number),
            outcome(
                kind,
                ref_of(number),
                reason=None if kind is Failed else Reason.UNREACHABLE,
                error=RunFault("c" * 500, message),
                cause=ValueError(message),
            ),
        )
    state = ShardState(ended=runs.ended)
    assert len(state.ended) == MOST_RUNS
    assert json_size(state) < LARGEST_PAYLOAD
    assert json_size(runs.next_shard(shard_of(0), "host", 0)) < LARGEST_PAYLOAD
    assert state.ended[1].token is not None
    assert state.ended[1].cause.startswith(message[:100])
    assert state.ended[-1].token is None  # there is no more room


def test_a_large_token_is_left_out() -> None:
    runs = ShardRuns(shard_of(1))
    runs.pass_on(key(0), with_outputs(Token(ref=ref_of(0)), [call_of(3_000)]))
    runs.finish(key(0), outcome(NeedsCaller, ref_of(0), reason=Reason.HANDLER_FAILED))
    assert runs.ended[0].token is None


def test_runs_with_large_outputs_are_given_to_a_fleet_in_pieces() -> None:
    runs = ShardRuns(shard_of(6))
    for number in range(6):
        runs.pass_on(key(number), with_outputs(Token(ref=ref_of(number)), [call_of(200_000)]))
    pieces = [runs.begin()]
    while runs.again:
        pieces.append(runs.take_again())
        runs.added(is_certain=True)
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    assert [run.key for piece in pieces for run in piece] == [key(number) for number in range(6)]
    assert all(json_size(piece) <= LARGEST_PIECE for piece in pieces)


def test_a_value_that_is_larger_than_a_piece_is_a_piece_of_its_own() -> None:
    assert first_piece(["x" * LARGEST_PIECE, "y"]) == 1
    assert first_piece([]) == 0


def test_runs_that_were_perhaps_not_added_are_added_again() -> None:
    runs = ShardRuns(shard_of(2))
    runs.pass_on(key(1), Token(ref=ref_of(1)))
    assert [run.key for run in runs.take_again()] == [key(1)]
    assert key(1) in runs.next_shard(shard_of(0), "host", 0).again  # it is being added
    runs.added(is_certain=False)
    assert [run.key for run in runs.take_again()] == [key(1)]
    runs.added(is_certain=True)
    assert runs.take_again() == []


def test_a_run_whose_calls_are_answered_is_not_given_to_a_fleet() -> None:
    runs = ShardRuns(shard_of(3))
    runs.rounds[key(0)] = RoundProgress(2)
    runs.later[key(1)] = None
    runs.again = dict.fromkeys(map(key, range(3)))
    assert [run.key for run in runs.take_again()] == [key(2)]
    runs.added(is_certain=False)
    assert [run.key for run in runs.begin()] == [key(2)]
    assert runs.has_watched
    runs.finish(key(2), outcome(Completed, ref_of(2)))
    assert not runs.has_watched


def test_a_new_history_begins_with_the_outputs_that_exist_and_asks_for_the_other_calls_again() -> None:
    runs = ShardRuns(shard_of(3))
    runs.rounds[key(0)] = RoundProgress(2)
    runs.rounds[key(0)].outputs.append(call_of(5))
    runs.later[key(1)] = None
    shard = runs.next_shard(Shard(runs=[], total=3), "host", 7)
    assert shard.again == [key(1), key(0)]
    assert [run.turn for run in shard.runs] == [1, 1, 0]
    assert shard.runs[0].token.record is not None
    assert [call.output for call in shard.runs[0].token.record.calls] == ["xxxxx"]
    assert (shard.host, shard.polls, shard.total) == ("host", 7, 3)


def test_runs_are_cancelled_in_pieces_without_their_outputs() -> None:
    runs = ShardRuns(shard_of(CANCELLED_AT_ONCE + 1))
    for number in range(5):
        runs.pass_on(key(number), with_outputs(Token(ref=ref_of(number)), [call_of(400_000)]))
    pieces = list(runs.to_cancel())
    assert [len(piece) for piece in pieces] == [CANCELLED_AT_ONCE, 1]
    assert json_size(pieces[0]) < 100_000
    assert pieces[0][0].turn == 1


def test_outputs_with_which_runs_have_gone_on_are_discarded() -> None:
    runs = ShardRuns(shard_of(2))
    for number in range(2):
        runs.pass_on(key(number), with_outputs(Token(ref=ref_of(number)), [call_of(400_000)]))
    runs.settle(key(0), 0)  # of an earlier turn
    runs.settle(key(1), 1)
    runs.settle(key(2), 0)  # it has ended
    assert json_size(runs.open[key(0)]) > 400_000
    assert json_size(runs.open[key(1)]) < 1_000
    assert runs.open[key(1)].turn == 1


def test_of_the_runs_of_a_watch_the_first_and_the_last_are_kept() -> None:
    runs = ShardRuns(shard_of(1))
    token = with_outputs(Token(ref=ref_of(9)), [call_of(5)])
    assert token.record is not None
    refs = tuple(map(ref_of, (0, 5, 9)))
    runs.pass_on(key(0), replace(token, record=replace(token.record, refs=refs)))
    runs.settle(key(0), 1)
    record = runs.open[key(0)].token.record
    assert record is not None
    assert record.refs == (ref_of(0), ref_of(9))


def test_a_round_with_all_its_outputs_is_being_answered() -> None:
    runs = ShardRuns(shard_of(1))
    runs.rounds[key(0)] = RoundProgress(2)
    assert not runs.is_answering
    runs.rounds[key(0)].outputs += [call_of(5), call_of(5)]
    assert runs.is_answering
