"""Keeps the newest of what somebody may come for, or nobody: a fleet may live for months."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from asyncruns.watch.logs import FLEET_LOG

K = TypeVar("K")
V = TypeVar("V")


class Newest(OrderedDict[K, V]):
    """Some things by their keys, the oldest first. Not a plain dict: that looks through all that was at its front.

    Args:
        at_most: How many are kept.
        warning: Logged when one is let go for the first time; `%d` is how many are kept.
    """

    def __init__(self, at_most: int, warning: str) -> None:
        super().__init__()
        self._at_most = at_most
        self._warning: str | None = warning

    def let_go(self) -> None:
        """Let the oldest go that are too many."""
        while len(self) > self._at_most:
            self.popitem(last=False)
            if self._warning is not None:
                FLEET_LOG.warning(self._warning, self._at_most)
                self._warning = None
