"""The hostile world with responses: the same promises, except about what a poll can't show.

A submit whose answer is lost ends the watch, or is sent again, which leaves an orphan: never unasked, and no tool runs
again for it. Each watch has a chain of its own, so there is one of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import test_stateful
from hostile_plan import Party, Plan
from hostile_world import Watch, World
from hypothesis import event, settings
from hypothesis.stateful import invariant
from shells import FleetOfOne
from test_stateful import EXAMPLES, HostileWorld, _quiet

from asyncruns import GaveUp, NeedsCaller, Reason
from asyncruns.watch.outcome import AnyOutcome

__all__ = ["TestHostileFleetOfResponses", "TestHostileResponses", "_quiet"]

LIFETIME_S: Final = 890.0  # responses do not expire, and are given up after 15 minutes here
NOT_HERE: Final[frozenset[Party]] = frozenset({"other submitter", "other watcher"})


class WorldOfResponses(World):
    """A world whose run is a chain of responses; its ref is that of the watch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, plan: Plan) -> None:
        super().__init__(loop, replace(plan, scenario=replace(plan.scenario, lifetime=LIFETIME_S)))
        self.options = {"on_lost_submit": plan.on_lost_submit}

    async def begin_run(self) -> None:
        self.connection = self.client.responses.continued()
        self.connection.dialect.without_expiry = 900.0  # a day of polls would take minutes
        response = await self.client.responses.create(model="gpt-test", input="Hello", background=True)
        self.ref = self.connection.dialect.identify(response, {})

    @property
    def run_id(self) -> str:
        return (self.watches[0].watcher.ref if self.watches else self.ref).ids[0]

    @property
    def status(self) -> str:
        return str(self.emulator.responses[self.run_id]["status"])

    @property
    def age(self) -> float:
        return self.emulator.now() - float(self._all[self.ref.ids[0]].created)

    @property
    def rounds(self) -> list[tuple[float, Mapping[str, str]]]:
        return [(0.0, answered.outputs) for answered in self._run.answered]

    def asked(self, place: int) -> list[tuple[str, str]]:
        return [(call.id, call.name) for call in self._run.answered[place].calls]

    @property
    def was_cancelled(self) -> bool:
        return any(response.cancelled is not None for response in self._all.values())

    def others_cancel(self) -> None:
        cancel = self.emulator._store.responses.cancel
        self.cancelled_by_others |= self._try(lambda: cancel(self.run_id, self.emulator.now()))

    @property
    def _all(self) -> Mapping[str, Any]:
        return self.emulator._store.responses.all

    @property
    def _run(self) -> Any:
        return self._all[self.run_id]


class HostileResponses(HostileWorld):
    """The same rules; the invariants differ where the API does."""

    world_type = WorldOfResponses

    def has(self, party: Party) -> bool:
        return party not in NOT_HERE and super().has(party)

    @invariant()
    def no_round_is_submitted_in_part(self) -> None:
        if self.world:
            assert all(operation != "submit" for operation, _ in self.world.emulator.refused)

    @invariant()
    def outputs_that_had_an_effect_are_not_sent_again(self) -> None:
        """If an answer was lost, the caller has to decide."""
        if not self.world:
            return
        submits = [seen for seen in self.world.emulator.requests if seen.operation == "submit"]
        effects = Counter(seen.run_id for seen in submits if seen.acted)
        orphans = sum(effects.values()) - len(effects)
        if self.world.plan.on_lost_submit == "give_up":
            assert not orphans
        assert orphans <= sum(seen.fault is not None or not seen.status for seen in submits)

    def check_why(self, watch: Watch, outcome: AnyOutcome[Any]) -> None:
        if outcome.reason is Reason.SUBMIT_LOST:
            assert isinstance(outcome, GaveUp)
            assert outcome.outputs
            assert not outcome.calls
            event("lost")
        elif outcome.reason is Reason.CANCEL_REFUSED and isinstance(outcome, NeedsCaller):
            assert watch.watcher.status == "completed"
        else:
            super().check_why(watch, outcome)


TestHostileResponses = HostileResponses.TestCase
TestHostileResponses.settings = test_stateful.TestHostileWorld.settings


class WorldOfFleetOfResponses(WorldOfResponses):
    """A world whose chain is watched in a fleet."""

    shell = FleetOfOne


class HostileFleetOfResponses(HostileResponses):
    """The same rules and invariants."""

    world_type = WorldOfFleetOfResponses


TestHostileFleetOfResponses = HostileFleetOfResponses.TestCase
TestHostileFleetOfResponses.settings = settings(TestHostileResponses.settings, max_examples=max(EXAMPLES // 5, 1))
