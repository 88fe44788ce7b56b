"""`asyncruns show`: print what a server has of one run, response or batch: times, calls, steps, answer, usage, error.

It only reads, once: `asyncruns watch` goes on to the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from asyncruns.cli.advice import advice_on
from asyncruns.cli.batch_servers import connected
from asyncruns.cli.ids import given_ref
from asyncruns.cli.output import complain, plain_object, say_json
from asyncruns.cli.process import run
from asyncruns.cli.show_sheet import print_shown
from asyncruns.cli.shown import ShownRun
from asyncruns.cli.steps import steps_in_output, steps_of_run
from asyncruns.client.client import Client
from asyncruns.errors import APIError
from asyncruns.lifecycle import Phase, RunRef, Snapshot
from asyncruns.transport.retry import RetryTransport
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.names import RESPONSE, THREAD_RUN

_NOT_PASSED: frozenset[str] = frozenset({"expires_at", "archived_at"})  # times that are no step of a life


def main(options: argparse.Namespace) -> int:
    """Print the run, and return the exit code: 0, whatever its status is."""
    ref = given_ref(options.id, options.run_id)
    return run(show_command(options, ref))


async def show_command(options: argparse.Namespace, ref: RunRef) -> int:
    """Fetch the run, print it, and return 0.

    Raises:
        APIError: The server has no such run, or did not answer.
    """
    async with connected(options, {ref.dialect}) as clients:
        shown = await fetch_shown(clients[ref.dialect], ref)
    if options.json:
        say_json(json_sheet(shown))
    else:
        print_shown(shown)
    return 0


async def fetch_shown(client: Client, ref: RunRef) -> ShownRun:
    """Fetch a run with its steps and messages. What only decorates it and can't be fetched is complained of.

    Raises:
        APIError: The run could not be fetched.
    """
    snapshot = await poll_once(client, ref)
    ours, theirs = time.time(), snapshot.server_time
    shown = ShownRun(
        ref=ref,
        snapshot=snapshot,
        times=times_of(snapshot.resource),
        now=ours if theirs is None else theirs,
        clock_offset=None if theirs is None else ours - theirs,
    )
    try:
        if ref.dialect == THREAD_RUN:
            thread_id, run_id = ref.ids
            shown.steps = await steps_of_run(client, thread_id, run_id)
            shown.messages = _said_in(await client.answer(ref))
        elif ref.dialect == RESPONSE:
            shown.steps = steps_in_output(snapshot.resource, {call.id for call in snapshot.calls})
            shown.messages = _said_in(snapshot.resource.messages)
    except APIError as error:  # the run itself is worth more than its details
        complain(str(error))
    ended = snapshot.phase.is_terminal
    unanswered = ", ".join(step.unanswered for step in shown.steps if step.unanswered) if ended else ""
    shown.advice = advice_on(ref, snapshot, now=shown.now, waits=_waits_since(shown), unanswered=unanswered)
    return shown


async def poll_once(client: Client, ref: RunRef) -> Snapshot[Any]:
    """Fetch a run, a response or a batch, and return what the server shows.

    Raises:
        APIError: There is none of this id, or the server did not answer.
    """
    watched = client.for_run(ref)
    request = watched.dialect.poll(ref)
    response = await RetryTransport(watched.transport).send(request)
    if not 200 <= response.status < 300:
        raise watched.dialect.refusal(request, response).cause
    return watched.dialect.read(request, response)


def times_of(resource: Any) -> list[tuple[str, float]]:
    """Return when a run reached its statuses, oldest first: each field whose name ends in `_at`, without that."""
    names = [name for name in resource.__struct_fields__ if name.endswith("_at") and name not in _NOT_PASSED]
    found = [(name.removesuffix("_at"), epoch_seconds(getattr(resource, name))) for name in names]
    return sorted(((name, at) for name, at in found if at is not None), key=lambda pair: pair[1])


def _waits_since(shown: ShownRun) -> float | None:
    begun = [step.created_at for step in shown.steps if step.created_at is not None]
    if shown.snapshot.phase is Phase.NEEDS_CALLER and begun:
        return begun[-1]  # the calls are the last step
    return max([*begun, *(at for _, at in shown.times)], default=None)


def _said_in(messages: Sequence[Any]) -> list[tuple[str, str]]:
    return [(message.role or "assistant", message.text or message.refusal) for message in messages]


def json_sheet(shown: ShownRun) -> dict[str, Any]:
    """Return all of it as plain values."""
    snapshot = shown.snapshot
    return {
        "id": str(shown.ref),
        "kind": shown.ref.dialect,
        "status": snapshot.status,
        "phase": snapshot.phase.value,
        "ended": snapshot.phase.is_terminal,
        "times": dict(shown.times),
        "expires_at": snapshot.expires_at,
        "server_time": snapshot.server_time,
        "clock_offset": None if shown.clock_offset is None else round(shown.clock_offset, 1),
        "seconds": snapshot.elapsed,
        "error": None if snapshot.fault is None else snapshot.fault.to_dict(),
        "calls": [call.to_dict() for call in snapshot.calls],
        "steps": [step.to_dict() for step in shown.steps],
        "messages": [{"role": role, "text": text} for role, text in shown.messages],
        "usage": None if snapshot.usage is None else snapshot.usage.to_dict(),
        "counts": None if snapshot.counts is None else snapshot.counts.to_dict(),
        "advice": shown.advice,
        "object": plain_object(snapshot.resource),
    }
