"""The interface of the fleet for its members: what they need, and what they report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from anyio.abc import TaskGroup

from asyncruns.fleet.announcements import Announcements
from asyncruns.fleet.batch_progress import BatchProgress
from asyncruns.fleet.outages import Outages
from asyncruns.fleet.permits import Permits
from asyncruns.fleet.schedule import Schedule, Slot
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry
from asyncruns.watch.outcome import AnyOutcome

M = TypeVar("M", bound=Slot)


class Host(ABC, Generic[M]):
    """The fleet, as its members see it. One object for all of them, as there may be thousands.

    Attributes:
        schedule: Takes the requests to send for a run, and the times at which it wants to be woken.
        announcements: Whether webhooks announce the ends of runs.
        progress: Sums up the counts of batches.
        outages: Logs when runs can't be polled.
        permits: Keep requests for the messages of a run, which callers send later, within the budget.
        group: The task group in which tools run; None if the fleet is not running.
        closing: Whether nothing new may be started.
        recording: What follows the watches in addition to the telemetry of their clients; None for nothing.
        is_left: Whether the fleet is being left, or was left; runs may still be cancelled while it is.
    """

    schedule: Schedule[M]
    announcements: Announcements
    progress: BatchProgress
    outages: Outages
    permits: Permits
    group: TaskGroup | None
    closing: bool
    recording: GuardedTelemetry | None
    is_left: bool

    @property
    def is_running(self) -> bool:
        """Whether runs can be watched."""
        return self.group is not None and not self.closing

    @abstractmethod
    def companions(self, member: M, now: float) -> Sequence[M]:
        """Return the other members that the poll of a member, which is sent now, is expected to show."""

    @abstractmethod
    def moved(self) -> None:
        """Note that the schedule has changed, so something may be due earlier than planned."""

    @abstractmethod
    def ended(self, member: M) -> None:
        """Note that the watch of a member has finished; its outcome says how."""

    @abstractmethod
    def delivered(self, member: M, outcome: AnyOutcome[Any]) -> None:
        """Note that an outcome of a member was delivered."""

    @abstractmethod
    def taken_up(self, member: M) -> None:
        """Note that the watch of a member, which had finished, was reopened."""

    @abstractmethod
    def renamed(self, member: M) -> None:
        """Note that a member now watches another run, under its new ref."""
