"""The view of an emulator's runs and responses that a test reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from asyncruns.testing.emulator.fields import Body


class _HasBody(Protocol):
    def body(self, now: float) -> Body: ...


class Shown(Mapping[str, Body]):
    """Read-only mapping from ids to bodies; each body is made on access, as of that time."""

    def __init__(self, objects: Mapping[str, _HasBody], now: Callable[[], float]) -> None:
        self._objects = objects
        self._now = now

    def __getitem__(self, id: str) -> Body:
        return self._objects[id].body(self._now())

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)
