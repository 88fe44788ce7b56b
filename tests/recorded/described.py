"""The operations of the API description beside this repository, and our method for each."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Final
from urllib.parse import unquote

from recordings import SHARED

DESCRIPTION: Final = SHARED / "spec" / "assistants-openapi.json"

METHODS: Final[Mapping[str, str]] = {
    "listAssistants": "assistants.list",
    "createAssistant": "assistants.create",
    "getAssistant": "assistants.retrieve",
    "modifyAssistant": "assistants.update",
    "deleteAssistant": "assistants.delete",
    "createThread": "threads.create",
    "createThreadAndRun": "threads.create_and_run",
    "getThread": "threads.retrieve",
    "modifyThread": "threads.update",
    "deleteThread": "threads.delete",
    "listMessages": "threads.messages.list",
    "createMessage": "threads.messages.create",
    "getMessage": "threads.messages.retrieve",
    "modifyMessage": "threads.messages.update",
    "deleteMessage": "threads.messages.delete",
    "listRuns": "threads.runs.list",
    "createRun": "threads.runs.create",
    "getRun": "threads.runs.retrieve",
    "modifyRun": "threads.runs.update",
    "cancelRun": "threads.runs.cancel",
    "listRunSteps": "threads.runs.steps.list",
    "getRunStep": "threads.runs.steps.retrieve",
    "submitToolOuputsToRun": "threads.runs.submit_tool_outputs",  # spelled like this in the description
}

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the description.

    Attributes:
        name: Its `operationId`.
        path: The path, with a name in braces for each id.
        ids: The names in the path.
        query: The names of query parameters as they are sent, such as `include[]`.
        body: The fields of the JSON body.
        required: The names of all required parameters.
    """

    name: str
    method: str
    path: str
    ids: tuple[str, ...]
    query: tuple[str, ...]
    body: tuple[str, ...]
    required: frozenset[str]

    def __str__(self) -> str:
        return self.name

    @property
    def keywords(self) -> frozenset[str]:
        """The names of all parameters, as keywords."""
        return frozenset(map(keyword_of, (*self.ids, *self.query, *self.body)))

    def ids_in(self, path: str) -> dict[str, str] | None:
        """Return the ids in a path, or None if the path is that of another operation."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path), path)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


def keyword_of(name: str) -> str:
    """Return the keyword for a name on the wire."""
    return name.removesuffix("[]")


def method_of(root: object, operation: Operation, *, is_raw: bool = False) -> Callable[..., Awaitable[Any]]:
    """Return our method for an operation.

    Args:
        root: An object with `.assistants` and `.threads`.
        is_raw: Whether to return the method of `with_raw_response`.
    """
    resource, _, name = METHODS[operation.name].rpartition(".")
    owner = attrgetter(resource)(root)
    method: Callable[..., Awaitable[Any]] = getattr(owner.with_raw_response if is_raw else owner, name)
    return method


def asked_for(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """Return the operation of a request and the ids in its path, or None if it is not described."""
    found = [(each, each.ids_in(path)) for each in operations() if each.method == method]
    matching = [(operation, ids) for operation, ids in found if ids is not None]
    # `/threads/runs` is not a thread with the id "runs".
    return min(matching, key=lambda each: len(each[1]), default=None)


@cache
def operations() -> tuple[Operation, ...]:
    """Return all operations of the description."""
    if not DESCRIPTION.exists():
        raise FileNotFoundError(f"{DESCRIPTION} does not exist: these tests need the folder `shared` beside this one")
    description = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return tuple(
        _operation(description, method.upper(), path, entry)
        for path, methods in description["paths"].items()
        for method, entry in methods.items()
    )


def _operation(description: Json, method: str, path: str, entry: Json) -> Operation:
    parameters = [_resolved(description, each) for each in entry.get("parameters", [])]
    body = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    body = _resolved(description, body)
    named = {place: tuple(each["name"] for each in parameters if each["in"] == place) for place in ("path", "query")}
    assert sum(map(len, named.values())) == len(parameters), f"{path} has parameters in other places"
    return Operation(
        name=entry["operationId"],
        method=method,
        path=path,
        ids=named["path"],
        query=named["query"],
        body=tuple(body.get("properties", {})),
        required=frozenset([each["name"] for each in parameters if each.get("required")] + body.get("required", [])),
    )


def _resolved(description: Json, node: Json) -> Json:
    while "$ref" in node:
        found: Any = description
        for key in node["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        node = found
    return node
