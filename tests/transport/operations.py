"""Every operation of the client with its required arguments, and the request that it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final

from asyncruns import Client

THREAD: Final = {"thread_id": "thread_1"}
RUN: Final = "/threads/thread_1/runs/run_1"


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: The name as an attribute of the client, such as `threads.runs.create`.
        method: The HTTP method.
        path: The path, relative to the base URL.
        ids: Positional arguments.
        given: Keyword arguments.
        body: The body that is sent for the keywords, or None.
    """

    name: str
    method: str
    path: str
    ids: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    def call(self, client: Client, *, raw: bool = False, **options: Any) -> Awaitable[Any]:
        *resources, method = self.name.split(".")
        resource: Any = reduce(getattr, resources, client)
        if raw:
            resource = resource.with_raw_response
        called: Awaitable[Any] = getattr(resource, method)(*self.ids, **self.given, **options)
        return called

    def __str__(self) -> str:
        return self.name


OPERATIONS: Final = [
    Operation("assistants.create", "POST", "/assistants", (), {"model": "m"}, {"model": "m"}),
    Operation("assistants.retrieve", "GET", "/assistants/asst_1", ("asst_1",)),
    Operation("assistants.update", "POST", "/assistants/asst_1", ("asst_1",), {"name": "n"}, {"name": "n"}),
    Operation("assistants.list", "GET", "/assistants"),
    Operation("assistants.delete", "DELETE", "/assistants/asst_1", ("asst_1",)),
    Operation("threads.create", "POST", "/threads", body={}),
    Operation("threads.retrieve", "GET", "/threads/thread_1", ("thread_1",)),
    Operation("threads.list", "GET", "/threads"),
    Operation("threads.update", "POST", "/threads/thread_1", ("thread_1",), body={}),
    Operation("threads.delete", "DELETE", "/threads/thread_1", ("thread_1",)),
    Operation("threads.create_and_run", "POST", "/threads/runs", (), {"assistant_id": "a"}, {"assistant_id": "a"}),
    Operation(
        "threads.messages.create",
        "POST",
        "/threads/thread_1/messages",
        ("thread_1",),
        {"content": "Hi"},
        {"role": "user", "content": "Hi"},
    ),
    Operation("threads.messages.retrieve", "GET", "/threads/thread_1/messages/msg_1", ("msg_1",), THREAD),
    Operation("threads.messages.list", "GET", "/threads/thread_1/messages", ("thread_1",)),
    Operation("threads.messages.update", "POST", "/threads/thread_1/messages/msg_1", ("msg_1",), THREAD, {}),
    Operation("threads.messages.delete", "DELETE", "/threads/thread_1/messages/msg_1", ("msg_1",), THREAD),
    Operation(
        "threads.runs.create",
        "POST",
        "/threads/thread_1/runs",
        ("thread_1",),
        {"assistant_id": "a"},
        {"assistant_id": "a"},
    ),
    Operation("threads.runs.retrieve", "GET", RUN, ("run_1",), THREAD),
    Operation("threads.runs.list", "GET", "/threads/thread_1/runs", ("thread_1",)),
    Operation("threads.runs.update", "POST", RUN, ("run_1",), THREAD, {}),
    Operation("threads.runs.cancel", "POST", f"{RUN}/cancel", ("run_1",), THREAD),
    Operation(
        "threads.runs.submit_tool_outputs",
        "POST",
        f"{RUN}/submit_tool_outputs",
        ("run_1",),
        {**THREAD, "tool_outputs": []},
        {"tool_outputs": []},
    ),
    Operation("threads.runs.steps.list", "GET", f"{RUN}/steps", ("run_1",), THREAD),
    Operation("threads.runs.steps.retrieve", "GET", f"{RUN}/steps/step_1", ("step_1",), {**THREAD, "run_id": "run_1"}),
    Operation(
        "responses.create", "POST", "/responses", (), {"model": "m", "input": "Hi"}, {"model": "m", "input": "Hi"}
    ),
    Operation("responses.retrieve", "GET", "/responses/resp_1", ("resp_1",)),
    Operation("responses.cancel", "POST", "/responses/resp_1/cancel", ("resp_1",)),
    Operation("responses.delete", "DELETE", "/responses/resp_1", ("resp_1",)),
    Operation("responses.list", "GET", "/responses"),
    Operation("responses.input_items.list", "GET", "/responses/resp_1/input_items", ("resp_1",)),
]
LISTS: Final = [operation for operation in OPERATIONS if operation.name.endswith(".list")]
