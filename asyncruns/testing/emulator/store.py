"""The emulator's state and its operations, without I/O: every operation is told the time, in epoch seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.assistants import Assistants
from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.runs import Runs
from asyncruns.testing.emulator.scenario import ScenarioSource
from asyncruns.testing.emulator.threads import Threads

_ROOT: Final = "/v1/"


class Store:
    """Everything that the server remembers."""

    def __init__(self, scenario: ScenarioSource) -> None:
        self.ids: Ids = Ids()
        self.assistants: Assistants = Assistants(self.ids)
        self.threads: Threads = Threads(self.ids)
        self.runs: Runs = Runs(self.ids, self.assistants, self.threads, scenario)

    def perform(self, method: str, path: str, query: Mapping[str, str], body: Body, now: float) -> Body:
        """Do what a request asks for and give the answer's body.

        Raises:
            RefusedError: With the error answer.
        """
        operation, ids = _find(method, path)
        if body.get("stream"):
            raise refusals.no_streams()
        return operation(self, Asked(query, body, now, *ids))


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, taken apart; `id`, `inner` and `innermost` are the ids in its path, in order."""

    query: Mapping[str, str]
    body: Mapping[str, Any]
    now: float
    id: str = ""
    inner: str = ""
    innermost: str = ""


_Operation = Callable[[Store, Asked], Body]

# https://platform.openai.com/docs/api-reference/assistants and the pages after it
_OPERATIONS: Final[Mapping[str, _Operation]] = {
    "POST assistants": lambda s, a: s.assistants.create(a.body, a.now),
    "GET assistants": lambda s, a: s.assistants.list(a.query),
    "GET assistants/*": lambda s, a: s.assistants.retrieve(a.id),
    "POST assistants/*": lambda s, a: s.assistants.update(a.id, a.body),
    "DELETE assistants/*": lambda s, a: s.assistants.delete(a.id),
    "POST threads": lambda s, a: s.threads.create(a.body, a.now),
    "POST threads/runs": lambda s, a: s.runs.create_with_thread(a.body, a.now),
    "GET threads/*": lambda s, a: s.threads.retrieve(a.id, a.now),
    "POST threads/*": lambda s, a: s.threads.update(a.id, a.body, a.now),
    "DELETE threads/*": lambda s, a: s.threads.delete(a.id, a.now),
    "POST threads/*/messages": lambda s, a: s.threads.create_message(a.id, a.body, a.now),
    "GET threads/*/messages": lambda s, a: s.threads.list_messages(a.id, a.query, a.now),
    "GET threads/*/messages/*": lambda s, a: s.threads.retrieve_message(a.id, a.inner, a.now),
    "POST threads/*/messages/*": lambda s, a: s.threads.update_message(a.id, a.inner, a.body, a.now),
    "DELETE threads/*/messages/*": lambda s, a: s.threads.delete_message(a.id, a.inner, a.now),
    "POST threads/*/runs": lambda s, a: s.runs.create(a.id, a.body, a.now),
    "GET threads/*/runs": lambda s, a: s.runs.list(a.id, a.query, a.now),
    "GET threads/*/runs/*": lambda s, a: s.runs.retrieve(a.id, a.inner, a.now),
    "POST threads/*/runs/*": lambda s, a: s.runs.update(a.id, a.inner, a.body, a.now),
    "POST threads/*/runs/*/cancel": lambda s, a: s.runs.cancel(a.id, a.inner, a.now),
    "POST threads/*/runs/*/submit_tool_outputs": lambda s, a: s.runs.submit(a.id, a.inner, a.body, a.now),
    "GET threads/*/runs/*/steps": lambda s, a: s.runs.list_steps(a.id, a.inner, a.query, a.now),
    "GET threads/*/runs/*/steps/*": lambda s, a: s.runs.retrieve_step(a.id, a.inner, a.innermost, a.now),
}


def _find(method: str, path: str) -> tuple[_Operation, tuple[str, ...]]:
    """Find the operation of a path, which is like `/v1/threads/thread_1/runs`, and the ids in it."""
    if path.startswith(_ROOT):
        inner = path.removeprefix(_ROOT)
        if (exact := _OPERATIONS.get(f"{method} {inner}")) is not None:
            return exact, ()
        parts = inner.split("/")
        shape = "/".join("*" if place % 2 else part for place, part in enumerate(parts))
        operation = _OPERATIONS.get(f"{method} {shape}")
        ids = tuple(unquote(part) for part in parts[1::2])
        if operation is not None and all(ids):
            return operation, ids[: shape.count("*")]
    raise refusals.no_such_url(method, path)
