"""Whether a server keeps its connections, by what came of the requests: what a pool may be used for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

KEPT_AFTER_S: Final = 0.08  # a server that closes after each answer does so at once, so that it comes with the answer
CHANGES_DISTRUST_S: Final = 60.0  # a lost POST is searched for and sent again within it


class Trust:
    """Whether connections in the pool are likely to be alive, by what came of the requests.

    What changes something is never sent twice, so it does not go over a pooled connection before this server was seen
    to keep one: an answer came over it, or it stayed open for a while.

    Attributes:
        keeps: Whether the server was seen to keep a connection since one last broke.
        broken_in_a_row: How many connections broke since the last answer.
        suspicions: How often what is idle in a pool may have died. A pool that was last emptied at a smaller number may
            hold dead connections.
    """

    def __init__(self) -> None:
        self._answered_at = -math.inf
        self._pooled_at = -math.inf
        self.keeps: bool = False
        self._changes_until = -math.inf
        self.broken_in_a_row: int = 0
        self.suspicions: int = 0

    @property
    def has_answered(self) -> bool:
        """Whether the server has ever answered."""
        return self._answered_at > -math.inf

    def answered(self, now: float) -> None:
        """Note that an answer began."""
        self._answered_at = now
        self.broken_in_a_row = 0

    def came_over_the_pool(self, now: float, *, is_reused: bool) -> None:
        """Note that an answer began over a connection that goes to the pool, or that came from there."""
        self._pooled_at = now
        if is_reused:
            self.keeps = True

    def lost(self, began: float, now: float, *, broke: bool) -> None:
        """Note that an answer was lost.

        Args:
            began: When the request was sent.
            broke: Whether the connection broke. Silence says something of the pool only when nobody was answered.
        """
        self._changes_until = now + CHANGES_DISTRUST_S
        if broke:
            self.keeps = False
            self.broken_in_a_row += 1
        if broke or self._answered_at < began:
            self.suspicions += 1

    def wants_fresh(self, method: str, now: float, has_idle: Callable[[], bool]) -> bool:
        """Return whether a request is to go over a new connection, whatever is in the pool.

        Args:
            has_idle: Tells whether an idle connection is in the pool that seems to be alive.
        """
        if method == "GET":
            return False
        if now < self._changes_until:
            return True
        if self.keeps or not has_idle():
            return False
        self.keeps = now - self._pooled_at >= KEPT_AFTER_S
        return not self.keeps
