"""Explains in a sentence why the watch of a run has not finished. The text is for people; do not parse it."""

from __future__ import annotations

import math

from asyncruns._loop import loop_time
from asyncruns.fleet.member import Member
from asyncruns.fleet.schedule import Schedule
from asyncruns.lifecycle import Connectivity, State


def explain(member: Member, schedule: Schedule[Member], *, is_running: bool) -> str:
    """Return a sentence that says what the run and the fleet are waiting for."""
    outcome = member.outcome
    if not member.ref.ids:
        return _uncreated(member, schedule, is_running=is_running)
    if outcome is not None and member.has_ended:
        return f"{_what(member)}; the watch finished as {type(outcome).__name__}."
    if not is_running:
        return f"{_what(member)}; the fleet was left before the watch finished."
    return f"{_what(member)}; {_doing(member, schedule)}{_trouble(member)}."


def _uncreated(member: Member, schedule: Schedule[Member], *, is_running: bool) -> str:
    if member.outcome is not None:
        cause = member.outcome.cause
        return f"The run was not created{': ' if cause else ''}{cause or ''}; the watch finished as GaveUp."
    if not is_running:
        return "The run was not created before the fleet was left."
    if member.stream is not None:
        return "The stream has not named its run yet."
    return f"The run is not created yet; {schedule.permits} requests for creates and messages wait for the budget."


def _what(member: Member) -> str:
    polls = "1 poll" if member.polls == 1 else f"{member.polls} polls"
    return f"{member.ref} was {'not seen yet' if member.machine.snapshot is None else member.status} after {polls}"


def _doing(member: Member, schedule: Schedule[Member]) -> str:
    state = member.machine.state
    poll = _poll(member, schedule)
    if state is State.DISPATCHING:
        names = ", ".join(call.name or call.id for call in member.machine.open_calls)
        return f"its calls are being answered here: {names}; {poll}"
    if state is State.SUBMITTING:
        return f"the outputs of its calls are being submitted{_queue(schedule)}; {poll}"
    if state is State.CANCELLING:
        return f"its cancel was requested{_queue(schedule)}; {poll}"
    return poll


def _queue(schedule: Schedule[Member]) -> str:
    return f" ({schedule.changes} submits and cancels wait for the budget)" if schedule.changes else ""


def _poll(member: Member, schedule: Schedule[Member]) -> str:
    if member.is_polling:
        return "a poll is in flight"
    if member.is_due:
        budget = schedule.budget
        limit = "" if budget.rate == math.inf else f" at {budget.rate:.3g} requests per second"
        before = schedule.before(member)
        return (
            f"its poll is due, and {before} {'request goes' if before == 1 else 'requests go'} before it{limit}, "
            f"with {budget.in_flight} in flight"
        )
    if member.poll_at == math.inf:
        return "no poll is planned" if member.stream is None else "it is polled when its stream is silent for 5 s"
    return f"the next poll is in {max(member.poll_at - loop_time(), 0.0):.1f} s"


def _trouble(member: Member) -> str:
    connectivity, cause = member.machine.connectivity, member.machine.trouble
    if connectivity is Connectivity.HEALTHY or cause is None:
        return ""
    return f"; the last request for it failed: {type(cause).__name__}: {cause}"
