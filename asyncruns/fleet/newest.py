"""Keeps the newest of what may be wanted later, and discards the rest: a fleet may live for months."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from asyncruns.watch.logs import FLEET_LOG

K = TypeVar("K")
V = TypeVar("V")


class Newest(OrderedDict[K, V]):
    """Values by their keys, the oldest first.

    Do not use a plain dict: one that is emptied from its front searches through all removed entries each time.

    Args:
        at_most: How many values are kept.
        warning: Logged the first time that a value is discarded; `%d` is how many are kept.
    """

    def __init__(self, at_most: int, warning: str) -> None:
        super().__init__()
        self._at_most = at_most
        self._warning: str | None = warning

    def let_go(self) -> None:
        """Discard the oldest values if there are too many."""
        while len(self) > self._at_most:
            self.popitem(last=False)
            if self._warning is not None:
                FLEET_LOG.warning(self._warning, self._at_most)
                self._warning = None
