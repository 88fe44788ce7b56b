"""While a stream reports the run, polls only check its silence; if it ends too early, polls go on as before."""

from __future__ import annotations

import pytest
from driver import Driver, call, pick

from asyncruns.lifecycle import (
    Asked,
    Phase,
    PollAt,
    RefusalKind,
    Report,
    RunTools,
    State,
    StreamBegun,
    StreamBroken,
    StreamEnded,
    Submit,
)
from asyncruns.lifecycle.machine import SILENCE_S

A = call("call_a")


def streamed() -> Driver:
    run = Driver()
    run.feed(StreamBegun(run.now))
    return run


def broken(run: Driver) -> list[StreamBroken]:
    return [report.notice for report in run.of(Report) if isinstance(report.notice, StreamBroken)]


def test_polls_wait_for_the_stream_to_be_silent() -> None:
    run = streamed()
    (poll,) = pick(run.sees(Phase.RUNNING), PollAt)
    assert (poll.not_before, poll.if_silent) == (run.now + SILENCE_S, SILENCE_S)


def test_calls_that_a_stream_reports_are_handed_out_at_once() -> None:
    run = streamed()
    assert pick(run.sees(Phase.NEEDS_CALLER, A), RunTools) == [RunTools((A,))]
    assert pick(run.answers(call_a="1"), Submit)


def test_a_stream_may_end_when_the_run_waits_for_the_caller() -> None:
    run = streamed()
    run.sees(Phase.NEEDS_CALLER, A)
    (poll,) = pick(run.feed(StreamEnded(run.now)), PollAt)
    assert (poll.if_silent, poll.not_before > run.now) == (0.0, True)
    assert broken(run) == []


@pytest.mark.parametrize("cause", [None, RuntimeError("broke")])
def test_a_stream_that_ends_too_early_is_reported_once_and_polls_go_on(cause: Exception | None) -> None:
    run = streamed()
    run.sees(Phase.RUNNING)
    assert pick(run.feed(StreamEnded(run.now, cause)), PollAt) == [PollAt(run.now, run.now)]
    assert run.feed(StreamEnded(run.now, RuntimeError("again"))) == []
    assert broken(run) == [StreamBroken(cause=cause)]
    (poll,) = pick(run.sees(Phase.RUNNING), PollAt)
    assert poll.if_silent == 0.0


def test_a_stream_that_breaks_while_the_run_waits_for_the_caller_is_reported() -> None:
    run = streamed()
    run.sees(Phase.NEEDS_CALLER, A)
    cause = RuntimeError("broke")
    run.feed(StreamEnded(run.now, cause))
    assert broken(run) == [StreamBroken(cause=cause)]


def test_after_a_cancel_polls_do_not_wait_for_the_stream_to_be_silent() -> None:
    run = streamed()
    run.sees(Phase.RUNNING)
    run.cancels()
    (poll,) = pick(run.sees(Phase.CANCELLING, asked=Asked.CANCEL), PollAt)
    assert poll.if_silent == 0.0


def test_a_failed_poll_is_repeated_whatever_the_stream_reports() -> None:
    run = streamed()
    run.sees(Phase.RUNNING)
    (poll,) = pick(run.refused(RefusalKind.LOST), PollAt)
    assert (poll.if_silent, poll.not_before - run.now < 1.0) == (0.0, True)


def test_a_reopened_watch_has_no_stream() -> None:
    run = streamed()
    run.sees(Phase.NEEDS_CALLER, A)
    run.unanswered("call_a")
    assert run.machine.state is State.DONE
    assert run.feed(StreamEnded(run.now)) == []
    run.provides(call_a="1")
    (poll,) = pick(run.sees(Phase.RUNNING, asked=Asked.SUBMIT), PollAt)
    assert poll.if_silent == 0.0
