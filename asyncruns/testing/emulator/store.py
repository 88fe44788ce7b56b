"""The emulator's state and its operations, without I/O: the time is passed to each operation, in epoch seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.assistants import EmulatedAssistants
from asyncruns.testing.emulator.batch_scenario import BatchScripts, BatchSource
from asyncruns.testing.emulator.batches import EmulatedBatches
from asyncruns.testing.emulator.faults import Operation
from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.files import EmulatedFiles, RawBody
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.message_batches import EmulatedMessageBatches
from asyncruns.testing.emulator.responses import EmulatedResponses, answered_by
from asyncruns.testing.emulator.runs import EmulatedRuns
from asyncruns.testing.emulator.scenario import ScenarioSource
from asyncruns.testing.emulator.threads import EmulatedThreads

ROOT: Final = "/v1/"
MESSAGES: Final = ROOT + "messages/"
"""What the paths of Anthropic's wire begin with."""

_MESSAGE_BATCHES: Final = "messages/batches"
# The operations whose paths begin with `threads/*/runs/*`, so that the second id is that of the run.
_ON_A_RUN: Final = frozenset({"poll", "update_run", "cancel", "submit", "steps", "step"})
# The first parts of the paths whose first id is that of the run, or of what is like one.
_WITH_ONE_ID: Final = frozenset({"responses", "batches", "messages.batches", "files"})


class Store:
    """The state of the server."""

    def __init__(self, scenario: ScenarioSource, batches: BatchSource, *, late_cancel: int = 400) -> None:
        self.ids: Ids = Ids()
        self.assistants: EmulatedAssistants = EmulatedAssistants(self.ids)
        self.threads: EmulatedThreads = EmulatedThreads(self.ids)
        self.runs: EmulatedRuns = EmulatedRuns(self.ids, self.assistants, self.threads, scenario)
        self.responses: EmulatedResponses = EmulatedResponses(self.ids, scenario, late_cancel)
        self.files: EmulatedFiles = EmulatedFiles(self.ids)
        self.batches: EmulatedBatches = EmulatedBatches(self.ids, self.files, BatchScripts(batches), late_cancel)
        self.message_batches: EmulatedMessageBatches = EmulatedMessageBatches(self.ids, self.batches.scripts)

    def script_batches(self, *sources: BatchSource) -> None:
        """Set the scenarios of the next batches, of both wires."""
        self.batches.scripts = self.message_batches.scripts = BatchScripts(*sources)

    def perform(self, target: Target, query: Mapping[str, str], body: Body, now: float, sent: Sent) -> Body | RawBody:
        """Perform an operation and return the body of the answer.

        Raises:
            RefusedError: The request is refused; it holds the error answer.
        """
        if (body.get("stream") or query.get("stream") == "true") and not may_stream(target):
            raise refusals.no_streams()
        return target.perform(self, ServedRequest(query, body, now, sent, *target.ids))


@dataclass(frozen=True, slots=True)
class Sent:
    """How a request came: its headers, by lower-case names, and the base URL at which it arrived."""

    headers: Mapping[str, str]
    base_url: str


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """The parts of one request; `id`, `inner` and `innermost` are the ids in its path, in order."""

    query: Mapping[str, str]
    body: Mapping[str, Any]
    now: float
    sent: Sent
    id: str = ""
    inner: str = ""
    innermost: str = ""


_STREAMED: Final = frozenset({"create_run", "create_thread_and_run", "submit", "create_response"})

_Perform = Callable[[Store, ServedRequest], Body | RawBody]


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a request: an operation ("" if there is no such operation) and the ids in the path.

    `root` is the path's first part. `run_id` is the run, response, batch or file in the path; for a new response that
    answers calls, the response that made them.
    """

    operation: Operation | Literal[""]
    perform: _Perform
    ids: tuple[str, ...] = ()
    run_id: str | None = None
    root: str = ""


def may_stream(target: Target) -> bool:
    """Return whether an operation can be streamed."""
    # The stream of a response can be resumed.
    return target.operation in _STREAMED or (target.operation == "poll" and target.root == "responses")


# https://platform.openai.com/docs/api-reference/assistants and the pages after it
_OPERATIONS: Final[Mapping[str, tuple[Operation, _Perform]]] = {
    "POST assistants": ("create_assistant", lambda s, a: s.assistants.create(a.body, a.now)),
    "GET assistants": ("assistants", lambda s, a: s.assistants.list(a.query)),
    "GET assistants/*": ("assistant", lambda s, a: s.assistants.retrieve(a.id)),
    "POST assistants/*": ("update_assistant", lambda s, a: s.assistants.update(a.id, a.body)),
    "DELETE assistants/*": ("delete_assistant", lambda s, a: s.assistants.delete(a.id)),
    "POST threads": ("create_thread", lambda s, a: s.threads.create(a.body, a.now)),
    "POST threads/runs": ("create_thread_and_run", lambda s, a: s.runs.create_with_thread(a.body, a.now)),
    "GET threads/*": ("thread", lambda s, a: s.threads.retrieve(a.id, a.now)),
    "POST threads/*": ("update_thread", lambda s, a: s.threads.update(a.id, a.body, a.now)),
    "DELETE threads/*": ("delete_thread", lambda s, a: s.threads.delete(a.id, a.now)),
    "POST threads/*/messages": ("create_message", lambda s, a: s.threads.create_message(a.id, a.body, a.now)),
    "GET threads/*/messages": ("messages", lambda s, a: s.threads.list_messages(a.id, a.query, a.now)),
    "GET threads/*/messages/*": ("message", lambda s, a: s.threads.retrieve_message(a.id, a.inner, a.now)),
    "POST threads/*/messages/*": (
        "update_message",
        lambda s, a: s.threads.update_message(a.id, a.inner, a.body, a.now),
    ),
    "DELETE threads/*/messages/*": ("delete_message", lambda s, a: s.threads.delete_message(a.id, a.inner, a.now)),
    "POST threads/*/runs": ("create_run", lambda s, a: s.runs.create(a.id, a.body, a.now)),
    "GET threads/*/runs": ("runs", lambda s, a: s.runs.list(a.id, a.query, a.now)),
    "GET threads/*/runs/*": ("poll", lambda s, a: s.runs.retrieve(a.id, a.inner, a.now)),
    "POST threads/*/runs/*": ("update_run", lambda s, a: s.runs.update(a.id, a.inner, a.body, a.now)),
    "POST threads/*/runs/*/cancel": ("cancel", lambda s, a: s.runs.cancel(a.id, a.inner, a.now)),
    "POST threads/*/runs/*/submit_tool_outputs": ("submit", lambda s, a: s.runs.submit(a.id, a.inner, a.body, a.now)),
    "GET threads/*/runs/*/steps": ("steps", lambda s, a: s.runs.list_steps(a.id, a.inner, a.query, a.now)),
    "GET threads/*/runs/*/steps/*": ("step", lambda s, a: s.runs.retrieve_step(a.id, a.inner, a.innermost, a.now)),
    # https://platform.openai.com/docs/api-reference/responses
    "POST responses": ("create_response", lambda s, a: s.responses.create(a.body, a.now)),
    "GET responses/*": ("poll", lambda s, a: s.responses.retrieve(a.id, a.query, a.now)),
    "DELETE responses/*": ("delete_response", lambda s, a: s.responses.delete(a.id, a.now)),
    "POST responses/*/cancel": ("cancel", lambda s, a: s.responses.cancel(a.id, a.now)),
    "GET responses/*/input_items": ("input_items", lambda s, a: s.responses.list_input_items(a.id, a.query, a.now)),
    # https://platform.openai.com/docs/api-reference/files and .../batch
    "POST files": ("create_file", lambda s, a: s.files.create(a.body, a.now)),
    "GET files": ("files", lambda s, a: s.files.list(a.query, a.now)),
    "GET files/*": ("file", lambda s, a: s.files.retrieve(a.id, a.now)),
    "DELETE files/*": ("delete_file", lambda s, a: s.files.delete(a.id, a.now)),
    "GET files/*/content": ("file_content", lambda s, a: s.files.content(a.id, a.sent.headers, a.now)),
    "POST batches": ("create_batch", lambda s, a: s.batches.create(a.body, a.now)),
    "GET batches": ("batches", lambda s, a: s.batches.list(a.query, a.now)),
    "GET batches/*": ("poll", lambda s, a: s.batches.retrieve(a.id, a.now)),
    "POST batches/*/cancel": ("cancel", lambda s, a: s.batches.cancel(a.id, a.now)),
    # https://docs.anthropic.com/en/api/creating-message-batches and the pages after it
    "POST messages.batches": (
        "create_message_batch",
        lambda s, a: s.message_batches.create(a.body, a.sent.base_url, a.now),
    ),
    "GET messages.batches": ("message_batches", lambda s, a: s.message_batches.list(a.query, a.sent.base_url, a.now)),
    "GET messages.batches/*": ("poll", lambda s, a: s.message_batches.retrieve(a.id, a.sent.base_url, a.now)),
    "DELETE messages.batches/*": ("delete_message_batch", lambda s, a: s.message_batches.delete(a.id, a.now)),
    "POST messages.batches/*/cancel": ("cancel", lambda s, a: s.message_batches.cancel(a.id, a.sent.base_url, a.now)),
    "GET messages.batches/*/results": ("results", lambda s, a: s.message_batches.results(a.id, a.now)),
}


def target_of(method: str, path: str, raw: bytes = b"") -> Target:
    """Return the target of a path such as `/v1/threads/thread_1/runs`; only a response's creation needs the body."""
    if path.startswith(ROOT):
        inner = path.removeprefix(ROOT)
        if inner.startswith(_MESSAGE_BATCHES):
            inner = inner.replace("/", ".", 1)  # one part, since each second part is an id
        # First without ids, or `threads/runs` would be taken for a thread with the id "runs".
        if (exact := _OPERATIONS.get(f"{method} {inner}")) is not None:
            return _created(*exact, raw)
        parts = inner.split("/")
        # Every second part is an id: `threads/thread_1/runs/run_1` has the shape `threads/*/runs/*`.
        shape = "/".join("*" if place % 2 else part for place, part in enumerate(parts))
        found = _OPERATIONS.get(f"{method} {shape}")
        ids = tuple(unquote(part) for part in parts[1::2])
        if found is not None and all(ids):
            return Target(*found, ids[: shape.count("*")], _run_in(parts[0], found[0], ids), parts[0])

    def refuse(store: Store, request: ServedRequest) -> Body:
        raise refusals.no_such_url(method, path)

    return Target("", refuse)


def _created(operation: Operation, perform: _Perform, raw: bytes) -> Target:
    if operation == "create_response" and (answered := answered_by(raw)) is not None:
        return Target("submit", perform, run_id=answered)
    return Target(operation, perform)


def _run_in(root: str, operation: Operation, ids: tuple[str, ...]) -> str | None:
    if root in _WITH_ONE_ID:
        return ids[0]
    return ids[1] if operation in _ON_A_RUN else None
