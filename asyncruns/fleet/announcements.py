"""Whether webhooks announce the ends of runs, so that polls may be rare. No I/O, no clock: the caller passes the time.

Theory of operation. Announcements count for each dialect. They begin when a webhook comes about a run whose end a poll
then sees, or saw in the 10 s before, as a poll on schedule may be faster than the webhook. From then on, runs are
polled at a tenth of the usual pace, in case a webhook is lost. When the webhook of an end that a poll saw does not come
within 10 s, the fleet stops relying on webhooks for this dialect, until one comes in time again. A run that calls tools
counts as an end, too.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from asyncruns.lifecycle import RunRef

SLOWER: Final = 10.0  # times the usual pause
WEBHOOK_LAG_S: Final = 10.0  # how long after a poll saw an end its webhook may come


class Announcements:
    """The dialects whose ends are announced, and the ends that polls saw before their webhooks came.

    Attributes:
        announced: The dialects whose ends are announced.
    """

    def __init__(self) -> None:
        self.announced: set[str] = set()
        self._awaited: dict[str, OrderedDict[RunRef, float]] = {}  # for each dialect: until when, the earliest first

    def cover(self, dialect: str) -> bool:
        """Return whether the ends of a dialect are announced."""
        return dialect in self.announced

    def came(self, ref: RunRef, now: float) -> None:
        """Note that a webhook about a run came."""
        awaited = self._awaited.get(ref.dialect)
        if awaited is not None and awaited.pop(ref, -math.inf) > now:
            self._begin(ref.dialect)

    def _begin(self, dialect: str) -> None:
        if dialect not in self.announced:
            self.announced.add(dialect)
            self._awaited.pop(dialect, None)  # ends before the first webhook say nothing of later ones

    def saw_end(self, ref: RunRef, now: float, *, is_announced: bool) -> None:
        """Note that a poll saw an end, and whether its webhook had come before."""
        if is_announced:
            self._begin(ref.dialect)
            return
        awaited = self._awaited.setdefault(ref.dialect, OrderedDict())
        awaited.pop(ref, None)  # it may have ended before, in another watch
        awaited[ref] = now + WEBHOOK_LAG_S
        # Of a dialect without webhooks, nothing is kept for longer. `stop_missing` sees to the others.
        while not self.cover(ref.dialect) and self._until(ref.dialect) <= now:
            awaited.popitem(last=False)

    @property
    def wake_at(self) -> float:
        """When to call `stop_missing`; infinity if no webhook is awaited."""
        return min(map(self._until, self.announced), default=math.inf)

    def _until(self, dialect: str) -> float:
        return next(iter(self._awaited.get(dialect, {}).values()), math.inf)

    def stop_missing(self, now: float) -> list[str]:
        """Return the dialects of which a webhook did not come in time; their announcements are over now."""
        missing = [dialect for dialect in self.announced if self._until(dialect) <= now]
        for dialect in missing:
            self.announced.remove(dialect)
            del self._awaited[dialect]
        return missing
