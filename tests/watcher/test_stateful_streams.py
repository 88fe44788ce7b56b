"""The hostile world with a watch that reads streams, which break at random places: the same promises hold.

It also checks what only streams can do wrong: an event that comes twice, or out of order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import test_stateful
from hostile_plan import Plan, stream_faults
from hostile_world import World
from hypothesis import event, settings
from hypothesis.stateful import invariant, precondition, rule
from shells import OneWatch
from test_stateful import EXAMPLES, HostileWorld, _quiet

from asyncruns import RunStream, RunWatcher
from asyncruns.testing import Fault
from asyncruns.wire import MessageDeltaEvent

__all__ = ["TestHostileStreams", "_quiet"]

ANSWER: Final = "So many words come one by one that a stream may well break among them"
ONCE: Final = ("thread.run.created", "thread.message.created", "thread.message.completed", "thread.run.completed")


class WorldOfStreams(World):
    """A world whose run begins with a stream, which the first watch reads; its reader is fast or slow."""

    def __init__(self, loop: asyncio.AbstractEventLoop, plan: Plan) -> None:
        super().__init__(loop, replace(plan, scenario=replace(plan.scenario, answer=ANSWER)))
        self.stream: RunStream | None = None
        self.events: list[Any] = []

    async def begin_run(self) -> None:
        self.connection = self.client
        assistant = await self.client.assistants.create(model="gpt-4o")
        thread = await self.client.threads.create()
        if self.plan.first_stream is not None:
            self.emulator.inject(self.plan.first_stream)
        self.stream = await self.client.threads.runs.create(thread.id, assistant_id=assistant.id, stream=True)
        self.events.append(await anext(self.stream))
        self.ref = self.client.dialect.identify(self.stream.run, {})

    def watched(self) -> Any:
        stream, self.stream = self.stream, None
        return stream or self.ref

    async def poll_on(self, watcher: OneWatch) -> None:
        if not isinstance(watcher, RunWatcher) or watcher is not self.watches[0].watcher or self.plan.pace is None:
            return
        while True:  # the watch may be resumed
            async for one in watcher.stream_events():
                self.events.append(one)
                await asyncio.sleep(self.plan.pace)
            await asyncio.sleep(0.5)


class HostileStreams(HostileWorld):
    """The same rules and invariants, with streams that break."""

    world_type = WorldOfStreams

    @precondition(lambda self: self.world and len(self.injected) < 5)
    @rule(fault=stream_faults())
    def a_stream_breaks(self, fault: Fault) -> None:
        self.something_goes_wrong(fault)

    @invariant()
    def no_event_comes_twice(self) -> None:
        if not isinstance(self.world, WorldOfStreams):
            return
        names = Counter(one.event for one in self.world.events)
        assert all(names[name] <= 1 for name in ONCE), names
        rounds = len(self.world.plan.rounds)
        assert names["thread.run.requires_action"] <= rounds
        assert names["done"] <= rounds + 1
        texts = [one.data.text for one in self.world.events if isinstance(one, MessageDeltaEvent)]
        assert ANSWER.startswith("".join(texts)), texts

    def teardown(self) -> None:
        if isinstance(self.world, WorldOfStreams):
            event(f"events {min(len(self.world.events) // 10 * 10, 50)}")
        super().teardown()


TestHostileStreams = HostileStreams.TestCase
TestHostileStreams.settings = settings(test_stateful.TestHostileWorld.settings, max_examples=EXAMPLES)
