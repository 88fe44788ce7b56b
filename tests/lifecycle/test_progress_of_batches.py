"""The counts of a batch: kept, reported when more requests have ended, and never taken back by an older poll."""

from __future__ import annotations

import math

import pytest
from driver import Driver

from asyncruns.lifecycle import (
    Asked,
    CancelAsked,
    Counts,
    EndKind,
    Finish,
    Phase,
    ProgressChanged,
    Reason,
    RefusalKind,
    Report,
    StatusChanged,
)
from asyncruns.lifecycle.patience import LAST_POLL_S


def counts(done: int, failed: int = 0, total: int = 10) -> Counts:
    return Counts(done=done, failed=failed, total=total)


def progress(run: Driver) -> list[tuple[int, int, int]]:
    notices = [report.notice for report in run.of(Report)]
    return [(each.done, each.failed, each.total) for each in notices if isinstance(each, ProgressChanged)]


def test_progress_is_reported_once_for_each_change() -> None:
    run = Driver()
    seen = [None, counts(0), counts(0), counts(3), None, counts(3), counts(2, 2), counts(10)]
    for one in seen:
        run.sees(Phase.RUNNING, counts=one)
    assert progress(run) == [(0, 0, 10), (3, 0, 10), (2, 2, 10), (10, 0, 10)]
    assert run.machine.counts == counts(10)


def test_an_older_poll_takes_nothing_back() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, counts=counts(5, 1))
    run.sees(Phase.RUNNING, counts=counts(5))
    assert progress(run) == [(5, 1, 10)]
    run.sees(Phase.RUNNING, counts=counts(1, total=20))
    assert progress(run)[-1] == (1, 0, 20), "the server counts other requests"


def test_the_last_progress_comes_after_the_status_and_before_the_end() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, counts=counts(5))
    *reports, finish = run.sees(Phase.SUCCEEDED, counts=counts(9, 1))
    kinds = [type(report.notice) for report in reports if isinstance(report, Report)]
    assert kinds == [StatusChanged, ProgressChanged]
    assert run.machine.end is not None
    assert run.machine.end.kind is EndKind.COMPLETED
    assert isinstance(finish, Finish)


def test_counts_outlast_the_body() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, counts=counts(5))
    run.machine.forget_resource()
    run.sees(Phase.RUNNING, counts=counts(5))
    assert (progress(run), run.machine.counts) == ([(5, 0, 10)], counts(5))


def test_the_default_deadline_is_so_long_after_the_expiry_as_the_policy_says() -> None:
    run = Driver(after_expiry=3600.0)
    run.sees(Phase.RUNNING, created_at=1000.0, server_time=1000.0, expires_at=1000.0 + 86_400.0)
    assert run.machine.wake_at == pytest.approx(100.0 + 86_400.0 + 3600.0)
    assert run.machine.poll_by == run.machine.wake_at - LAST_POLL_S


@pytest.mark.parametrize(("bound", "confirmed"), [(60.0, False), (900.0, True)])
def test_a_cancel_has_the_time_that_the_policy_allows(bound: float, confirmed: bool) -> None:
    run = Driver(cancel_bound=bound, timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 300.0
    run.sees(Phase.CANCELLING)
    if confirmed:
        assert run.machine.end is None
        run.sees(Phase.CANCELLED)
    end = run.machine.end
    assert end is not None
    assert end.kind is (EndKind.CANCELLED if confirmed else EndKind.GAVE_UP)


@pytest.mark.parametrize(("bound", "is_slow"), [(60.0, False), (900.0, True)])
def test_leaving_does_not_call_a_slow_cancel_a_failed_one(bound: float, is_slow: bool) -> None:
    run = Driver(timeout=None, cancel_bound=bound)
    run.sees(Phase.RUNNING)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert run.machine.wake_at < math.inf
    run.passes(5.0)
    assert run.machine.end is not None
    assert run.machine.end.reason is Reason.NOT_CANCELLED
    assert run.machine.cancel_requested
    assert (run.machine.cancel_error is None) is is_slow


def test_a_slow_cancel_that_was_refused_is_a_failed_one() -> None:
    run = Driver(timeout=None, cancel_bound=900.0)
    run.sees(Phase.RUNNING)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.refused(RefusalKind.UNAUTHORIZED, asked=Asked.CANCEL)
    run.passes(5.0)
    assert run.machine.cancel_error is not None
