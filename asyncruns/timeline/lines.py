"""The lines of a file of timelines: JSON, one object a line, each with its `kind`. Does no I/O.

The first line of each process that wrote to the file is a `HeadLine`; the numbers `n` of its watches begin anew there.
Times are in seconds since the epoch. Nothing that models, tools and callers write is in them, but labels if asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

LINES_FORMAT: Final = 1

Seconds = Annotated[float, Meta(gt=-1e12, lt=1e12)]  # beyond these, a browser has no dates


class _Line(Struct, frozen=True, omit_defaults=True, gc=False, tag_field="kind"):
    """What all lines have."""


class HeadLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="timelines"):
    """A process begins to write. `version` is that of asyncruns."""

    format: int
    version: str
    at: Seconds


class WatchLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="watch"):
    """A watch begins."""

    n: int
    at: Seconds
    dialect: str
    ids: tuple[str, ...] = ()
    server: str = ""
    label: Any = None


class StatusLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="status"):
    """The run has another status; the first of a watch says who made the run, and when.

    `ids` are there if outputs have created a new run since the line before.
    """

    n: int
    at: Seconds
    status: str
    phase: str
    assistant: str = ""
    model: str = ""
    created_at: Seconds | None = None
    ids: tuple[str, ...] = ()


class PollLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="poll"):
    """A poll was answered, or refused, after so many seconds."""

    n: int
    at: Seconds
    took: Seconds = 0.0
    refusal: str = ""


class CallLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="call"):
    """A tool, or a handler of this name, begins to answer. `c` is its number within the watch."""

    n: int
    c: int
    at: Seconds
    name: str
    call_id: str = ""


class AnsweredLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="answered"):
    """The tool, or the handler, of the call with the number `c` is done."""

    n: int
    c: int
    at: Seconds
    failed: bool = False


class SentLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="sent"):
    """A submit or a cancel was answered, or refused, after so many seconds."""

    n: int
    at: Seconds
    what: str
    took: Seconds = 0.0
    refusal: str = ""


class EndLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="end"):
    """A watch has finished, or was left. `clock` is how far this machine's clock is ahead of the server's."""

    n: int
    at: Seconds
    outcome: str
    ids: tuple[str, ...] = ()
    status: str = ""
    reason: str = ""
    error: str = ""
    polls: int = 0
    created_at: Seconds | None = None
    started_at: Seconds | None = None
    ended_at: Seconds | None = None
    clock: Seconds | None = None


class LostLine(_Line, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="lost"):
    """So many lines were not written here, since the disk was too slow."""

    lines: int


TimelineLine = (
    HeadLine | WatchLine | StatusLine | PollLine | CallLine | AnsweredLine | SentLine | EndLine | LostLine
)  # fmt: skip

ENCODER: Final = msgspec.json.Encoder()
DECODER: Final[msgspec.json.Decoder[TimelineLine]] = msgspec.json.Decoder(TimelineLine)
