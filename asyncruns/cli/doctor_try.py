"""`asyncruns doctor --try`: create a run or a response, read it back, cancel it, and delete what was created.

It announces what it will create before, and deletes it also when it fails or is interrupted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from asyncruns.cli.check_report import CheckReport
from asyncruns.cli.doctor_settings import DoctorSettings
from asyncruns.cli.output import complain
from asyncruns.cli.probes import RESPONSES, THREADS, Probe
from asyncruns.client.client import Client
from asyncruns.errors import AsyncRunsError, NotFoundError
from asyncruns.lifecycle import RunRef
from asyncruns.watch.watcher import RunWatcher

_METADATA: Final = {"asyncruns": "doctor"}
_MESSAGE: Final = "Reply with one word."
_WATCH_S: Final = 60.0
_DELETE_S: Final = 10.0


async def try_out(settings: DoctorSettings, report: CheckReport, client: Client, served: set[Probe]) -> None:
    """Try a run, or a response at a server without threads. If it is cancelled, what was created is deleted."""
    options = settings.options
    if THREADS in served:
        made = "a thread and a run" if options.assistant else f"an assistant of {options.model}, a thread and a run"
        work = _try_run
    elif RESPONSES in served:
        made, work = f"a response of {options.model}", _try_response
    else:
        report.note("try", "not tried: neither threads nor responses are served")
        return
    complain(f"--try creates {made} at {settings.base_url}, cancels it, and deletes all; this may cost money")
    async with AsyncExitStack() as stack:
        try:
            await work(settings, report, client, stack)
        except AsyncRunsError as error:
            report.bad("try", str(error), "what the server says, or other --model or --assistant")


async def _try_run(settings: DoctorSettings, report: CheckReport, client: Client, stack: AsyncExitStack) -> None:
    assistant_id = settings.options.assistant
    if assistant_id is None:
        assistant = await client.assistants.create(model=settings.options.model, name="asyncruns doctor")
        assistant_id = assistant.id
        stack.push_async_callback(_delete, report, client.assistants.delete, assistant_id)
    thread = await client.threads.create(messages=[{"role": "user", "content": _MESSAGE}], metadata=_METADATA)
    stack.push_async_callback(_delete, report, client.threads.delete, thread.id)
    created = await client.threads.runs.create(thread.id, assistant_id=assistant_id, metadata=_METADATA)
    report.ok("create", f"the run {thread.id}/{created.id} is {created.status}")
    read = await client.threads.runs.retrieve(created.id, thread_id=thread.id)
    _check_metadata(report, read.metadata)
    page = await client.threads.runs.list(thread.id, limit=10)
    if any(each.id == created.id for each in page.data):
        report.ok("list", "the list of the thread's runs shows it")
    else:
        report.note("list", "the list of the thread's runs does not show it, so a lost create can't be found there")
    await _cancel(report, client, RunRef.of(created))


async def _try_response(settings: DoctorSettings, report: CheckReport, client: Client, stack: AsyncExitStack) -> None:
    created = await client.responses.create(
        model=settings.options.model, input=_MESSAGE, background=True, metadata=_METADATA
    )
    stack.push_async_callback(_delete, report, client.responses.delete, created.id)
    report.ok("create", f"the response {created.id} is {created.status}")
    _check_metadata(report, (await client.responses.retrieve(created.id)).metadata)
    await _cancel(report, client, RunRef.of(created))


def _check_metadata(report: CheckReport, metadata: Any) -> None:
    if metadata and dict(metadata).items() >= _METADATA.items():
        report.ok("metadata", "kept")
    else:
        report.note("metadata", "not kept: adopt= and key= need it, to find what was created when an answer is lost")


async def _cancel(report: CheckReport, client: Client, ref: RunRef) -> None:
    async with RunWatcher(client.for_run(ref), ref, observe_only=True, timeout=_WATCH_S) as watcher:
        await watcher.cancel_run()
        outcome = await watcher.wait()
    text = f"{outcome.status or 'no status'} after {outcome.elapsed:.1f} s and {outcome.polls} polls"
    if outcome.reason is not None:
        report.bad("cancel", f"{text}: {outcome.reason.value}", "cancels of this server can't be relied on")
    elif outcome.cancel_error is not None:
        report.note("cancel", f"{text}; the cancel itself: {outcome.cancel_error}")
    else:
        report.ok("cancel", text)


async def _delete(report: CheckReport, delete: Callable[[str], Awaitable[Any]], id: str) -> None:
    """Delete an object, shielded from cancellation for at most 10 s."""
    with anyio.move_on_after(_DELETE_S, shield=True) as scope:
        try:
            await delete(id)
            report.ok("delete", id)
        except NotFoundError:
            pass  # it is gone
        except AsyncRunsError as error:
            report.bad("delete", str(error), f"delete {id} by yourself")
    if scope.cancelled_caught:
        report.bad("delete", "no answer in time", f"delete {id} by yourself")
