"""What a member of a fleet needs of the fleet, and what it tells it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from anyio.abc import TaskGroup

from asyncruns.fleet.schedule import Schedule, Slot

M = TypeVar("M", bound=Slot)


class Host(ABC, Generic[M]):
    """Stands for the fleet before its members: one object for all of them, as there may be thousands.

    Attributes:
        schedule: Takes what is to be sent for a run, and when it wants to be woken.
        group: Where tools run; None when the fleet does not run.
        closing: Whether nothing new is begun any more.
        is_left: Whether the fleet is being left, or was; runs may still be cancelled then.
    """

    schedule: Schedule[M]
    group: TaskGroup | None
    closing: bool
    is_left: bool

    @property
    def is_running(self) -> bool:
        """Whether runs can be watched."""
        return self.group is not None and not self.closing

    @abstractmethod
    def moved(self) -> None:
        """Note that the schedule has changed, so that the next thing may have to be done earlier."""

    @abstractmethod
    def ended(self, member: M) -> None:
        """Note that the watch of a member has ended; its outcome says how."""

    @abstractmethod
    def taken_up(self, member: M) -> None:
        """Note that a member whose watch had ended is watched again."""

    @abstractmethod
    def renamed(self, member: M) -> None:
        """Note that a member watches another run than before, under its new ref."""
