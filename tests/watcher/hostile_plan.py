"""Hypothesis strategies for a hostile world: courses of runs, tools that misbehave, and faults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from hypothesis import strategies as st

from asyncruns.testing import Fault, FunctionCall, Scenario

REQUEST_TIMEOUT_S: Final = 20.0
LAG_S: Final = 5.0  # a read is at most this much older than a submit

Does = Literal["quick", "slow", "raises", "hangs", "in_thread", "hangs_in_thread", "missing", "bad_arguments"]

# What each call does is drawn from here, so that the usual cases are frequent.
_USUAL: Final[tuple[Does, ...]] = ("quick", "slow")
_DOINGS: Final[tuple[Does, ...]] = (
    *_USUAL * 6,
    "raises",
    "hangs",
    "in_thread",
    "hangs_in_thread",
    "missing",
    "bad_arguments",
)

Party = Literal["canceller", "other canceller", "other submitter", "operator", "leaver", "other watcher"]
_PARTIES: Final[tuple[Party, ...]] = (*get_args(Party), "canceller", "leaver")


@dataclass(frozen=True)
class Plan:
    """One run, and the settings of its server."""

    rounds: tuple[tuple[tuple[Does, int], ...], ...]
    scenario: Scenario
    clock_skew: float
    poll_after_ms: float | None
    on_lost_submit: Literal["give_up", "resend"]
    pace: float | None = 0.0  # with streams: seconds that the reader takes for an event; None is no reader
    first_stream: Fault | None = None  # applies to the stream that begins the run

    @property
    def is_alike(self) -> bool:
        """Whether two rounds ask for the very same calls, so that they can't be distinguished."""
        return self.scenario.reuse_call_ids and len(set(self.rounds)) < len(self.rounds)

    def has(self, *doings: Does) -> bool:
        """Return whether one of the calls does one of these."""
        return any(does in doings for round_ in self.rounds for does, _ in round_)


def call_of(does: Does, n: int) -> FunctionCall:
    """Return the call as the model writes it."""
    if does == "bad_arguments":
        return FunctionCall("quick", f"{{n: {n}")
    return FunctionCall(does, {"n": n})


def parties() -> st.SearchStrategy[set[Party]]:
    """Return a strategy for the other parties, two at most: with all of them, runs would seldom reach their calls."""
    return st.lists(st.sampled_from(_PARTIES), max_size=2).map(set)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rounds = []
    alike = draw(st.sampled_from([False] * 5 + [True]))
    for place in range(draw(st.sampled_from([2, 1, 1, 2, 2, 3, 3, 0]))):
        doings = draw(st.lists(st.sampled_from(_DOINGS), min_size=1, max_size=3))
        rounds.append(tuple((does, at if alike else 10 * place + at) for at, does in enumerate(doings)))
    scenario = Scenario(
        queued=draw(st.sampled_from([*[0.1] * 8, *[0.0] * 3, *[2.0] * 4, math.inf])),
        working=draw(st.sampled_from([*[0.5] * 4, 0.0, 5.0])),
        rounds=tuple(tuple(call_of(does, n) for does, n in round_) for round_ in rounds),
        end=draw(st.sampled_from([*["completed"] * 5, "failed", "incomplete", "never"])),
        cancelling=draw(st.sampled_from([0.2, 0.0, 8.0, math.inf])),
        lifetime=draw(st.sampled_from([*[220.0] * 4, 60.0, 15.0])),
        reuse_call_ids=alike or draw(st.booleans()),
    )
    skew = draw(st.sampled_from([0.0, 0.0, 86400.0, -86400.0, 7.5]))
    poll_after_ms = draw(st.sampled_from([None, None, 500.0, 2000.0]))
    return Plan(
        tuple(rounds),
        scenario,
        skew,
        poll_after_ms,
        on_lost_submit=draw(st.sampled_from(["give_up", "resend", "resend"])),
        pace=draw(st.sampled_from([0.0, 0.0, 0.2, 3.0, None])),
        first_stream=draw(st.none() | st.none() | stream_faults("create_run")),
    )


@st.composite
def stream_faults(draw: st.DrawFn, on: Literal["create_run", "submit"] = "submit") -> Fault:
    """Return a fault that ends a stream too early; a stream that begins a run has one event at least."""
    least = 1 if on == "create_run" else 0
    return Fault(
        on=on,
        stream=draw(st.sampled_from(["break", "close", "error", "silence"])),
        events=draw(st.integers(least, 14)),
        times=draw(st.sampled_from([1, 1, 3])),
    )


# The effects of faults; `on` is set if an effect is only possible for some requests.
_EFFECTS: Final[tuple[Mapping[str, Any], ...]] = (
    *({"status": 500},) * 3,
    {"status": 502},
    {"status": 503, "headers": {"Retry-After": "3"}},
    {"status": 429},
    {"status": 429, "headers": {"Retry-After": "2"}},
    {"status": 429, "headers": {"retry-after-ms": "7200000"}},
    {"damage": "html"},
    {"damage": "empty"},
    {"damage": "half"},
    {"damage": "cut"},
    *({"drop": True},) * 8,
    {"delay_before": 0.7},
    {"delay_before": 7.0},  # an answer that arrives after a later one; always within the client's own timeout
    {"delay_after": 0.7},
    {"delay_after": 7.0},
    *({"delay_after": math.inf},) * 3,
    {"headers": {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}},
    {"headers": {"Date": "Thu, 01 Jan 2099 00:00:00 GMT"}},
    {"on": "poll", "stale": 1.0},
    {"on": "poll", "stale": 4.0},
    {"on": "poll", "stale": 9.0},  # longer than the lag that a watch reckons with
    {"on": "poll", "damage": "repeat"},  # a cache that should not be there
)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    effect: dict[str, Any] = {**draw(st.sampled_from(_EFFECTS))}
    effect.setdefault("on", draw(st.sampled_from(["submit", "submit", "submit", "poll", "any", "cancel"])))
    replaced = effect.get("drop") or effect.get("damage") in ("html", "empty") or effect.get("status", 200) >= 400
    if replaced and effect.get("status") != 429:  # a server that throttles has not acted
        effect["acts"] = draw(st.sampled_from([True, True, False]))
    if "delay_before" not in effect and "delay_after" not in effect:
        effect["delay_before"] = draw(st.sampled_from([0.0, 0.0, 0.0, 1.0]))
    return Fault(
        **effect,
        skip=draw(st.sampled_from([*[0] * 8, 1, 3])),
        every=draw(st.sampled_from([*[1] * 8, 2, 3])),
        times=draw(st.sampled_from([1, 1, 2, 4, 10])),
    )


def may_mislead(fault: Fault) -> bool:
    """Return whether it shows a state that is older than the lag that a watch reckons with."""
    return fault.damage == "repeat" or fault.stale > LAG_S


def is_wrong_clock(fault: Fault) -> bool:
    """Return whether the server's time is wrong in its answers."""
    return "Date" in fault.headers or fault.damage == "repeat" or fault.stale > 0
