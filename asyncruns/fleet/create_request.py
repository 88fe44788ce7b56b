"""The types of what `Fleet.run_many` takes: what `Fleet.run` takes, as dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Required

from asyncruns.abc import RunClient
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.watch.options import SharedOptions

if TYPE_CHECKING:
    from asyncruns.resources.response_parameters import ResponseParameters


class CreateOptions(SharedOptions, total=False):
    """What many requests may have in common: the keyword arguments of `Fleet.run` besides the message."""

    assistant_id: str | None
    model: str | None
    thread_id: str | None
    parameters: RunParameters | ResponseParameters | None
    on_busy: OnBusy
    adopt: bool
    key: str | None
    client: RunClient[Any] | None


class CreateRequest(CreateOptions, total=False):
    """A run or response to create, and how to watch it: the keyword arguments of `Fleet.run`."""

    message: Required[str | Iterable[Mapping[str, Any]]]


ARGUMENTS: Final = frozenset(CreateRequest.__annotations__).difference(SharedOptions.__annotations__, {"client"})
"""The names of those that say what to create; the others are the options of its watch, and the client."""
