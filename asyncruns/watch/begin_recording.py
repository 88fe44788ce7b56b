"""How the recording of a watch begins: anew, for a run that is to be created, with a token, or with what was left.

Nothing here may begin a call or send a request: it only decides whether this process records a watch, and from where.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from asyncruns._loop import wall_time
from asyncruns.abc import Journal
from asyncruns.errors import InvalidRequestError, JournalError, NotOwnerError
from asyncruns.journal.memory import MemoryJournal
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import WatchRecord, key_of_run, ref_of
from asyncruns.tools import Toolset
from asyncruns.watch.handover import Token
from asyncruns.watch.holders import hold, holder_of, let_go
from asyncruns.watch.logs import WATCH_LOG, log_unwritten
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.traces import current_traceparent
from asyncruns.wire.plain import is_plain
from asyncruns.wire.shown_text import on_one_line


def checked_journal(journal: Journal | None) -> Journal | None:
    """Return what a caller gave as a journal.

    Raises:
        InvalidRequestError: It is none.
    """
    if journal is None or isinstance(journal, Journal):
        return journal
    raise InvalidRequestError(f"journal must be a Journal, such as SQLiteJournal(path); got {type(journal).__name__}")


def check_label(label: object) -> None:
    """Check that a label can be written into a journal.

    Raises:
        InvalidRequestError: It is no plain JSON value.
    """
    if not is_plain(label):
        raise InvalidRequestError(
            "label must be a plain JSON value when there is a journal, which writes it down; got a "
            f"{type(label).__name__}"
        )
    try:
        msgspec.json.encode(label)
    except Exception as error:  # half of a surrogate pair, or an integer of more than 64 bits
        raise InvalidRequestError(
            f"label must be a plain JSON value when there is a journal, which writes it down: {error}"
        ) from error


async def begin_to_record(
    journal: Journal, record: WatchRecord, settle: Callable[[WatchRecorder], object]
) -> WatchRecorder:
    """Add a single watch of a run to a journal, and return what records it; or go on with one that was left there.

    Safe to cancel: `settle` is called then, to leave what may have been written to `resume`.

    Raises:
        JournalError: It could not be written.
        NotOwnerError: Another process, or another watch, watches the run.
    """
    recorder = WatchRecorder(journal, record)
    try:
        await _until_left(journal, recorder.key)
        hold(journal, recorder.key, recorder)
        try:
            await recorder.add()
        except asyncio.CancelledError:
            settle(recorder)
            raise
        except BaseException:
            let_go(journal, recorder.key, recorder)
            raise
    except NotOwnerError as error:
        left = await _left_watch(journal, record, error)
        if left is None:
            raise unwatched(ref_of(record), error) from error
        return left
    except JournalError as error:
        raise unwatched(ref_of(record), error) from error
    return recorder


async def _left_watch(journal: Journal, record: WatchRecord, error: NotOwnerError) -> WatchRecorder | None:
    """Return what records the watch of a run that no process goes on with; None if one does, or the run has moved."""
    for recorder in await claim_to_record(journal, [error.watch or record.key]):
        if recorder.record.ref == record.ref:
            return recorder
        await recorder.settled(None, None)
    return None


async def claim_to_record(journal: Journal, keys: Sequence[str] | None = None) -> list[WatchRecorder]:
    """Own watches that no living process owns, and return what records each; all of them, or those with these keys.

    Those that something in this process watches already are left to that. Safe to cancel: none is owned then.

    Raises:
        JournalError: The journal could not be read or written.
    """
    try:
        records = await journal.claim(keys)
    except JournalError:
        raise
    except Exception as error:
        raise JournalError(f"The journal raised a {type(error).__name__}: {error}") from error
    recorders = [WatchRecorder(journal, record) for record in records if holder_of(journal, record.key) is None]
    for recorder in recorders:
        hold(journal, recorder.key, recorder)
    return recorders


async def check_is_free(journal: Journal, token: Token, tools: Toolset | None) -> WatchRecord:
    """Return what a token has of a watch that could not be claimed, if the journal does not have it any more.

    Raises:
        NotOwnerError: A living process has the watch, or it was delivered or forgotten.
        JournalError: The journal could not be read.
    """
    found = next((record for record in await journal.read() if record.key == token.key), None)
    if found is not None:
        owner = on_one_line(found.owner or "another process")
        raise NotOwnerError(
            f"The watch of {token.ref} goes on in {owner}: it can be claimed when that process has left it, or ended"
        )
    if token.record is None:
        raise NotOwnerError(
            f"The watch of {token.ref} is not in this journal: its outcome was delivered, or it was forgotten, or this "
            "is not the journal of the token"
        )
    return begun_now(token.record, tools)


async def go_on_to_record(
    journal: Journal | None, token: Token, tools: Toolset | None, settle: Callable[[WatchRecorder], object]
) -> WatchRecorder:
    """Go on with a single watch from a token, and return what records it. Safe to cancel, as `begin_to_record` is.

    Raises:
        JournalError: The journal could not be read or written.
        NotOwnerError: Another process, or another watch, watches the run; or it was delivered or forgotten.
    """
    if journal is None:
        return await record_privately(begun_now(token.record or record_of(token.ref, None)))
    if not token.key and token.record is not None:
        return await begin_to_record(journal, begun_now(token.record, tools), settle)
    await _until_left(journal, token.key)
    claimed = await claim_to_record(journal, [token.key])
    if claimed:
        return claimed[0]
    return await begin_to_record(journal, await check_is_free(journal, token, tools), settle)


async def _until_left(journal: Journal, key: str) -> None:
    """Wait until it is written that a single watch was left, if that goes on in this process. Safe to cancel."""
    holder = holder_of(journal, key)
    if isinstance(holder, WatchRecorder) and holder.settling is not None:
        await asyncio.wait({holder.settling})


async def record_privately(record: WatchRecord) -> WatchRecorder:
    """Return what records a watch that goes on from a token in memory, without a journal."""
    journal = MemoryJournal()
    await journal.open()
    await journal.add([record])
    return WatchRecorder(journal, record, is_private=True)


def begun_now(record: WatchRecord, tools: Toolset | None = None) -> WatchRecord:
    """Return the record of a watch that begins now, in the trace of the caller, perhaps with these tools."""
    toolset = record.toolset or _name_of(tools)
    return replace(record, created_at=wall_time(), traceparent=current_traceparent(), toolset=toolset)


async def begin_as_created(recorder: WatchRecorder) -> None:
    """Write which run was created, before its watch begins; without that, no tool of it begins. Safe to cancel.

    Raises:
        NotOwnerError: The run has another watch, or another process has this one.
    """
    ref = ref_of(recorder.record)
    try:
        await recorder.named()
    except NotOwnerError as error:
        await recorder.abandon()
        raise unwatched(ref, error) from error
    except JournalError as error:
        log_unwritten(WATCH_LOG, ref, "which run was created", error)


def unwatched(ref: RunRef, error: JournalError) -> JournalError:
    """Return the error for a run that exists, and whose watch a journal does not take."""
    return type(error)(f"The run {ref} goes on, and is not watched, as it is not in the journal: {error}")


def recorder_of_create(
    journal: Journal, creating: dict[str, Any], label: object, tools: Toolset | None
) -> WatchRecorder:
    """Return what records the watch of a single run that is to be created; it is still to be added."""
    recorder = WatchRecorder(journal, asked_for(creating, label, tools))
    hold(journal, recorder.key, recorder)
    return recorder


def asked_for(creating: dict[str, Any], label: object, tools: Toolset | None) -> WatchRecord:
    """Return what a journal holds of a watch whose run is to be created; its key finds the run, too."""
    return begun_now(
        WatchRecord(key=uuid.uuid4().hex, ref=None, label=label, toolset=_name_of(tools), creating=creating)
    )


def record_of(ref: RunRef, label: object, tools: Toolset | None = None) -> WatchRecord:
    """Return what a journal holds of a watch that begins."""
    return begun_now(WatchRecord(key=key_of_run(ref), ref=ref, refs=(ref,), label=label, toolset=_name_of(tools)))


def with_its_tools(record: WatchRecord, given: Toolset | None, others: Iterable[Toolset]) -> Toolset | None:
    """Return the toolset that a watch names; what is given for all if it names none.

    Raises:
        InvalidRequestError: It names another one than these.
    """
    if not record.toolset:
        return given
    for toolset in (*others, *([] if given is None else [given])):
        if toolset.name == record.toolset:
            return toolset
    raise InvalidRequestError(
        f"Its calls are answered by the toolset {record.toolset!r}, which is not here: pass it as "
        f"resume(toolsets=[Toolset(..., name={record.toolset!r})])"
    )


def _name_of(tools: Toolset | None) -> str:
    return "" if tools is None else tools.name
