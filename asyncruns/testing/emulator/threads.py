"""The threads of an emulator and their messages.

A thread is locked while a run on it is active. No timer notices the end of a run: every access to a thread settles it
first, which unlocks it and adds the answer if the run has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import (
    Body,
    given,
    given_list,
    metadata_of,
    page,
    required_text,
)
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.run import EmulatedRun
from asyncruns.testing.emulator.structured import text_written
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES, reached, whole

_ROLES: Final = ("user", "assistant")
_ANSWERED: Final = ("completed", "incomplete")


@dataclass(slots=True, eq=False)
class EmulatedThread:
    """A thread: its body, its messages and runs by id (oldest first), and the run that locks it.

    `created` and `added` (by message id) are the times of creation, with fractions of a second, which the bodies lack.
    """

    body: Body
    created: float
    messages: dict[str, Body] = field(default_factory=dict)
    runs: dict[str, EmulatedRun] = field(default_factory=dict)
    active: EmulatedRun | None = None
    added: dict[str, float] = field(default_factory=dict)

    @property
    def last_user_text(self) -> str:
        """The text of the last user message, or ""."""
        for message in reversed(self.messages.values()):
            if message["role"] == "user":
                return _text_of(message)
        return ""

    def add(self, message: Body, at: float) -> None:
        """Add a message."""
        self.messages[message["id"]] = message
        self.added[message["id"]] = at

    def messages_at(self, now: float) -> dict[str, Body]:
        """Return the messages that existed at that time."""
        return {id: message for id, message in self.messages.items() if reached(now, self.added[id])}

    def settle(self, now: float) -> None:
        """If the active run has ended, unlock the thread and add the run's answer."""
        run = self.active
        if run is None:
            return
        position = run.position(now)
        if position.status not in TERMINAL_STATUSES:
            return
        self.active = None
        if position.status in _ANSWERED:
            content = [part_of(run, answer_of(run, self.last_user_text))]
            ended = position.ended or now
            # With the time of the end and not of this access: no client can see how late the end was noticed.
            self.add({**message_of(run, [], ended), "content": content}, ended)


class EmulatedThreads:
    """Creates, changes and lists threads and messages; times are epoch seconds."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._all: dict[str, EmulatedThread] = {}

    def find(self, thread_id: str, now: float) -> EmulatedThread:
        """Return a thread after settling it; a thread that was created after `now` is not found."""
        thread = self._all.get(thread_id)
        if thread is None or not reached(now, thread.created):
            raise refusals.not_found("thread", thread_id)
        thread.settle(now)
        return thread

    def create(self, body: Mapping[str, Any], now: float) -> Body:
        """Create a thread, with its first messages."""
        thread_id = self._ids.new("thread")
        thread = EmulatedThread(
            {
                "id": thread_id,
                "object": "thread",
                "created_at": whole(now),
                "metadata": metadata_of(body),
                "tool_resources": given(body, "tool_resources", {}),
            },
            created=now,
        )
        self.add_messages(thread, given_list(body, "messages"), now)
        self._all[thread_id] = thread  # only here: if a message is refused, no thread is created
        return thread.body

    def retrieve(self, thread_id: str, now: float) -> Body:
        """Return a thread's body."""
        return self.find(thread_id, now).body

    def update(self, thread_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Change metadata or tool resources."""
        thread = self.find(thread_id, now)
        changed = dict(thread.body)
        if "metadata" in body:
            changed["metadata"] = metadata_of(body)
        if "tool_resources" in body:
            changed["tool_resources"] = given(body, "tool_resources", {})
        thread.body = changed
        return changed

    def delete(self, thread_id: str, now: float) -> Body:
        """Delete a thread; its messages and runs are no longer found."""
        self.find(thread_id, now)
        del self._all[thread_id]
        return {"id": thread_id, "object": "thread.deleted", "deleted": True}

    def create_message(self, thread_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Add a message; refused while a run is active."""
        thread = self.find(thread_id, now)
        if thread.active is not None:
            raise refusals.locked(thread_id, thread.active.id)
        return self.add_messages(thread, [body], now)[0]

    def add_messages(self, thread: EmulatedThread, bodies: Sequence[Any], now: float) -> list[Body]:
        """Add all messages or none, even if the thread is locked."""
        made = [self._user_message(thread, body, now) for body in bodies]
        for message in made:
            thread.add(message, now)
        return made

    def _user_message(self, thread: EmulatedThread, body: Any, now: float) -> Body:
        if not isinstance(body, dict):
            raise refusals.wrong_type("message", "an object", body)
        role = required_text(body, "role")
        if role not in _ROLES:
            raise refusals.wrong_value("role", role, _ROLES)
        if "content" not in body:
            raise refusals.missing("content")
        metadata = metadata_of(body)
        message = _message(self._ids.new("msg"), thread.body["id"], role, body["content"], now)
        return {**message, "attachments": given_list(body, "attachments"), "metadata": metadata}

    def retrieve_message(self, thread_id: str, message_id: str, now: float) -> Body:
        """Return a message."""
        messages = self.find(thread_id, now).messages_at(now)
        if message_id not in messages:
            raise refusals.not_found("message", message_id)
        return messages[message_id]

    def list_messages(self, thread_id: str, query: Mapping[str, str], now: float) -> Body:
        """Return a page of the messages; with `run_id` in the query, only those of that run."""
        messages = list(self.find(thread_id, now).messages_at(now).values())
        if (run_id := query.get("run_id")) is not None:
            messages = [message for message in messages if message["run_id"] == run_id]
        return page(query, messages, "message")

    def update_message(self, thread_id: str, message_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Change a message's metadata."""
        changed = dict(self.retrieve_message(thread_id, message_id, now))
        if "metadata" in body:
            changed["metadata"] = metadata_of(body)
        self.find(thread_id, now).messages[message_id] = changed
        return changed

    def delete_message(self, thread_id: str, message_id: str, now: float) -> Body:
        """Delete a message."""
        self.retrieve_message(thread_id, message_id, now)
        del self.find(thread_id, now).messages[message_id]
        return {"id": message_id, "object": "thread.message.deleted", "deleted": True}


def _message(id: str, thread_id: str, role: str, content: Any, at: float, *, run: EmulatedRun | None = None) -> Body:
    # As recorded: a GET of a message has no status, completed_at, incomplete_at or incomplete_details.
    return {
        "id": id,
        "object": "thread.message",
        "created_at": whole(at),
        "assistant_id": None if run is None else run.assistant_id,
        "thread_id": thread_id,
        "run_id": None if run is None else run.id,
        "role": role,
        "content": _content(content),
        "attachments": [],
        "metadata": {},
    }


def _content(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [_text_part(content)]
    if not isinstance(content, list):
        raise refusals.wrong_type("content", "a string", content)
    return [_part(f"content[{place}]", part) for place, part in enumerate(content)]


def _part(param: str, part: Any) -> Body:
    if not isinstance(part, dict):
        raise refusals.wrong_type(param, "an object", part)
    if part.get("type") != "text":
        return part
    text = part.get("text")
    if not isinstance(text, str):
        raise refusals.wrong_type(f"{param}.text", "a string", text)
    return _text_part(text)


def _text_part(text: str) -> Body:
    return {"type": "text", "text": {"value": text, "annotations": []}}


def _text_of(message: Body) -> str:
    return "\n".join(part["text"]["value"] for part in message["content"] if part.get("type") == "text")


def message_of(run: EmulatedRun, content: list[Any], at: float) -> Body:
    """Return the message of a run as in the answer to a GET."""
    return _message(run.message_id, run.thread_id, "assistant", content, at, run=run)


def part_of(run: EmulatedRun, text: str) -> Body:
    """Return the part of a run's message with this text, or with a refusal."""
    return _text_part(text) if run.scenario.refusal is None else {"type": "refusal", "refusal": text}


def answer_of(run: EmulatedRun, last_user_text: str) -> str:
    """Return the text of a run's answer, or its refusal."""
    if run.scenario.refusal is not None:
        return run.scenario.refusal
    lines = [
        f"{call.name}: {submission.outputs[call.id]}"
        for calls, submission in zip(run.rounds, run.submissions, strict=False)
        for call in calls
    ]
    return text_written(run.scenario, run.settings["response_format"], lines, last_user_text)
