"""Prints what `asyncruns show` has found, for people. Long texts are cut; `--json` has all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from asyncruns.cli.advice import MEANINGS, clock_words
from asyncruns.cli.batch_board import progress_text
from asyncruns.cli.output import MOST_SHOWN, shortened
from asyncruns.cli.sheet import Sheet
from asyncruns.cli.shown import ShownRun
from asyncruns.cli.steps import StepShown
from asyncruns.cli.times import local_time, relative, span
from asyncruns.lifecycle import Call, CallKind, Phase, TokenUsage
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN

_KINDS: Final = {THREAD_RUN: "run", RESPONSE: RESPONSE, BATCH: BATCH, MESSAGE_BATCH: "message batch"}
_LABEL_WIDTH: Final = 10
_SHOWN_CHARACTERS: Final = 160  # of arguments, of an output
_SHOWN_CALLS: Final = 40  # of a step, and of those that wait
_SHOWN_STEPS: Final = 40
STATUS_STYLES: Final = {
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.EXPIRED: "magenta",
    Phase.CANCELLED: "yellow",
    Phase.CANCELLING: "yellow",
    Phase.INCOMPLETE: "yellow",
    Phase.NEEDS_CALLER: "bold cyan",
    Phase.UNKNOWN: "red",
}

_Row = tuple[str, str]


def print_shown(shown: ShownRun, sheet: Sheet | None = None) -> None:
    """Print a run, a response or a batch."""
    sheet = Sheet(_LABEL_WIDTH) if sheet is None else sheet
    snapshot = shown.snapshot
    sheet.title(f"{_KINDS.get(shown.ref.dialect, shown.ref.dialect)} {shown.ref}")
    style = STATUS_STYLES.get(snapshot.phase, "")
    sheet.row("status", f"{snapshot.status}: {MEANINGS[snapshot.phase]}", style=style)
    for label, text in (*_facts(shown), *_times(shown), *_work(shown)):
        sheet.row(label, text)
    for role, text in shown.messages:
        sheet.row(role, "" if text else "(no text)")
        sheet.block(_cut(text))
    for label, text in _ends(shown):
        sheet.row(label, text, style="red" if label == "error" else "")
    for place, text in enumerate(shown.advice):
        sheet.row("" if place else "to do", text, style="bold")


def _facts(shown: ShownRun) -> Iterator[_Row]:
    run: Any = shown.snapshot.resource
    for name in ("assistant_id", "model", "endpoint"):
        if value := getattr(run, name, None):
            yield name.removesuffix("_id"), str(value)


def _times(shown: ShownRun) -> Iterator[_Row]:
    created = shown.snapshot.created_at
    for name, at in shown.times:
        if at == created and name == "created":
            yield name, f"{local_time(at)}, {relative(at - shown.now)}"
        else:
            after = "" if created is None else f", {span(at - created)} after its creation"
            yield name.replace("_", " "), f"{local_time(at)}{after}"
    expires = shown.snapshot.expires_at
    if expires is not None and not shown.snapshot.phase.is_terminal:
        yield "expires", f"{local_time(expires)}, {relative(expires - shown.now)}"


def _work(shown: ShownRun) -> Iterator[_Row]:
    for step in shown.steps[-_SHOWN_STEPS:]:
        yield "step", _step_text(step, shown.snapshot.created_at)
        if not (step.unanswered and shown.snapshot.calls):  # these are shown below, with their ids
            yield from (("", text) for text in _some([shortened(call, _SHOWN_CHARACTERS) for call in step.calls]))
    if (hidden := len(shown.steps) - _SHOWN_STEPS) > 0:
        yield "", f"and {hidden} earlier steps: --json shows them"
    yield from (("open call", text) for text in _some([_call_text(call) for call in shown.snapshot.calls]))


def _step_text(step: StepShown, created: float | None) -> str:
    parts = [" ".join(part for part in (step.kind, step.status) if part)]
    if step.created_at is not None and created is not None:
        parts.append(f"begun {span(step.created_at - created)} after the creation")
    if step.created_at is not None and step.ended_at is not None:
        parts.append(f"took {span(step.ended_at - step.created_at)}")
    return ", ".join(parts)


def _call_text(call: Call) -> str:
    arguments = shortened(call.arguments, _SHOWN_CHARACTERS)
    what = f"{call.name}({arguments})" if call.name else f"{call.type} {arguments}"
    kinds = {CallKind.APPROVAL: ", an approval", CallKind.SERVER: ", answered by the server"}
    return f"{call.id}: {what}{kinds.get(call.kind, '')}"


def _ends(shown: ShownRun) -> Iterator[_Row]:
    snapshot = shown.snapshot
    if snapshot.counts is not None:
        yield "requests", progress_text(snapshot.counts)
    if snapshot.usage is not None:
        yield "tokens", _usage_text(snapshot.usage)
    if snapshot.fault is not None and (snapshot.fault.code or snapshot.fault.message):
        yield "error", ": ".join(part for part in (snapshot.fault.code, snapshot.fault.message) if part)
    if words := clock_words(shown.clock_offset):
        yield "clock", f"{words}; the times above are the server's. `asyncruns doctor` says more"


def _usage_text(usage: TokenUsage) -> str:
    cached = f" ({usage.cached_tokens} from a cache)" if usage.cached_tokens else ""
    thought = f" ({usage.reasoning_tokens} of reasoning)" if usage.reasoning_tokens else ""
    return f"{usage.input_tokens} read{cached}, {usage.output_tokens} written{thought}, {usage.total_tokens} in all"


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text) - MOST_SHOWN} more: --json)"


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - _SHOWN_CALLS
    return list(texts) if more <= 0 else [*texts[:_SHOWN_CALLS], f"and {more} more: --json shows them"]
