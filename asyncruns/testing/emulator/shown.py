"""The view of an emulator's runs, responses, batches and files that a test reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from asyncruns.testing.emulator.fields import Body


class Shown(Mapping[str, Body]):
    """Read-only mapping from ids to bodies; each body is made on access, as of that time."""

    def __init__(self, ids: Collection[str], read: Callable[[str], Body]) -> None:
        self._ids = ids
        self._read = read

    def __getitem__(self, id: str) -> Body:
        if id not in self._ids:
            raise KeyError(id)
        return self._read(id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
