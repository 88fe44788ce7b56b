"""The part of the emulator that does not depend on how requests arrive: seen requests, faults, and answers as values.

There are two ways in: `server.py`, an HTTP server, and `memory.py`, a transport. Each passes the requests on to the
backend and sends its answers; scenarios and faults behave the same in both.
"""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl

import msgspec

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.answers import EmulatedAnswer, spoiled
from asyncruns.testing.emulator.batch_scenario import BatchScenario, BatchSource
from asyncruns.testing.emulator.faults import Fault
from asyncruns.testing.emulator.fields import Body, read_body
from asyncruns.testing.emulator.files import RawBody
from asyncruns.testing.emulator.header_checks import check_headers
from asyncruns.testing.emulator.injected import InjectedFault, strike
from asyncruns.testing.emulator.message_errors import as_message_error
from asyncruns.testing.emulator.multipart import read_form
from asyncruns.testing.emulator.response_streaming import ResponseFeed
from asyncruns.testing.emulator.scenario import ScenarioSource, default_scenario
from asyncruns.testing.emulator.seen import SeenRequest, json_object
from asyncruns.testing.emulator.shown import Shown
from asyncruns.testing.emulator.store import MESSAGES, Sent, Store, Target, may_stream
from asyncruns.testing.emulator.streaming import ERROR, RunFeed
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES
from asyncruns.testing.emulator.webhooks import Announced, EmulatedWebhooks

LateCancel = Literal[200, 400, 409]
Act = Callable[[float], EmulatedAnswer]
"""Performs the request and returns the answer; its argument is the `stale` of a fault, in seconds."""
StreamBytes = Iterator[bytes | float | None]
"""The items of a stream: events, times to wait for (epoch seconds), and None if the connection breaks there."""

_POLLED: Final = frozenset({"thread.run", "response"})


class Backend(ABC):
    """Base class of `Emulator` and `InMemoryTransport`, which document the arguments.

    Raises:
        ValueError: If `clock_skew` is not finite, or `late_cancel` is not 200, 400 or 409.
    """

    def __init__(
        self,
        scenario: ScenarioSource | None,
        *,
        batches: BatchSource | None = None,
        api_key: str | None = None,
        poll_after_ms: float | None,
        clock_skew: float,
        late_cancel: LateCancel,
    ) -> None:
        if not math.isfinite(clock_skew):
            raise ValueError(f"clock_skew is {clock_skew!r}; give a finite number of seconds")
        if late_cancel not in get_args(LateCancel):
            raise ValueError(f"late_cancel is {late_cancel!r}; give 200, 400 or 409")
        self.requests: list[SeenRequest] = []
        self.faults: list[InjectedFault] = []
        self._store = Store(
            default_scenario if scenario is None else scenario,
            BatchScenario() if batches is None else batches,
            late_cancel=late_cancel,
        )
        self._api_key = api_key
        self._poll_after_ms = poll_after_ms
        self._webhooks: EmulatedWebhooks | None = None
        # Whole seconds: the times on the wire then don't depend on the fraction of a second at which a test started.
        self._epoch = float(math.floor(time.time() + clock_skew))
        # Without a loop the clock stands still. `_go_by` changes loops; the time then continues from where it was.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_start = 0.0
        self._date = (0, "")  # cached: thousands of answers have the same second

    def __repr__(self) -> str:
        runs, responses = len(self._store.runs.all), len(self._store.responses.all)
        batches = len(self._store.batches.list_of) + len(self._store.message_batches.list_of)
        counts = f"runs={runs} responses={responses} batches={batches} requests={len(self.requests)}"
        return f"<{type(self).__name__} {self._where()} {counts}>"

    @abstractmethod
    def _base_url(self) -> str:
        """Return the URL of the API."""

    @abstractmethod
    def _where(self) -> str:
        """Return a word or two about where requests arrive, for `repr`."""

    @property
    def runs(self) -> Mapping[str, Body]:
        """All runs by id, each as a GET would return it now."""
        runs = self._store.runs.all
        return Shown(runs, lambda id: runs[id].body(self.now()))

    @property
    def responses(self) -> Mapping[str, Body]:
        """All responses by id, each as a GET would return it now."""
        responses = self._store.responses.all
        return Shown(responses, lambda id: responses[id].body(self.now()))

    @property
    def batches(self) -> Mapping[str, Body]:
        """All batches of OpenAI's wire by id, each as a GET would return it now."""
        batches = self._store.batches
        return Shown(batches.list_of.by_id, lambda id: batches.retrieve(id, self.now()))

    @property
    def message_batches(self) -> Mapping[str, Body]:
        """All batches of Anthropic's wire by id, each as a GET would return it now."""
        batches = self._store.message_batches
        return Shown(batches.list_of.by_id, lambda id: batches.retrieve(id, self._base_url(), self.now()))

    @property
    def files(self) -> Mapping[str, Body]:
        """All uploaded files by id, each as a GET would return it now."""
        files = self._store.files.all
        return Shown(files, lambda id: files[id].body(self.now()))

    def now(self) -> float:
        """Return the server's time in epoch seconds; it advances with the loop's clock."""
        if self._loop is None:
            return self._epoch
        return self._epoch + self._loop.time() - self._loop_start

    def script(self, scenario: ScenarioSource, *, assistant_id: str | None = None, model: str | None = None) -> None:
        """Set the scenario of an assistant's next runs, or of a model's next responses.

        An assistant that doesn't exist is created, without tools. A chain of responses keeps the scenario that it
        started with.

        Raises:
            ValueError: If neither or both of `assistant_id` and `model` are given.
        """
        if (assistant_id is None) is (model is None):
            raise ValueError("give either assistant_id, for runs, or model, for responses")
        if model is not None:
            self._store.responses.scripts[model] = scenario
        elif assistant_id is not None:
            self._store.assistants.ensure(assistant_id, self.now())
            self._store.runs.scripts[assistant_id] = scenario

    def script_batches(self, *scenarios: BatchSource) -> None:
        """Set the scenarios of the next batches of both wires, one each; the last one is for all batches after it.

        Raises:
            ValueError: If no scenario is given.
        """
        if not scenarios:
            raise ValueError("give at least one scenario")
        self._store.script_batches(*scenarios)

    def inject(self, *faults: Fault) -> None:
        """Inject faults from now on; the list `faults` shows them, and removing one from it ends it.

        If several faults are due for a request, the one that was injected first strikes; the others miss that request.
        """
        self.faults.extend(InjectedFault(fault) for fault in faults)

    def submitted(self, run_id: str) -> list[dict[str, str]]:
        """Return the outputs that were accepted, one dict by call id for each round.

        For a response, these are the rounds that were answered before it in its chain.
        """
        if (response := self._store.responses.all.get(run_id)) is not None:
            return [dict(done.outputs) for done in response.answered]
        return [dict(submission.outputs) for submission in self._store.runs.all[run_id].submissions]

    def _send_webhooks(self, deliver: Callable[[str, bytes], object]) -> None:
        """Deliver a webhook when a response in the background or a batch ends, from now on: its id and its body."""
        store = self._store
        announced: Mapping[str, Mapping[str, Announced]] = {
            "response": store.responses.all,
            "batch": store.batches.list_of.by_id,
        }
        self._webhooks = EmulatedWebhooks(announced, store.ids, self.now, deliver)

    def _go_by(self, loop: asyncio.AbstractEventLoop) -> None:
        """Advance the server's clock with a loop's clock, without a jump."""
        self._epoch, self._loop, self._loop_start = self.now(), loop, loop.time()

    def _receive(
        self,
        seen: SeenRequest,
        target: Target,
        parameters: Mapping[str, str],
        check: Callable[[], None] = lambda: None,
    ) -> tuple[InjectedFault | None, Act]:
        """Record a request; return the fault that strikes it, and a function that performs it.

        `check` is called before the request is performed, and raises `RefusedError` for what only the wire shows.
        """
        self.requests.append(seen)
        return strike(self.faults, seen) if self.faults else None, partial(self._act, seen, target, parameters, check)

    def _spoil(self, injected: InjectedFault, seen: SeenRequest, act: Act) -> EmulatedAnswer:
        """Return the answer as a fault changes it, performing the request if the fault lets it reach the server."""
        fault = injected.fault
        answer = act(fault.stale) if fault.reaches_server else EmulatedAnswer(200, self._headers(self.now(), seen), b"")
        return spoiled(answer, fault, injected.earlier(seen), of_messages=_is_of_messages(seen))

    def _feed(self, seen: SeenRequest, target: Target, answer: EmulatedAnswer) -> StreamBytes | None:
        """Return the items of the stream that a successful request asks for, recording its status, or None."""
        if not (seen.acted and may_stream(target) and answer.status == HTTPStatus.OK and seen.asks_for_a_stream):
            return None
        if seen.fault is not None and seen.fault.stream == "json":
            return None
        # The answer without a stream tells which run or response was created or resumed.
        found = str(json_object(answer.body).get("id"))
        run, response = self._store.runs.all.get(found), self._store.responses.all.get(found)
        if run is not None:
            thread = self._store.threads.find(run.thread_id, self.now())
            events = RunFeed(run, thread, self.now, operation=seen.operation).events()
        elif response is not None:
            after = dict(parse_qsl(seen.query)).get("starting_after", -1)
            events = ResponseFeed(response, self.now, starting_after=int(after)).events()
        else:
            return None  # a fault has changed the body into something else: send it as it is
        seen.status = answer.status
        return _ended_early(events, seen.fault)

    def _answered(self, seen: SeenRequest, answer: EmulatedAnswer) -> None:
        """Record an answer that is sent."""
        for injected in self.faults:  # faults with damage="repeat" send it again later
            injected.remember(seen, answer)
        seen.status = answer.status

    def _act(
        self,
        seen: SeenRequest,
        target: Target,
        parameters: Mapping[str, str],
        check: Callable[[], None],
        stale: float,
    ) -> EmulatedAnswer:
        now = self.now()
        headers = self._headers(now, seen)
        try:
            check()
            given = _read(seen, target)
            sent = Sent(seen.headers, self._base_url())
            status, body = 200, self._store.perform(target, parameters, given, now - stale, sent)
            seen.acted = True
        except refusals.RefusedError as refusal:
            status, body = refusal.status, refusal.body
            if _is_of_messages(seen):
                body = as_message_error(body, status, headers["request-id"])
        if isinstance(body, RawBody):
            return EmulatedAnswer(body.status, {**headers, **body.headers}, body.content)
        if seen.acted and self._webhooks is not None and seen.method == "POST":
            self._webhooks.changed(body)
        self._hint(headers, seen.method, body)
        return EmulatedAnswer(status, headers, msgspec.json.encode(body))

    def _check_headers(self, seen: SeenRequest, headers: Mapping[str, str]) -> None:
        """Check what each request has to have on the wire.

        Raises:
            RefusedError: Something is missing or wrong.
        """
        check_headers(headers, self._api_key, of_messages=_is_of_messages(seen))

    def _headers(self, now: float, seen: SeenRequest) -> dict[str, str]:
        second = math.floor(now)
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        common = {"Content-Type": "application/json", "Date": self._date[1], "Server": "asyncruns-emulator"}
        request_id = self._store.ids.new_request_id()
        if _is_of_messages(seen):
            return {**common, "request-id": request_id}
        return {**common, "openai-version": "2020-10-01", "openai-processing-ms": "25", "x-request-id": request_id}

    def _hint(self, headers: dict[str, str], method: str, body: Body) -> None:
        if self._poll_after_ms is None or method != "GET" or body.get("object") not in _POLLED:
            return
        if body["status"] not in TERMINAL_STATUSES:
            headers["openai-poll-after-ms"] = f"{self._poll_after_ms:g}"


def _is_of_messages(seen: SeenRequest) -> bool:
    """Return whether a request is of Anthropic's wire."""
    return seen.path.startswith(MESSAGES)


def _read(seen: SeenRequest, target: Target) -> Body:
    if target.operation == "create_file":
        return read_form(seen.body, seen.headers.get("content-type", ""))
    return read_body(seen.body)


def _ended_early(events: Iterator[bytes | float], fault: Fault | None) -> StreamBytes:
    """Yield the items of a stream as a fault changes it."""
    if fault is None or fault.stream is None:
        yield from events
        return
    # Times to wait for are passed on, but only events (bytes) count: events=2 ends the stream after the second.
    left = fault.events
    while left > 0 and (event := next(events, None)) is not None:
        yield event
        left -= isinstance(event, bytes)
    if left > 0:
        return
    if fault.stream == "error":
        yield ERROR
    while fault.stream == "silence":  # the server or the transport waits for it until the client leaves
        yield math.inf
    if fault.stream == "break":
        yield None
