"""The recorded traffic beside this repository, as values: exchanges, and the lifecycles of runs that consist of them.

Everything here fails if the folder is missing. A test that was skipped instead would pass without any data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

SHARED: Final = Path(__file__).resolve().parents[2].parent / "shared"
SOURCES: Final = (
    "azure-assets",
    "openai-spec-v1",
    "openai-spec-v2",
    "openllmetry",
    "quoted-issues",
    "ruby-openai",
    "simple-openai",
)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and its answer.

    Attributes:
        number: Its position in the file of its source.
        body: Parsed JSON, or the raw text of an event stream.
    """

    source: str
    number: int
    method: str
    path: str
    query: dict[str, str]
    request_body: Any
    status: int
    headers: dict[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.source}-{self.number}"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One exchange of a lifecycle.

    Attributes:
        at_s: Seconds since the first exchange.
        run: The run in the answer (if the answer is a list, the item in it), or None if the answer has no run.
    """

    at_s: float
    exchange: Exchange
    run: Json | None


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """A run that occurs in several exchanges, in order."""

    source: str
    run_id: str
    version: str
    statuses: tuple[str, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.source}-{self.run_id}"

    @property
    def create(self) -> Exchange:
        """The exchange that created the run."""
        return self.steps[0].exchange

    @property
    def thread_id(self) -> str:
        """The thread of the run."""
        return str(self.create.body["thread_id"])

    @property
    def path(self) -> str:
        """The path of the run."""
        return f"{self.create.path}/{self.run_id}"

    @property
    def calls(self) -> list[Json]:
        """The tool calls of the run."""
        actions = [step.run["required_action"] for step in self.steps if step.run and step.run.get("required_action")]
        return [call for action in actions for call in action["submit_tool_outputs"]["tool_calls"]]

    @property
    def cancels(self) -> list[Exchange]:
        """The recorded cancels, at most one."""
        return self.posted("/cancel")

    def posted(self, ending: str) -> list[Exchange]:
        """Return the POSTs to the run's path with this ending, such as `/cancel`."""
        found = (step.exchange for step in self.steps)
        return [each for each in found if each.method == "POST" and each.path == self.path + ending]


@cache
def exchanges() -> tuple[Exchange, ...]:
    """Return all recorded exchanges."""
    return tuple(exchange for source in SOURCES for exchange in _exchanges_of(source))


@cache
def lifecycles() -> tuple[Lifecycle, ...]:
    """Return all recorded lifecycles."""
    by_number = {(exchange.source, exchange.number): exchange for exchange in exchanges()}
    entries = json.loads(_text("wire/lifecycles.json"))
    return tuple(_lifecycle(entry, by_number) for entry in entries)


def seed(number: int) -> str:
    """Return the text of a seed document, by its position in the order of the names."""
    names = sorted(path.name for path in _existing("seeds").iterdir())
    return _text(f"seeds/{names[number]}")


def streamed_objects() -> Iterator[tuple[Exchange, Json]]:
    """Yield the JSON object of each event of the recorded streams."""
    for exchange in exchanges():
        lines = exchange.body.splitlines() if isinstance(exchange.body, str) else []
        for line in lines:
            name, _, value = line.partition(":")
            if name != "data" or value.strip() == "[DONE]":
                continue
            try:
                yield exchange, json.loads(value)
            except json.JSONDecodeError:
                # Some examples of the documentation are cut off in the middle of an object; no recording is.
                assert exchange.source == "openai-spec-v2", f"{exchange} streams what is not JSON: {line}"


def _exchanges_of(source: str) -> Iterator[Exchange]:
    for line in _text(f"wire/{source}.jsonl").splitlines():
        entry = json.loads(line)
        yield Exchange(
            source=source,
            number=entry["n"],
            method=entry["method"],
            path=entry["path"],
            query=entry.get("query") or {},
            request_body=entry.get("request_body"),
            status=entry["status"],
            headers=entry.get("response_headers") or {},
            body=entry["response_body"],
        )


def _lifecycle(entry: Json, by_number: dict[tuple[str, int], Exchange]) -> Lifecycle:
    source, run_id = entry["source"], entry["run_id"]
    steps = [(step["at_s"], by_number[source, step["n"]]) for step in entry["steps"]]
    return Lifecycle(
        source=source,
        run_id=run_id,
        version=entry["version"].removeprefix("assistants="),
        statuses=tuple(entry["statuses"]),
        steps=tuple(Step(at_s=at_s, exchange=each, run=_run_in(each.body, run_id)) for at_s, each in steps),
    )


def _run_in(body: Json, run_id: str) -> Json | None:
    candidates = body.get("data", [body])
    return next((each for each in candidates if each.get("id") == run_id), None)


def _text(name: str) -> str:
    return _existing(name).read_text(encoding="utf-8")


def _existing(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: these tests need the folder `shared` beside the repository")
    return path
