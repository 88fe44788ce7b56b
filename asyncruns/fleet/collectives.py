"""Sends the collective polls of a fleet, and passes on what each shows to its members, and to no other run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asyncruns._loop import loop_time
from asyncruns.abc import CollectivePoll, RunClient
from asyncruns.fleet.collective import Collective
from asyncruns.fleet.member import Member
from asyncruns.fleet.roster import Roster
from asyncruns.fleet.schedule import Schedule
from asyncruns.http import Response
from asyncruns.lifecycle import Asked, Observed, Refusal, RefusalKind, Refused, RunRef, Snapshot
from asyncruns.watch.logs import FLEET_LOG, log_poll
from asyncruns.watch.requests import send_for

Together = tuple[CollectivePoll, Collective[Any], list[tuple[Member, int, float]]]
"""A collective poll, with the other members that it is to show: their generations, and when they were to be polled."""
Expected = list[tuple[Member, float]]
"""The members that a poll was to show, and when they were to be polled."""


class Collectives:
    """The collective polls of the members of a fleet.

    Args:
        schedule: That of the fleet.
        roster: Its members.
        heed: Called with each response, before it is read.
        note: Called with what a poll found, or why it was refused.
        excused: Returns a refused poll, sent at a time, but due at another, with the time for which it was held back.

    Attributes:
        polls: Number of collective polls sent.
    """

    def __init__(
        self,
        schedule: Schedule[Member],
        roster: Roster,
        *,
        heed: Callable[[Response], object],
        note: Callable[[Observed | Refused], object],
        excused: Callable[[Refused, float, float], Refused],
    ) -> None:
        self._schedule = schedule
        self._roster = roster
        self._heed, self._note, self._excused = heed, note, excused
        # By the ids of the clients, which their members keep alive.
        self._members: dict[int, tuple[Collective[Any], set[Member]]] = {}
        self._broken: set[str] = set()  # the dialects that raised
        self._chosen: dict[Member, Together] = {}  # those that are about to be sent
        self.polls: int = 0

    # Members

    def join(self, member: Member, given: Snapshot[Any] | None) -> None:
        """Poll a member together with others from now on, if its server has something for that."""
        if member.stream is not None or member.collective is not None:
            return
        found = self._members.get(id(member.client))
        collective = self._collective_of(member.client) if found is None else found[0]
        if collective is not None:
            self._members.setdefault(id(member.client), (collective, set()))[1].add(member)
            member.collective = collective
            collective.add(member.ref, given)

    def _collective_of(self, client: RunClient[Any]) -> Collective[Any] | None:
        """Return what polls the runs of a client together; None if its dialect has nothing for that, or raises."""
        dialect = client.dialect
        if dialect.name in self._broken:
            return None
        try:
            polls = dialect.collective()
        except Exception:
            self._broken.add(dialect.name)
            FLEET_LOG.exception("A dialect raised an error in collective(); its runs are polled one by one")
            return None
        return None if polls is None else Collective(polls)

    def part(self, member: Member) -> None:
        """Poll a member no more, whose watch has finished or was discarded."""
        collective, member.collective = member.collective, None
        if collective is None:
            return
        watched = self._roster.watched(member.ref)
        if watched is None or watched is member:  # another member may watch the run now
            collective.discard(member.ref, ended_at=loop_time() if member.is_over else None)
        members = self._members[id(member.client)][1]
        members.discard(member)
        if not members:
            del self._members[id(member.client)]

    def renamed(self, member: Member) -> None:
        """Poll a member by its new ref."""
        if member.collective is not None:
            member.collective.discard(member.refs[-2], ended_at=None)
            member.collective.add(member.ref, None)

    # Polls

    def companions(self, member: Member, now: float) -> list[Member]:
        """Return the other members that the poll of a member, which is sent now, is expected to show."""
        collective = member.collective
        poll = None if collective is None else collective.choose(member.ref, now)
        if poll is None or collective is None:
            return []
        found = [self._roster.watched(ref) for ref in poll.refs]
        others = [other for other in found if other is not None and other is not member and not other.is_polling]
        self._chosen[member] = poll, collective, [(other, other.generation, other.poll_at) for other in others]
        return others

    def polled_alone(self, member: Member) -> None:
        """Note that a member was polled by itself, with success."""
        if member.collective is not None:
            member.weight = 1
            member.collective.polled_alone(member.ref, loop_time())

    async def polled(self, member: Member) -> bool:
        """Send the collective poll that was chosen for a member; return whether there was one. Safe to cancel."""
        together = self._chosen.pop(member, None)
        if together is None:
            return False
        poll, collective, others = together
        generation, sent_at = member.generation, loop_time()
        self.polls += 1
        answer: Mapping[RunRef, Snapshot[Any]] | Refused | None = None

        def read(response: Response) -> Mapping[RunRef, Snapshot[Any]]:
            return collective.read(poll, response, asked_at=sent_at, now=loop_time())

        try:
            answer = await send_for(member.client, poll.request, Asked.POLL, self._heed, read)
        except BaseException as error:
            lost = Refusal(kind=RefusalKind.LOST, cause=error if isinstance(error, Exception) else RuntimeError())
            collective.failed(poll, lost, loop_time())
            if not isinstance(error, Exception):
                raise
            member.broke(error)
        finally:
            expected, discarded = self._landed(member, generation, others, sent_at)
        if isinstance(answer, Refused):
            self._refused(poll, collective, answer, expected, sent_at)
        else:
            self._seen(collective, answer or {}, expected, discarded, sent_at)
        return True

    def _landed(
        self, member: Member, generation: int, others: Iterable[tuple[Member, int, float]], sent_at: float
    ) -> tuple[Expected, set[Member]]:
        """Return the members that the poll was to show, and those for which it was discarded."""
        self._schedule.landed(member, was_poll=generation == member.generation)
        expected: Expected = []
        discarded: set[Member] = set()
        if generation == member.generation:
            expected.append((member, sent_at))
        else:
            discarded.add(member)
        for other, its_generation, poll_at in others:
            if its_generation == other.generation:
                self._schedule.companion_landed(other)
                expected.append((other, poll_at))
            else:
                discarded.add(other)
        return expected, discarded

    def _seen(
        self,
        collective: Collective[Any],
        answer: Mapping[RunRef, Snapshot[Any]],
        expected: Expected,
        discarded: set[Member],
        asked_at: float,
    ) -> None:
        """Pass on what a poll showed; the members that it was to show but did not are due again."""
        shown: dict[Member, Snapshot[Any]] = {}
        for ref, snapshot in answer.items():
            member = self._roster.watched(ref)
            # An answer to a poll that was sent before a submit or a cancel took effect shows an old state.
            is_old = member is None or member in discarded or member.discarded_at > asked_at
            if member is not None and member.collective is collective and not is_old:
                shown[member] = snapshot
        for member, snapshot in shown.items():
            event = Observed(loop_time(), snapshot, Asked.POLL, asked_at, among=len(shown))
            self._note(event)
            collective.shown(member.ref)
            member.weight = len(shown)
            member.begin_poll(asked_at)
            log_poll(FLEET_LOG, member.ref, event)
            member.polled(event, member.generation)
        for place, (member, poll_at) in enumerate(expected):
            if member not in shown:
                if not place:  # the poll was made for the first one
                    collective.missed(member.ref, loop_time())
                member.plan_poll_again(poll_at)

    def _refused(
        self,
        poll: CollectivePoll,
        collective: Collective[Any],
        event: Refused,
        expected: Expected,
        sent_at: float,
    ) -> None:
        """Pass on that a poll failed, unless single ones may succeed: then its members are due again."""
        self._note(event)
        is_told = collective.failed(poll, event.refusal, event.now)
        for member, poll_at in expected:
            if is_told:
                member.polled(self._excused(event, sent_at, member.due_at), member.generation)
            else:
                member.plan_poll_again(poll_at)
