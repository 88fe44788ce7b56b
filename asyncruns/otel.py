"""Traces and metrics of a client, with OpenTelemetry. Needs the extra `asyncruns[otel]`, which is its API only.

    client = Client.from_env(telemetry=OpenTelemetry())

Each watch is a span `invoke_agent` below the span that was current where the watch began. Its children are a span for
each status of the run, for each tool that runs, for each handler and each awaitable that it returns, and for each
submit and cancel. The create of a run by `client.run` or `fleet.run` is a span `asyncruns.create` beside it.

A span is exported when it ends: of a process that ends early, the spans of the earlier statuses are there, and that of
the whole watch is not. A watch that is resumed from a journal links to the span below which it began.

Names are those of the semantic conventions for generative AI, which are in development, as of November 2026
(https://github.com/open-telemetry/semantic-conventions-genai); what has no name there begins with `asyncruns.`. What
models, tools and callers write is left out unless `content=True`. Names of spans, and attributes of metrics, must never
hold what is unbounded: an id, or a word that only a server or a model chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from asyncruns._loop import loop_time
from asyncruns._version import __version__
from asyncruns.abc import Telemetry, WatchTrace
from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import (
    ActionRequired,
    Asked,
    Call,
    ConnectivityChanged,
    Notice,
    Observed,
    OutputsSubmitted,
    Phase,
    Reason,
    Refused,
    RunRef,
    StatusChanged,
)
from asyncruns.watch.outcome import AnyOutcome, Cancelled, Completed, NeedsCaller
from asyncruns.wire.names import BATCH, MESSAGE_BATCH

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _missing:
    raise ConfigurationError("asyncruns.otel needs OpenTelemetry's API: pip install 'asyncruns[otel]'") from _missing

_NAME: Final = "asyncruns"
_AT_WORK: Final = (Phase.PENDING, Phase.RUNNING)
_W3C: Final = TraceContextTextMapPropagator()
_OURS: Final = frozenset({*(reason.value for reason in Reason), "failed", "cancelled", "expired", "incomplete"})
_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
_COUNTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PROVIDERS: Final = ((".azure.com", "azure.ai.openai"), (".anthropic.com", "anthropic"), (".groq.com", "groq"))
_LONGEST: Final = 256  # characters of a word or an id of a server in an attribute
# Codes of errors by which metrics are told apart; a server may have any number of others.
_CODES: Final = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "insufficient_quota",
        "invalid_prompt",
        "context_length_exceeded",
        "content_filter",
        "max_output_tokens",
        "max_completion_tokens",
        "max_prompt_tokens",
        "token_limit_exceeded",
    }
)


class OpenTelemetry(Telemetry):
    """Makes traces and metrics of a client, or of several.

    Metrics, with the attributes `asyncruns.dialect` and those named:

    - `asyncruns.watch.active`: watches that go on, by `asyncruns.phase`
    - `asyncruns.watch.duration`: seconds, by `asyncruns.outcome` and `error.type`
    - `asyncruns.phase.duration`: seconds, by `asyncruns.phase`: how long runs were pending or needed the caller
    - `asyncruns.end.delay`: seconds from the end of a run to its being noticed, estimated: half the pause between polls
    - `asyncruns.watch.polls`: polls of a watch
    - `gen_ai.execute_tool.duration`: seconds, by `gen_ai.tool.name` and `error.type`
    - `asyncruns.request.duration`: seconds of each attempt, by `http.request.method`, `http.response.status_code` and
      `error.type`; its counts have the share of 429s

    Args:
        tracer_provider: Where spans go; by default the global one.
        meter_provider: Where metrics go; by default the global one.
        content: Whether arguments and outputs of calls are in the spans of tools. Default False: they may be secret.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        content: bool = False,
    ) -> None:
        self.tracer: trace.Tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self.content: bool = content
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self.active: metrics.UpDownCounter = meter.create_up_down_counter(
            "asyncruns.watch.active", "{watch}", "Watches that go on"
        )
        self.watched: metrics.Histogram = _seconds(meter, "asyncruns.watch.duration", "Duration of watches")
        self.in_phase: metrics.Histogram = _seconds(meter, "asyncruns.phase.duration", "How long runs were in a phase")
        self.late: metrics.Histogram = _seconds(
            meter, "asyncruns.end.delay", "Estimated time from the end of a run to its being noticed"
        )
        self.polls: metrics.Histogram = meter.create_histogram(
            "asyncruns.watch.polls", "{poll}", "Polls of a watch", explicit_bucket_boundaries_advisory=_COUNTS
        )
        self.tools: metrics.Histogram = _seconds(meter, "gen_ai.execute_tool.duration", "Duration of calls of tools")
        self._requests = _seconds(meter, "asyncruns.request.duration", "Duration of attempts of requests")

    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        """Begin the span of a watch, below the current span."""
        earlier = trace.get_current_span(_W3C.extract({"traceparent": link})).get_span_context() if link else None
        is_parent = earlier is not None and earlier.span_id == trace.get_current_span().get_span_context().span_id
        links = [Link(earlier)] if earlier is not None and earlier.is_valid and not is_parent else []
        attributes = {**_attributes_of_server(server), **_attributes_of_run(ref, run)}
        name = "asyncruns.batch" if ref.dialect in (BATCH, MESSAGE_BATCH) else "invoke_agent"
        span = self.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, links=links)
        return _Trace(self, span, ref.dialect)

    @contextmanager
    def creating(self, dialect: str, server: str) -> Iterator[Callable[[object], None]]:
        """Make a span of a create, below the current span; spans of its requests are below it."""
        attributes = {**_attributes_of_server(server), "asyncruns.dialect": dialect}
        with _child(self.tracer, "asyncruns.create", None, SpanKind.CLIENT, attributes, []) as span:
            yield lambda run: span.set_attributes(_attributes_of_run(None, run))

    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        """Record how long an attempt of a request took, and what its answer was."""
        attributes: dict[str, Any] = {"http.request.method": request.method}
        if isinstance(answer, Response):
            attributes["http.response.status_code"] = answer.status
        if isinstance(answer, Exception):
            attributes["error.type"] = type(answer).__name__
        elif answer is not None and answer.status >= 400:
            attributes["error.type"] = str(answer.status)
        self._requests.record(seconds, attributes)


class _Trace(WatchTrace):
    """The span of one watch, and its children."""

    __slots__ = ("_began", "_context", "_dialect", "_of", "_phase", "_seen_at_work", "_since", "_span", "_status_span")

    def __init__(self, of: OpenTelemetry, span: Span, dialect: str) -> None:
        self._of = of
        self._span = span
        self._dialect = dialect
        self._context = trace.set_span_in_context(span)
        self._began = self._since = loop_time()
        self._phase = Phase.UNKNOWN.value  # until a poll has shown it
        self._status_span: Span | None = None
        self._seen_at_work: float | None = None  # when the last poll was sent that showed the run at work
        self._count(1)

    def notice(self, notice: Notice) -> None:
        match notice:
            case StatusChanged():
                self._change_status(notice)
                self._span.set_attributes(_attributes_of_run(None, notice.run))
            case ActionRequired(calls=calls):
                self._span.add_event("asyncruns.round", {"asyncruns.calls": len(calls)})
            case OutputsSubmitted(outputs=outputs):
                self._span.add_event("asyncruns.submitted", {"asyncruns.calls": len(outputs)})
            case ConnectivityChanged(connectivity=connectivity):
                self._span.add_event("asyncruns.connectivity", {"asyncruns.connectivity": connectivity.value})
            case _:
                pass

    def polled(self, event: Observed | Refused) -> None:
        if isinstance(event, Refused):
            self._span.add_event("asyncruns.poll_failed", {"asyncruns.refusal": event.refusal.kind.value})
            return
        asked_at, last = event.now if event.asked_at is None else event.asked_at, self._seen_at_work
        self._see(event)
        if event.snapshot.phase.is_terminal and last is not None:
            late = (asked_at - last) / 2
            self._of.late.record(late, self._kind)
            self._span.set_attribute("asyncruns.end.delay", late)

    def _see(self, event: Observed) -> None:
        asked_at = event.now if event.asked_at is None else event.asked_at
        self._seen_at_work = asked_at if event.snapshot.phase in _AT_WORK else None

    @contextmanager
    def calling(self, calls: Sequence[Call], handler: str = "") -> Iterator[Callable[[str, bool], None]]:
        names = [call.name for call in calls]
        attributes: dict[str, Any] = {"asyncruns.handler": handler, "asyncruns.calls": len(calls)}
        if not handler:
            attributes = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": names[0],
                "gen_ai.tool.call.id": calls[0].id,
                "gen_ai.tool.type": "function",
            }
            if self._of.content:
                attributes["gen_ai.tool.call.arguments"] = _storable(calls[0].arguments)
        failed: list[str] = []

        def note(output: str, is_error: bool) -> None:
            if self._of.content and not handler:
                span.set_attribute("gen_ai.tool.call.result", _storable(output))
            if is_error:
                failed.append("handler_error" if handler else "tool_error")

        began, name = loop_time(), handler or f"execute_tool {names[0]}"
        try:
            with _child(self._of.tracer, name, self._context, SpanKind.INTERNAL, attributes, failed) as span:
                yield note
        finally:
            if not handler:
                measured = {"gen_ai.tool.name": names[0], **_error(failed)}
                self._of.tools.record(loop_time() - began, measured)

    @contextmanager
    def sending(self, asked: Asked) -> Iterator[Callable[[Observed | Refused], None]]:
        failed: list[str] = []

        def note(event: Observed | Refused) -> None:
            if isinstance(event, Refused):
                failed.append(event.refusal.kind.value)
            else:
                self._see(event)

        with _child(self._of.tracer, f"asyncruns.{asked.value}", self._context, SpanKind.CLIENT, {}, failed):
            yield note

    def ended(self, outcome: AnyOutcome[Any] | None) -> None:
        self._end_status()
        self._count(-1)
        failed = _why(outcome)
        kind = "left" if outcome is None else type(outcome).__name__
        measured = {**self._kind, "asyncruns.outcome": kind, **_error([_bounded(why) for why in failed])}
        self._of.watched.record(loop_time() - self._began, measured)
        self._span.set_attribute("asyncruns.outcome", kind)
        if outcome is not None:
            self._of.polls.record(outcome.polls, self._kind)
            self._span.set_attributes(_attributes_of_outcome(outcome))
        _fail(self._span, failed)
        self._span.end()

    # Parts

    @property
    def _kind(self) -> dict[str, str]:
        return {"asyncruns.dialect": self._dialect}

    def _change_status(self, change: StatusChanged[Any]) -> None:
        if self._status_span is not None:  # a phase that goes on after the watch is not measured
            self._of.in_phase.record(loop_time() - self._since, {**self._kind, "asyncruns.phase": self._phase})
        self._end_status()
        self._count(-1)
        self._phase, self._since = change.phase.value, loop_time()
        self._count(1)
        attributes = {"asyncruns.status": _short(change.status)}
        self._span.add_event("asyncruns.status", attributes)
        if not change.phase.is_terminal:
            self._status_span = self._of.tracer.start_span(
                f"asyncruns.{self._phase}", self._context, SpanKind.INTERNAL, attributes
            )

    def _end_status(self) -> None:
        if self._status_span is not None:
            self._status_span.end()
            self._status_span = None

    def _count(self, change: int) -> None:
        self._of.active.add(change, {**self._kind, "asyncruns.phase": self._phase})


def _seconds(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS)


@contextmanager
def _child(
    tracer: trace.Tracer,
    name: str,
    parent: Context | None,
    kind: SpanKind,
    attributes: Mapping[str, Any],
    failed: list[str],
) -> Iterator[Span]:
    """Make a span that is the current one, and ends with the block; the words in `failed` say why that failed."""
    span = tracer.start_span(name, parent, kind, attributes)
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span
    except BaseException as error:
        failed.append(type(error).__name__)
        raise
    finally:
        _fail(span, failed)
        span.end()


def _fail(span: Span, failed: Sequence[str]) -> None:
    if failed:
        span.set_attribute("error.type", _short(failed[0]))
        span.set_status(StatusCode.ERROR)


def _error(failed: Sequence[str]) -> dict[str, str]:
    return {"error.type": failed[0]} if failed else {}


def _why(outcome: AnyOutcome[Any] | None) -> list[str]:
    """Return why a run did not complete, in a word; nothing if it did, or as the caller wanted."""
    if outcome is None or isinstance(outcome, Completed | NeedsCaller):
        return []
    if isinstance(outcome, Cancelled) and outcome.cancel_requested:
        return []
    if outcome.reason is not None:
        return [outcome.reason.value]
    code = None if outcome.error is None else outcome.error.code
    return [code or type(outcome).__name__.lower()]


def _bounded(why: str) -> str:
    """Return a reason for metrics: one that the server chose is "_OTHER", unless it is well known."""
    return why if why in _OURS or why in _CODES else "_OTHER"


def _short(word: str) -> str:
    return _storable(word[:_LONGEST])


def _storable(text: str) -> str:
    """Return a text that exporters can encode: half of a surrogate pair would cost a whole export."""
    return text.encode("utf-8", "replace").decode()


def _attributes_of_server(server: str) -> dict[str, Any]:
    url = urlsplit(server)
    host = url.hostname or ""
    provider = next((name for end, name in _PROVIDERS if f".{host}".endswith(end)), "openai")
    attributes: dict[str, Any] = {"gen_ai.provider.name": provider}
    if host:
        attributes["server.address"] = host
        attributes["server.port"] = url.port or (443 if url.scheme == "https" else 80)
    return attributes


def _attributes_of_run(ref: RunRef | None, run: object) -> dict[str, Any]:
    found: dict[str, Any] = {
        "gen_ai.agent.id": getattr(run, "assistant_id", None),
        "gen_ai.request.model": getattr(run, "model", None),
        "gen_ai.conversation.id": getattr(run, "thread_id", None),
    }
    if ref is not None:
        found["asyncruns.dialect"] = ref.dialect
        if ref.dialect not in (BATCH, MESSAGE_BATCH):
            found["gen_ai.operation.name"] = "invoke_agent"
        if ref.ids:
            found["asyncruns.run.id"] = ref.ids[-1]
        if len(ref.ids) > 1:
            found["gen_ai.conversation.id"] = ref.ids[0]
    return {name: _short(value) for name, value in found.items() if isinstance(value, str) and value}


def _attributes_of_outcome(outcome: AnyOutcome[Any]) -> dict[str, Any]:
    usage = outcome.usage
    return {
        **_attributes_of_run(None, outcome.run),
        "asyncruns.status": _short(outcome.status),
        "asyncruns.polls": outcome.polls,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "asyncruns.runs": [ref.ids[-1] for ref in outcome.refs],
    }
