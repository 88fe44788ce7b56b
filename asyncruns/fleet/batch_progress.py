"""Sums up how many requests of the batches of a fleet have ended, as their counts change. Never reads a batch."""

from __future__ import annotations

from asyncruns.lifecycle import Counts


class BatchProgress:
    """The sum over the batches that are watched, and those whose watches have finished.

    Attributes:
        counts: The sum; None while no batch has shown its counts.
    """

    def __init__(self) -> None:
        self.counts: Counts | None = None

    def changed(self, before: Counts | None, now: Counts | None) -> None:
        """Note that the counts of a batch have changed; None are those of one that was not seen, or is left out."""
        if now is not before:
            nothing = Counts()
            self.counts = (self.counts or nothing) + (now or nothing) - (before or nothing)
