"""Faults as values: a test states what goes wrong.

`injected.py` counts which requests they strike, `answers.py` makes the bad answers, and `server.py` and `memory.py`
wait, act and drop connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Literal, get_args

Operation = Literal[
    "any",
    "create_assistant",
    "assistants",
    "assistant",
    "update_assistant",
    "delete_assistant",
    "create_thread",
    "create_thread_and_run",
    "thread",
    "update_thread",
    "delete_thread",
    "create_message",
    "messages",
    "message",
    "update_message",
    "delete_message",
    "create_run",
    "runs",
    "poll",
    "update_run",
    "cancel",
    "submit",
    "steps",
    "step",
    "create_response",
    "delete_response",
    "input_items",
    "create_file",
    "files",
    "file",
    "delete_file",
    "file_content",
    "create_batch",
    "batches",
    "create_message_batch",
    "message_batches",
    "delete_message_batch",
    "results",
]
Damage = Literal["html", "empty", "half", "cut", "repeat"]
StreamEnd = Literal["break", "close", "error", "silence", "json"]

_OPERATIONS: Final = get_args(Operation)
_DAMAGES: Final = get_args(Damage)
_STREAM_ENDS: Final = get_args(StreamEnd)
# The operations to which `run_id` can apply, since they concern one existing run, response, batch or file.
_ON_A_RUN: Final = frozenset({
    "any", "poll", "update_run", "cancel", "submit", "steps", "step", "messages", "delete_response", "input_items",
    "file", "delete_file", "file_content", "delete_message_batch", "results",
})  # fmt: skip
# The reads that can be answered as of an earlier time, for `stale`.
_DATED: Final = frozenset({
    "thread", "messages", "message", "runs", "poll", "steps", "step", "input_items", "files", "file", "file_content",
    "batches", "message_batches", "results",
})  # fmt: skip
# These kinds of damage keep nothing of the server's own answer.
_REPLACING: Final = frozenset({"html", "empty", "repeat"})
_LOWEST_STATUS: Final = 200
_HIGHEST_STATUS: Final = 599
_LOWEST_ERROR: Final = 400


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong with some requests; `Emulator.inject` takes it.

    ::

        Fault(status=500, times=10)                                     # the next ten requests
        Fault(on="poll", status=429, headers={"Retry-After": "2"}, every=5, times=None)
        Fault(on="submit", drop=True, acts=True, every=3, times=None)   # every third: accepted, its answer lost
        Fault(on="poll", damage="html")                                 # 200, with a proxy's page
        Fault(on="poll", stale=3, times=4)                              # the run as it was 3 s ago

    Faults can be combined if that makes sense: a stale answer may also be late, an error status may also be cut off.

    Attributes:
        on: The operation, or "any". Reads are named after what they return ("poll" is one run, "runs" a list), writes
            after what they do ("create_run", "submit"). For responses, "poll" and "cancel" mean the same as for runs,
            and "submit" is the creation of a response that answers the calls of another one; for batches of both wires,
            "poll" is one batch, and "cancel" its cancel.
        run_id: Strike only requests about this run, response, batch or file: those with the id in the path, "messages"
            that are listed by it, and a "submit" of outputs for its calls.
        skip: Number of matching requests that pass before the first one is struck.
        every: Strike every n-th of the remaining requests: 3 strikes the third, the sixth, ...
        times: Maximum number of strikes; None means no limit.
        status: The answer's status, 200 to 599. From 400 on, the body is an error in the server's format, or a proxy's
            HTML page for 502 and 504.
        message, code: Fields of that error; common statuses, and the code "insufficient_quota", have default texts.
        headers: Added to the answer's headers; replace those with the same name, such as `Date`.
        body: Replaces the answer's body: bytes and strings as they are, a mapping as JSON.
        rewrite: Called with the decoded body of an answer with status 200. Its return value is sent, or, if that is
            None, the body that it changed in place. If it raises, aiohttp logs the exception and answers 500.
        damage: "html": a proxy's page. "empty": no bytes. "half": the first half, with a correct Content-Length.
            "cut": the first half, with the Content-Length of the whole, after which the connection ends. "repeat": the
            last answer to an identical request since the fault was injected, including headers; it doesn't strike
            until there is one.
        drop: Whether the connection is closed without an answer. HTTP clients may then repeat a GET by themselves, as
            aiohttp does once, so that a single drop of a poll can go unnoticed.
        acts: Whether the server performs the request even though its answer is lost (`drop`) or replaced (`status` from
            400 on, `body`, or `damage` other than "half" and "cut"). With other faults it always does.
        stale: Answer as of this many seconds ago, like a lagging replica: threads, messages, runs, steps, batches and
            files that are newer are not there yet. Deletions and changes of metadata show at once.
        stream: How a stream ends too early; only requests for a stream are struck. "break": the connection breaks.
            "close": the body ends as if it were complete. "error": the same, after an event `error`. "silence": no
            further event comes. "json": there is no stream; the server ignores `stream` and answers with the run or
            the response.
        events: Number of events before the stream ends.
        delay_before: Seconds until the server acts; it acts even if the client has disconnected by then.
        delay_after: Seconds from then until it answers. `math.inf` never answers.

    Raises:
        ValueError: If a field is out of range, if fields contradict each other, or if nothing goes wrong.
    """

    on: Operation = "any"
    run_id: str | None = None
    skip: int = 0
    every: int = 1
    times: int | None = 1
    status: int | None = None
    message: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | Mapping[str, Any] | None = None
    rewrite: Callable[[dict[str, Any]], Any] | None = None
    damage: Damage | None = None
    drop: bool = False
    acts: bool = False
    stale: float = 0.0
    stream: StreamEnd | None = None
    events: int = 0
    delay_before: float = 0.0
    delay_after: float = 0.0

    def __post_init__(self) -> None:
        for complaint in (*self._wrong_names(), *self._wrong_numbers(), *self._contradictions()):
            raise ValueError(complaint)

    def __repr__(self) -> str:
        shown = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value != ({} if one.default is MISSING else one.default):
                shown.append(f"{one.name}={value!r}")
        return f"Fault({', '.join(shown)})"

    @property
    def is_error(self) -> bool:
        """Whether the status is an error."""
        return self.status is not None and self.status >= _LOWEST_ERROR

    @property
    def replaces(self) -> bool:
        """Whether nothing of the server's own answer is kept."""
        return self.is_error or self.body is not None or self.damage in _REPLACING

    @property
    def reaches_server(self) -> bool:
        """Whether the server performs the request."""
        return self.acts or not (self.drop or self.replaces)

    def _wrong_names(self) -> Iterator[str]:
        if self.on not in _OPERATIONS:
            yield f"on is {self.on!r}; give one of {', '.join(_OPERATIONS)}"
        if self.damage is not None and self.damage not in _DAMAGES:
            yield f"damage is {self.damage!r}; give one of {', '.join(_DAMAGES)}"
        if self.stream is not None and self.stream not in _STREAM_ENDS:
            yield f"stream is {self.stream!r}; give one of {', '.join(_STREAM_ENDS)}"
        if self.run_id is not None and self.on not in _ON_A_RUN:
            yield f"{self.on} is not about a run that exists; leave run_id out"

    def _wrong_numbers(self) -> Iterator[str]:
        for name, least in (("skip", 0), ("every", 1), ("times", 1), ("events", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                yield f"{name} is {value!r}; give {least} or more"
        for name in ("stale", "delay_before", "delay_after"):
            if not getattr(self, name) >= 0:  # `not >=`, so that NaN is refused as well
                yield f"{name} is {getattr(self, name)!r}; give seconds, 0 or more"
        if self.status is not None and not _LOWEST_STATUS <= self.status <= _HIGHEST_STATUS:
            yield f"status is {self.status!r}; give one from {_LOWEST_STATUS} to {_HIGHEST_STATUS}"

    def _contradictions(self) -> Iterator[str]:
        worded = self.message is not None or self.code is not None
        changed = bool(self.stale) or self.rewrite is not None
        sent = self.status is not None or self.headers or self.body is not None or self.damage is not None
        late = self.delay_before or self.delay_after
        rules = (  # (whether it is broken, the message)
            (worded and not self.is_error, "message and code are of an error; give its status, 400 or more"),
            (worded and self.body is not None, "body is the whole answer; leave message and code out"),
            (
                self.damage in _REPLACING and (worded or self.body is not None),
                f"damage={self.damage!r} leaves nothing of a body; leave body, message and code out",
            ),
            (self.drop and sent, "drop sends no answer; leave status, headers, body and damage out"),
            (
                changed and (self.drop or self.replaces),
                "stale and rewrite change the server's own answer; leave out what drops or replaces it",
            ),
            (
                self.stream is not None and (self.drop or self.replaces or self.damage is not None),
                "stream is of a good answer; leave out what drops, damages or replaces it",
            ),
            (bool(self.events) and self.stream is None, "events is of a stream that ends too early; give stream"),
            (bool(self.stale) and self.on not in _DATED, f"stale needs on, one of {', '.join(sorted(_DATED))}"),
            (
                not (sent or changed or self.drop or late or self.stream is not None),
                "nothing goes wrong; give status, drop, damage, body, rewrite, headers, stale, stream or a delay",
            ),
        )
        yield from (advice for broken, advice in rules if broken)
