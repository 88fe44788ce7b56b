"""Every situation of a watch and every event that it can receive, for `pairs.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from driver import Driver, call, snapshot

from asyncruns.lifecycle import (
    Asked,
    Begun,
    Call,
    CallKind,
    CallsAnswered,
    CallsUnanswered,
    CancelAsked,
    Event,
    Observed,
    OutputsProvided,
    Phase,
    Refusal,
    RefusalKind,
    Refused,
    StreamBegun,
    StreamEnded,
    Tick,
)

A, B = call("call_a"), call("call_b")
NEW = call("call_c")
OWN = call("call_d", kind=CallKind.SERVER)


def _begun() -> Driver:
    return Driver()


def _running() -> Driver:
    run = Driver()
    run.sees(Phase.RUNNING)
    return run


def _asked() -> Driver:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B)
    return run


def _half_answered() -> Driver:
    run = _asked()
    run.answers(call_a="1")
    return run


def _half_left() -> Driver:
    run = _asked()
    run.unanswered("call_a")
    return run


def _streams() -> Driver:
    run = _running()
    run.feed(StreamBegun(run.now))
    return run


def _stream_asked() -> Driver:
    run = _streams()
    run.sees(Phase.NEEDS_CALLER, A, B)
    return run


def _in_flight() -> Driver:
    run = _half_answered()
    run.answers(call_b="2")
    return run


def _throttled() -> Driver:
    run = _in_flight()
    run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT)
    return run


def _unsure() -> Driver:
    run = _in_flight()
    run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    return run


def _sent() -> Driver:
    run = _in_flight()
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    return run


def _sent_long_ago() -> Driver:
    run = _sent()
    run.now += 30.0
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.now += 30.0
    return run


def _ignored() -> Driver:
    run = _sent_long_ago()
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.sees(Phase.NEEDS_CALLER, A, B, asked=Asked.SUBMIT)
    run.now += 30.0
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.now += 30.0
    return run


def _unreachable() -> Driver:
    run = _running()
    run.refused(RefusalKind.LOST)
    return run


def _expiring() -> Driver:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B, expires_at=1000.0, server_time=980.0)
    return run


def _cancel_of_a_running() -> Driver:
    run = _running()
    run.cancels()
    return run


def _cancel_held() -> Driver:
    run = _in_flight()
    run.cancels()
    return run


def _cancel_sent() -> Driver:
    run = _half_answered()
    run.cancels()
    return run


def _cancel_sent_and_answered() -> Driver:
    run = _cancel_sent()
    run.answers(call_b="2")
    return run


def _cancel_overtook() -> Driver:
    run = _cancel_held()
    run.passes(2.0)
    return run


def _cancel_refused() -> Driver:
    run = _cancel_of_a_running()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    return run


def _cancel_refused_and_asked() -> Driver:
    run = _cancel_refused()
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.sees(Phase.NEEDS_CALLER, A, B)
    return run


def _leaves() -> Driver:
    run = _running()
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    return run


def _leaves_refused() -> Driver:
    run = _leaves()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    return run


def _cancel_taken() -> Driver:
    run = _cancel_sent()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    return run


def _needs_caller() -> Driver:
    run = _half_answered()
    run.unanswered("call_b")
    return run


def _says_not_what() -> Driver:
    run = Driver()
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER)
    return run


def _gave_up() -> Driver:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.passes(5.0)
    return run


def _gave_up_in_flight() -> Driver:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    return run


def _ended() -> Driver:
    run = _running()
    run.sees(Phase.SUCCEEDED)
    return run


SITUATIONS: Mapping[str, Callable[[], Driver]] = {
    "begun, nothing seen": _begun,
    "the run goes on": _running,
    "the run goes on, and a stream reports it": _streams,
    "a stream reported calls, which are being answered": _stream_asked,
    "the last poll failed": _unreachable,
    "calls are being answered": _asked,
    "calls are being answered, the run expires in 20 s": _expiring,
    "one call of two is answered": _half_answered,
    "one call of two is left unanswered": _half_left,
    "outputs are in flight": _in_flight,
    "outputs wait to be sent again": _throttled,
    "outputs were sent, the answer was lost": _unsure,
    "outputs were accepted": _sent,
    "outputs were accepted a minute ago, the run still asks for them": _sent_long_ago,
    "outputs were sent again a minute ago, the run still asks for them": _ignored,
    "a cancel waits for a submit": _cancel_held,
    "a cancel was sent": _cancel_of_a_running,
    "a cancel was sent, calls were stopped": _cancel_sent,
    "a cancel was sent, all calls were answered nevertheless": _cancel_sent_and_answered,
    "a cancel was sent, a submit is in flight": _cancel_overtook,
    "a cancel was accepted": _cancel_taken,
    "a cancel was refused": _cancel_refused,
    "a cancel was refused twice, calls are being answered": _cancel_refused_and_asked,
    "the caller is leaving, a cancel was sent": _leaves,
    "the caller is leaving, the cancel was refused": _leaves_refused,
    "finished, the caller is needed": _needs_caller,
    "finished, the run names no calls": _says_not_what,
    "finished, gave up": _gave_up,
    "finished, gave up with outputs in flight": _gave_up_in_flight,
    "finished, completed": _ended,
}


def events(now: float, wake_at: float) -> Iterator[tuple[str, Event]]:
    """Yield every event in each variant that matters, one second after the last one."""
    yield "Begun", Begun(now)
    for asked in Asked:
        for phase in Phase:
            for what, calls in _calls(phase):
                yield f"Observed {asked.value}: {phase.value}{what}", Observed(now, snapshot(phase, *calls), asked)
        for kind in RefusalKind:
            refusal = Refusal(kind=kind, cause=RuntimeError(kind.value))
            yield f"Refused {asked.value}: {kind.value}", Refused(now, refusal, asked)
    yield "CallsAnswered: both", CallsAnswered(now, ((A, "1"), (B, "2")))
    yield "CallsAnswered: one", CallsAnswered(now, ((B, "2"),))
    yield "CallsAnswered: an unknown call", CallsAnswered(now, ((NEW, "1"),))
    yield "OutputsProvided: both", OutputsProvided(now, (("call_a", "1"), ("call_b", "2")))
    yield "OutputsProvided: one", OutputsProvided(now, (("call_b", "2"),))
    yield "OutputsProvided: an unknown call", OutputsProvided(now, (("call_x", "1"),))
    yield "CallsUnanswered: one", CallsUnanswered(now, (B,))
    yield "CallsUnanswered: one, a handler raised", CallsUnanswered(now, (B,), RuntimeError("bug"))
    yield "CancelAsked", CancelAsked(now)
    yield "CancelAsked: by a caller that leaves", CancelAsked(now, by=now + 5.0)
    yield "StreamBegun", StreamBegun(now)
    yield "StreamEnded: normally", StreamEnded(now)
    yield "StreamEnded: broken", StreamEnded(now, RuntimeError("broken"))
    yield "Tick: early", Tick(now)
    if wake_at < float("inf"):
        yield "Tick: on time", Tick(max(now, wake_at))
        yield "Tick: after a sleep of hours", Tick(wake_at + 10_000.0)


def _calls(phase: Phase) -> list[tuple[str, tuple[Call, ...]]]:
    if phase is not Phase.NEEDS_CALLER:
        return [("", ())]
    return [(", the same calls", (A, B)), (", new calls", (NEW,)), (", no calls", ()), (", the server's calls", (OWN,))]
