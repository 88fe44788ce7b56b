"""Judges by the answers, and the lack of them, whether pooled connections to a server may be used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

# A server that closes its connection after each answer does so at once. A connection that is open for longer is kept.
KEPT_AFTER_S: Final = 0.08
# How long requests that change something avoid the pool after a lost answer: long enough to search for a lost POST and
# to send it again.
CHANGES_DISTRUST_S: Final = 60.0


class Trust:
    """What is known of one server's connections, from the requests so far.

    A request that changes something cannot be repeated when its connection turns out to be dead. So it goes over a
    pooled connection only if this server was seen to keep one: a second answer came over it, or it stayed open for a
    while after an answer.

    Attributes:
        keeps: Whether the server was seen to keep a connection since one last broke.
        broken_in_a_row: Number of connections that broke since the last answer.
        suspicions: Number of times that the idle connections may have died. If a pool was last emptied at a smaller
            number, it may hold dead connections.
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
        """Note that an answer began over a connection that came from the pool (`is_reused`) or will go there."""
        self._pooled_at = now
        if is_reused:
            self.keeps = True

    def lost(self, began: float, now: float, *, broke: bool) -> None:
        """Note that an answer was lost.

        Args:
            began: When the request was sent.
            now: The time now, by the same clock.
            broke: Whether the connection broke. Otherwise the server was silent, which makes the pool suspect only if
                no other request was answered since `began`.
        """
        self._changes_until = now + CHANGES_DISTRUST_S
        if broke:
            self.keeps = False
            self.broken_in_a_row += 1
        if broke or self._answered_at < began:
            self.suspicions += 1

    def wants_fresh(self, method: str, now: float, has_idle: Callable[[], bool]) -> bool:
        """Return whether a request must go over a new connection, although the pool may have one.

        Args:
            method: The method of the request; a GET never needs a new connection.
            now: The time now, by the loop's clock.
            has_idle: Returns whether the pool has an idle connection that seems to be alive.
        """
        if method == "GET":
            return False
        if now < self._changes_until:
            return True
        if self.keeps or not has_idle():
            return False
        # Still open some time after the last answer: the server keeps it.
        self.keeps = now - self._pooled_at >= KEPT_AFTER_S
        return not self.keeps
