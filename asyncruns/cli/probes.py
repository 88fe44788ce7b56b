"""The requests of `asyncruns doctor`, reads that are sent once and change nothing, and what their answers mean."""

from __future__ import annotations

import asyncio
import enum
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import anyio
import msgspec
from msgspec import Struct

from asyncruns.client.anthropic import ANTHROPIC_VERSION
from asyncruns.client.client import Client
from asyncruns.dialects.errors import error_object, has_no_path, shown, wants_another_version
from asyncruns.errors import APIError, APIStatusError
from asyncruns.http import Request, Response, join_path, server_time

_NONE: Final = "0" * 24  # an id that no server has given to anything
_TITLE: Final = re.compile(rb"<title[^>]*>\s*([^<]{1,200})", re.I)


class Probe(Struct, frozen=True):
    """A request that shows whether a server has a part of the API.

    Attributes:
        name: That part.
        path: The path, without the query.
        is_list: Whether the answer is a list; otherwise it is that there is no such object.
        headers: What this part needs beside the headers of all requests.
    """

    name: str
    path: str
    is_list: bool = False
    headers: tuple[tuple[str, str], ...] = ()


THREADS: Final = Probe("threads", join_path("threads", f"thread_{_NONE}"))
RESPONSES: Final = Probe("responses", join_path("responses", f"resp_{_NONE}"))
LIST_OF_RESPONSES: Final = Probe("list of responses", join_path("responses"), is_list=True)
WIRES: Final = (
    THREADS,
    Probe("assistants", join_path("assistants"), is_list=True),
    RESPONSES,
    LIST_OF_RESPONSES,
    Probe("batches", join_path("batches"), is_list=True),
    Probe(
        "message batches",
        join_path("messages", "batches"),
        is_list=True,
        headers=(("anthropic-version", ANTHROPIC_VERSION),),
    ),
    Probe("files", join_path("files"), is_list=True),
)


class ProbeVerdict(enum.Enum):
    """What an answer means."""

    SERVED = "served"
    NO_PATH = "not served"
    KEY = "the key is refused"
    VERSION = "the version is refused"
    LIMITED = "too many requests"
    TROUBLE = "the server is in trouble"
    REDIRECT = "redirected"
    PAGE = "a page, and not an answer of the API"
    NOTHING = "no answer"


class ProbeAnswer(Struct, kw_only=True):
    """The answer to a probe.

    Attributes:
        seconds: How long it took.
        clock_offset: Seconds by which this machine's clock is ahead of the server's; None if there is no `Date`.
        response: None if none came.
        error: Why none came.
    """

    probe: Probe
    verdict: ProbeVerdict
    seconds: float
    clock_offset: float | None = None
    response: Response | None = None
    error: APIError | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status; None without an answer."""
        if self.response is not None:
            return self.response.status
        return self.error.status if isinstance(self.error, APIStatusError) else None

    @property
    def said(self) -> str:
        """What the server says, on one line: the message of an error, or the title or beginning of a page."""
        if self.response is None:
            return str(self.error)
        body, redact = self.response.body, self.response.redact
        if redact is not None:  # the body of an error is redacted already
            body = redact(body)
        if title := _TITLE.search(body):
            return shown(title[1])
        return shown((error_object(self.response).message or "").encode()) or shown(body)


async def send_probe(client: Client, probe: Probe) -> ProbeAnswer:
    """Send a probe once, and return its answer. Safe to cancel."""
    query = (("limit", "1"),) if probe.is_list else ()
    began, clock = anyio.current_time(), time.time()
    try:
        response = await client.transport.send(Request("GET", probe.path, query, headers=probe.headers))
    except APIError as error:
        return ProbeAnswer(probe=probe, verdict=ProbeVerdict.NOTHING, seconds=anyio.current_time() - began, error=error)
    seconds, theirs = anyio.current_time() - began, server_time(response.headers)
    # `Date` is cut to whole seconds, so on average the server's clock is half a second ahead of it.
    offset = None if theirs is None else clock + seconds / 2 - (theirs + 0.5)
    verdict = verdict_on(probe, response)
    return ProbeAnswer(probe=probe, verdict=verdict, seconds=seconds, clock_offset=offset, response=response)


async def send_probes(client: Client, probes: Iterable[Probe]) -> list[ProbeAnswer]:
    """Send probes at once, and return their answers in order. Safe to cancel."""
    return list(await asyncio.gather(*(send_probe(client, probe) for probe in probes)))


def verdict_on(probe: Probe, response: Response) -> ProbeVerdict:
    """Return what the answer to a probe means."""
    status = response.status
    if status < 300:
        return ProbeVerdict.SERVED if _is_of_api(probe, response.body) else ProbeVerdict.PAGE
    if status < 400:
        return ProbeVerdict.REDIRECT
    if status == 407:  # of a proxy
        return ProbeVerdict.PAGE
    if wants_another_version(response):
        return ProbeVerdict.VERSION
    if status == 410 or has_no_path(response):
        return ProbeVerdict.NO_PATH
    if status in (401, 403):
        return ProbeVerdict.KEY if _is_json(response.body) or not _TITLE.search(response.body) else ProbeVerdict.PAGE
    if status == 429:
        return ProbeVerdict.LIMITED
    if status >= 500:
        return ProbeVerdict.TROUBLE
    return ProbeVerdict.SERVED if _is_json(response.body) else ProbeVerdict.PAGE


def _is_of_api(probe: Probe, body: bytes) -> bool:
    found = _json(body)
    return isinstance(found, dict) and (not probe.is_list or isinstance(found.get("data"), list))


def _is_json(body: bytes) -> bool:
    return isinstance(_json(body), dict)


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
