"""A watch in a hostile world: whatever goes wrong, in whatever order, its promises hold."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping

import pytest
from hostile_plan import Party, Plan, faults, is_wrong_clock, may_mislead, parties, plans
from hostile_world import Watch, World
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET, UnsetType
from shells import FleetOfOne, is_running

from asyncruns import APIConnectionError, GaveUp, NeedsCaller, Reason
from asyncruns.lifecycle.machine import TIMED_OUT_OUTPUT
from asyncruns.testing import Fault, VirtualTimeLoop
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES
from asyncruns.tools import worker_threads as threads
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

MAX_OUTAGE_S = 120.0
CANCEL_BOUND_S = 60.0
LEAVING_S = 5.0 + 2.0  # for a pending submit or cancel, and for observers
LAST_POLL_S = 5.0  # how long the last poll may take, after a watch slept past its deadline
ROUNDING_S = 0.5
# The lifetime that a run has left when the faults stop, so that its watch can see it end.
TIME_TO_RECOVER_S = 110.0

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", 8 if sys.flags.dev_mode else 20))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Turn off logging: no test reads the logs of a hundred worlds with faults."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class HostileWorld(RuleBasedStateMachine):
    """Rules are what can happen to a watch; invariants are what the guide to watching promises about it."""

    world_type: type[World] = World
    world: World | None = None

    @initialize(
        plan=plans(),
        parties=parties(),
        timeout=st.sampled_from([*[UNSET] * 9, None, 0.0, 4.0, 40.0]),
        skip_ahead=st.sampled_from([0.0, 0.0, 1.0]),
        faults=st.lists(faults(), min_size=1, max_size=3),
        dusk=st.sampled_from([30.0, 30.0, 10.0, 0.0, None]),
    )
    def begin(
        self,
        plan: Plan,
        parties: set[Party],
        timeout: float | UnsetType | None,
        skip_ahead: float,
        faults: list[Fault],
        dusk: float | None,
    ) -> None:
        self.dusk = dusk  # seconds for which faults go on after the last rule; with None, watches are left among faults
        self.parties = parties
        self.loop = VirtualTimeLoop(patience=0.01)
        self.injected: list[Fault] = []
        self.others = False
        self.ended: dict[int, AnyOutcome[Run] | None] = {}
        self.world = self.world_type(self.loop, plan)
        self.do(self.world.begin())
        self.pass_time(skip_ahead)
        for fault in faults:
            self.something_goes_wrong(fault)
        self.world.watch(timeout)

    # What can happen

    @precondition(lambda self: self.world and len(self.injected) < 5)
    @rule(fault=faults())
    def something_goes_wrong(self, fault: Fault) -> None:
        assert self.world
        self.injected.append(fault)
        self.world.emulator.inject(fault)

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.3, 1.0, 1.0, 3.0, 3.0, 7.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @precondition(lambda self: self.has("operator") and self.world.is_up)
    @rule(down=st.sampled_from([0.0, 1.0, 10.0]))
    def the_server_restarts(self, down: float) -> None:
        assert self.world
        self.do(self.world.stop())
        self.pass_time(down)
        self.do(self.world.start())

    @precondition(lambda self: self.has("operator") and self.world.is_up)
    @rule(down=st.sampled_from([0.3, 150.0]))
    def the_server_is_down(self, down: float) -> None:
        assert self.world
        self.do(self.world.stop())
        self.pass_time(down)

    @precondition(lambda self: self.world and not self.world.is_up)
    @rule()
    def the_server_is_back(self) -> None:
        assert self.world
        self.do(self.world.start())

    @precondition(lambda self: self.has("other canceller"))
    @rule()
    def another_party_cancels(self) -> None:
        assert self.world
        self.world.others_cancel()

    @precondition(lambda self: self.has("other submitter"))
    @rule()
    def another_party_submits(self) -> None:
        assert self.world
        self.others = True
        self.world.others_submit()

    @precondition(lambda self: self.has("canceller") and self.open_watches())
    @rule(data=st.data())
    def the_caller_cancels(self, data: st.DataObject) -> None:
        watch = data.draw(st.sampled_from(self.open_watches()))
        if is_running(watch.watcher):
            self.do(watch.cancel_run())

    @precondition(lambda self: self.has("other watcher") and len(self.world.watches) < 3)
    @rule(timeout=st.sampled_from([UNSET, 4.0]), on_exit=st.sampled_from(["leave", "cancel"]))
    def another_watch_begins(self, timeout: float | UnsetType, on_exit: str) -> None:
        assert self.world
        self.others = True
        self.world.watch(timeout, "cancel" if on_exit == "cancel" else "leave")

    @precondition(lambda self: self.has("leaver") and self.open_watches())
    @rule(data=st.data(), how=st.sampled_from(["leave", "cancel", "cancel twice"]), hushed=st.booleans())
    def a_watch_is_left(self, data: st.DataObject, how: str, hushed: bool) -> None:
        """Leaving takes a few seconds at most, whatever is pending; if `hushed`, the server answers no submit."""
        assert self.world
        watch = data.draw(st.sampled_from(self.open_watches()))
        if hushed:
            self.world.emulator.faults.clear()
            self.something_goes_wrong(Fault(on="submit", delay_after=math.inf, times=None))
            self.pass_time(4.0)
        began = self.loop.time()
        if how == "leave":
            watch.leave()
        else:
            watch.task.cancel()
        self.do(asyncio.sleep(0.1))
        if how == "cancel twice":
            watch.task.cancel()
        self.do(asyncio.wait({watch.task}, timeout=LEAVING_S + 10.0))
        assert watch.task.done()
        assert self.loop.time() - began <= LEAVING_S + ROUNDING_S

    # Invariants

    @invariant()
    def a_call_is_executed_at_most_once(self) -> None:
        for watch in self.watches():
            assert max(watch.executed.values(), default=0) <= 1, watch.executed

    @invariant()
    def no_round_is_submitted_in_part(self) -> None:
        """A complete round may still be too late, if others answered or polls showed a state that is long gone."""
        for operation, message in self.world.emulator.refused if self.world else []:
            if operation == "submit" and not message.startswith("Runs in status"):
                assert self.world
                assert self.others or any(map(may_mislead, self.injected)), message
                rounds = [[id for id, _ in self.world.asked(place)] for place in range(len(self.world.plan.rounds))]
                assert any(message.endswith(f"got {ids!r}") for ids in rounds), message

    @invariant()
    def outputs_that_had_an_effect_are_not_sent_again(self) -> None:
        """Except if others answer too, or if polls show a state that is long gone: it can't be known then."""
        if not self.world or self.others or any(map(may_mislead, self.injected)):
            return
        for operation, message in self.world.emulator.refused:
            if operation == "submit":
                status = message.split('"')[1]
                assert status in TERMINAL_STATUSES | {"cancelling"}, message

    @invariant()
    def the_server_has_what_the_tools_gave(self) -> None:
        if not self.world:
            return
        for place, (age, outputs) in enumerate(self.world.rounds):
            if place in self.world.theirs:
                continue
            for (id, _), (does, n) in zip(self.world.asked(place), self.world.plan.rounds[place], strict=True):
                self.check_output(outputs, id, does, n, age)

    def check_output(self, outputs: Mapping[str, str], id: str, does: str, n: int, age: float) -> None:
        assert self.world
        output = outputs[id]
        is_misled = self.others or any(map(may_mislead, self.injected))
        if is_misled and self.world.plan.scenario.reuse_call_ids:
            return  # a late submit may hit the next round, of another party or after stale polls, unnoticed
        if output == TIMED_OUT_OUTPUT:
            assert does not in ("missing", "bad_arguments")
            if not any(map(is_wrong_clock, self.injected)):
                assert age > self.world.plan.scenario.lifetime / 2
        elif does == "missing":
            assert "There is no tool named missing" in output
        elif does == "bad_arguments":
            assert "Invalid arguments" in output
        elif does == "raises":
            assert output == '{"error":"The tool raises failed."}'
        else:
            givers = [w.number for w in self.world.watches if w.executed[does, n]]
            assert output in [f"{does} {n} by {number}" for number in givers]

    @invariant()
    def what_was_told_to_be_accepted_was_accepted(self) -> None:
        for watch in self.watches():
            assert self.world
            if not any(fault.damage == "repeat" for fault in self.injected):
                assert watch.accepted <= len(self.world.rounds)

    @invariant()
    def an_end_is_the_truth(self) -> None:
        for watch in self.watches():
            outcome = watch.outcome
            if outcome is None or outcome is self.ended.get(watch.number):
                continue
            assert self.world
            self.ended[watch.number] = outcome
            if isinstance(outcome, GaveUp | NeedsCaller):
                event(f"{type(outcome).__name__} {outcome.reason}")
                self.check_why(watch, outcome)
            else:
                event(type(outcome).__name__)
                assert outcome.status == self.world.status
                assert type(outcome).__name__.lower() == outcome.status

    def check_why(self, watch: Watch, outcome: AnyOutcome[Run]) -> None:
        """Check that a watch that finished before its run had to."""
        assert self.world
        match outcome.reason:
            case Reason.TIMEOUT:
                lasted = self.loop.time() - watch.began_at
                assert watch.timeout is not None
                if not isinstance(watch.timeout, UnsetType):
                    assert lasted >= watch.timeout - ROUNDING_S
                elif not any(map(is_wrong_clock, self.injected)):
                    assert self.world.age > self.world.plan.scenario.lifetime
            case Reason.UNREACHABLE:
                assert outcome.elapsed >= MAX_OUTAGE_S
            case Reason.GONE | Reason.NOT_FOUND:
                assert any(operation == "poll" for operation, _ in self.world.emulator.refused)
            case Reason.CANCEL_UNCONFIRMED:
                assert self.world.was_cancelled
                since = min(watch.cancel_asked_at, watch.cancel_refused_at)
                assert self.loop.time() - since >= CANCEL_BOUND_S
            case Reason.NOT_CANCELLED:
                assert watch.on_exit == "cancel" or watch.cancel_asked_at < math.inf
                assert watch.is_leaving
            case Reason.CANCEL_REFUSED:
                was_seen = any(seen.operation == "cancel" for seen in self.world.emulator.requests)
                assert was_seen or isinstance(outcome.cause, APIConnectionError)
            case Reason.OUTPUTS_IGNORED:
                assert self.world.plan.is_alike or any(map(may_mislead, self.injected))
            case Reason.SUBMIT_REFUSED:
                # The run now asks for other calls; or the reason of the refusal was lost with half of the body.
                was_halved = any(fault.damage == "half" for fault in self.injected)
                assert self.others or was_halved or any(map(may_mislead, self.injected))
                assert was_halved or "Runs in status" not in str(outcome.cause)
            case _:
                raise AssertionError(outcome)

    @invariant()
    def a_wait_ends_by_its_timeout(self) -> None:
        for watch in self.watches():
            if not watch.is_over and watch.timeout is not None and not isinstance(watch.timeout, UnsetType):
                bound = max(watch.timeout, CANCEL_BOUND_S) if watch.was_taken_up else watch.timeout
                assert self.loop.time() - watch.began_at <= bound + LAST_POLL_S + ROUNDING_S

    @invariant()
    def a_watch_breaks_on_nothing(self) -> None:
        for watch in self.watches():
            if watch.task.done() and not watch.task.cancelled():
                assert watch.task.exception() is None
        assert not self.world or self.world.complaints == []

    @invariant()
    def nobody_cancels_unasked(self) -> None:
        if self.world and not self.world.cancel_was_asked:
            assert all(seen.operation != "cancel" for seen in self.world.emulator.requests)

    @invariant()
    def nothing_is_submitted_after_a_cancel(self) -> None:
        """Unless the server refused it. No tool begins then either, which the tools check themselves."""
        if self.world and len(self.world.watches) == 1:
            submits = [seen.at for seen in self.world.emulator.requests if seen.operation == "submit"]
            assert max(submits, default=0.0) <= self.world.watches[0].cancel_asked_at

    @invariant()
    def every_thread_is_counted(self) -> None:
        if self.world:
            assert threads.running() >= len(self.world.held_threads)

    # The end

    def teardown(self) -> None:
        """Once the faults stop, the watch sees the run end; and nothing is left behind."""
        world = self.world
        if world is None:
            return
        try:
            if self.dusk is not None:
                self.pass_time(self.dusk)
                self.check_all()
                self.get_well(world)
                self.check_all()
            began = self.loop.time()
            self.do(world.leave())
            assert self.loop.time() - began <= LEAVING_S + ROUNDING_S
            self.do(world.close())
            assert world.leftovers() == []
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def get_well(self, world: World) -> None:
        world.emulator.faults.clear()
        self.do(world.start())
        first = world.watches[0]
        if first.is_over or first.cancel_asked_at != math.inf:
            return
        left = world.plan.scenario.lifetime - world.age
        waiting = world.loop.create_task(first.until_over())
        self.do(asyncio.wait({waiting}, timeout=max(left, 0.0) + 70.0))
        waiting.cancel()  # with responses and without a timeout, a tool that hangs is waited for without end
        self.an_end_is_the_truth()
        if first.timeout is UNSET and not any(map(is_wrong_clock, self.injected)):
            assert first.is_over
        if not first.outcome or first.outcome.reason or first.timeout not in (UNSET, None):
            return
        fit = world.plan.scenario.end != "never" and world.plan.scenario.queued < 100.0
        if (
            fit
            and left > TIME_TO_RECOVER_S
            and not world.was_cancelled
            and not world.plan.has("hangs", "hangs_in_thread")
        ):
            assert first.outcome.status == world.plan.scenario.end

    # Helpers

    def check_all(self) -> None:
        for check in self.invariants:
            check.function(self)

    def has(self, party: Party) -> bool:
        return self.world is not None and party in self.parties

    def do(self, work: object) -> None:
        self.loop.run_until_complete(work)  # type: ignore[arg-type]

    def watches(self) -> list[Watch]:
        return self.world.watches if self.world else []

    def open_watches(self) -> list[Watch]:
        return [watch for watch in self.watches() if not watch.left]


TestHostileWorld = HostileWorld.TestCase
TestHostileWorld.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class WorldOfFleet(World):
    """A world whose run is watched in a fleet."""

    shell = FleetOfOne


class HostileFleet(HostileWorld):
    """The same rules and invariants."""

    world_type = WorldOfFleet


TestHostileFleet = HostileFleet.TestCase
TestHostileFleet.settings = settings(TestHostileWorld.settings, max_examples=EXAMPLES // 2)
