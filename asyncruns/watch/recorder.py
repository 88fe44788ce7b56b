"""Writes down in a journal what one watch must not lose: which calls begin, their outputs, and each submit.

What is not written is not done: no tool runs, and no outputs are sent, before the journal has it. It must never raise
what a journal raised, other than a JournalError, and never decide what becomes of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Any, Final

import anyio
from msgspec.structs import replace

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import Journal
from asyncruns.errors import APIConnectionError, JournalError, NotOwnerError
from asyncruns.lifecycle import (
    Answers,
    Asked,
    Call,
    End,
    Observed,
    Reason,
    Refusal,
    RefusalKind,
    Refused,
    RunLifecycle,
    RunRef,
)
from asyncruns.lifecycle.ledger import SUBMIT_LAG_S, OpenRound
from asyncruns.lifecycle.records import CANCEL_STEP, CallRecord, WatchRecord, Wish, key_of_call, ref_of
from asyncruns.watch.handover import HandedOver, handed_over
from asyncruns.watch.holders import let_go
from asyncruns.watch.logs import WATCH_LOG, log_unwritten
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller

RETRY_PAUSES_S: Final = (0.1, 0.5, 2.0, 5.0)  # before a write that failed is tried again; the last one repeats
CANCEL_WAITS_S: Final = 1.0  # for a journal, before the cancel is sent: its caller may wait for 5 s only
LOST: Final = "The process ended while the outputs were being submitted, so it is not known if they were accepted"


class WatchRecorder:
    """Writes down what happens to one watch.

    Args:
        journal: The journal.
        record: The watch, as it is there or is to be added.
        added: Waits until the journal has the watch; None if it has it already.
        is_private: Whether the journal is in memory, only for this watch, which goes on from a token.

    Attributes:
        record: The argument of the same name, as is `is_private`.
        is_forgotten: Whether the journal forgets the watch, so that nothing more is written.
        is_left: Whether the journal keeps the watch although it has finished: its run is still to be created.
        on_wish: Called with what is asked of a single watch, as for `grant`.
        is_cancel_asked: Whether a cancel was asked for before the watch begins: of an earlier watch, which did not see
            the run end, or by another process.
        settling: Writes that a single watch was left, in the background; None until then.
        refused: Why a fleet could not add the watch at the last try; None if it could.
    """

    __slots__ = (
        "_added",
        "_being_written",
        "_calls_left",
        "_claimed",
        "_is_unsent",
        "_journal",
        "_lost",
        "_moved_to",
        "_to_submit",
        "_written",
        "is_cancel_asked",
        "is_forgotten",
        "is_left",
        "is_private",
        "on_wish",
        "record",
        "refused",
        "settling",
    )

    def __init__(
        self,
        journal: Journal,
        record: WatchRecord,
        added: Callable[[WatchRecorder], Awaitable[object]] | None = None,
        *,
        is_private: bool = False,
    ) -> None:
        self._journal = journal
        self.is_private: bool = is_private
        self._added = added
        self._to_submit: dict[str, tuple[Call, str]] = {}
        self._moved_to: tuple[RunRef, float] | None = None  # what was accepted or created, and is not written yet
        self._is_unsent = False  # whether the caller was cancelled while it was written that a create would be sent
        self.is_forgotten: bool = False
        self.is_left: bool = False
        self.on_wish: Callable[[Wish, str | RunRef], bool] | None = None
        self.is_cancel_asked: bool = False
        self.settling: asyncio.Future[None] | None = None
        self.refused: JournalError | None = None
        self.go_on_from(record)

    def go_on_from(self, record: WatchRecord) -> None:
        """Go on from what the journal has of the watch."""
        self.record: WatchRecord = record
        self._lost = record.submitting
        self.is_cancel_asked = self.is_cancel_asked or record.submitting == CANCEL_STEP
        self._calls_left = keys_left_open(record.outcome)
        self._claimed = {call.key: call for call in record.calls}  # begun before this watch, until the next submit
        self._written = {call.key for call in record.calls if call.output is not None}
        self._being_written: set[str] = set()

    @property
    def key(self) -> str:
        """What identifies the watch in the journal."""
        return self.record.key

    def has_outputs_beyond(self, round_: OpenRound) -> bool:
        """Return whether the watch goes on from a token with outputs to submit for other calls than those answered."""
        answered = {key_of_call(call) for call, _ in round_.answers}
        to_submit = (key for key, call in self._claimed.items() if call.output is not None and not call.accepted_at)
        return self.is_private and any(key not in answered for key in to_submit)

    def grant(self, wish: Wish, run: str | RunRef) -> bool:
        """Do what is asked of a single watch, once it is entered; return False if it does not watch this run."""
        if self.on_wish is not None:
            return self.on_wish(wish, run)
        if isinstance(run, RunRef) and run not in self.record.refs:
            return False
        self.is_cancel_asked = self.is_cancel_asked or wish is Wish.CANCEL  # it begins with a poll anyway
        return True

    def handed_over(self, machine: RunLifecycle, end: End | None) -> HandedOver:
        """Return what a token of the watch needs to know; `end` is how it finished, if it has."""
        before = tuple(self._claimed.values()), self._lost
        return handed_over("" if self.is_private else self.key, machine, end, before)

    async def add(self) -> None:
        """Add the watch to the journal. Safe to cancel.

        Raises:
            JournalError: It could not be written.
            NotOwnerError: Another process watches the run.
        """
        (record,) = await self._write(lambda: self._journal.add([self.record]))
        if record.ref != self.record.ref:
            await self._try(lambda: self._journal.release([self.key]), "that a watch is not gone on with")
            raise gone_on_as(ref_of(self.record), ref_of(record))
        self.go_on_from(record)

    async def will_create(self, *step: str) -> None:
        """Note that the run is about to be created: nothing may be sent before. Safe to cancel.

        Args:
            *step: "create"; or "thread" and the id of a thread that was created for it.

        Raises:
            JournalError: It could not be written.
            NotOwnerError: The watch is forgotten, or another process has it.
        """
        self._is_unsent = step == ("create",) and self._lost != step
        await self._write(lambda: self._journal.submitting(self.key, step))
        self._is_unsent = False

    def created(self, ref: RunRef) -> None:
        """Note which run was created; `named` writes it, as does what is written next."""
        self.record = replace(self.record, ref=ref, refs=(ref,), creating=None, submitting=())
        self._lost = ()
        self._moved_to = ref, wall_time()

    async def named(self) -> None:
        """Write which run was created, unless that is written. Safe to cancel.

        Raises:
            JournalError: It could not be written.
            NotOwnerError: The run has another watch, or another process has this one.
        """
        if not self.is_forgotten:
            await self._write_move()

    async def begin(self, calls: Iterable[Call], max_outage: float | None = 0.0) -> Mapping[str, CallRecord]:
        """Note that calls begin; return those that had begun before this watch did, by their keys.

        A call of this watch may have the same key as one of an earlier round, and is another call.

        Safe to cancel; the calls have then begun or not.

        Args:
            calls: The calls.
            max_outage: Seconds for which this is tried again if it fails; None is no limit.

        Raises:
            NotOwnerError: Another process watches the run now. None of the calls may be run.
            JournalError: It could not be written, for another reason. None of the calls may be run.
        """
        keys = {key_of_call(call): call.id for call in calls}
        claimed = {key: record for key in keys if (record := self._claimed_call(key)) is not None}
        over = {key for key, record in claimed.items() if record.accepted_at}  # `begin` would take it for a new call
        records = [CallRecord(key=key, call_id=id_) for key, id_ in keys.items() if key not in over]

        async def begin() -> list[CallRecord]:
            await self._write_move()
            return await self._journal.begin(self.key, records)

        begun = await self._write_patiently(begin, max_outage)
        before = {record.key: record for record in begun if record.key in claimed}
        return before | {key: claimed[key] for key in over}

    def has(self, call: Call) -> bool:
        """Return whether this call had begun before the watch was resumed."""
        return self._claimed_call(key_of_call(call)) is not None

    def _claimed_call(self, key: str) -> CallRecord | None:
        """Return the call that had begun under this key, unless its output was accepted a while ago.

        Then the server asks for another call, with the same id; before that, a poll may be older than the submit.
        """
        record = self._claimed.get(key)
        if record is not None and record.accepted_at and wall_time() >= record.accepted_at + SUBMIT_LAG_S:
            return None
        return record

    def was_left(self, call: Call) -> bool:
        """Return whether the watch had finished because it needed its caller for this call, before it was resumed."""
        return key_of_call(call) in self._calls_left

    async def answered(self, answers: Answers, *, failed: bool) -> None:
        """Record the outputs of calls. A failure is logged: the outputs are sent nevertheless. Safe to cancel."""
        await self._record([_record_of(call, output, failed=failed) for call, output in answers])

    def will_submit(self, answers: Answers) -> None:
        """Note which outputs the next submit has."""
        self._to_submit = {key_of_call(call): (call, output) for call, output in answers}

    async def change(
        self, asked: Asked, send: Callable[[], Awaitable[Observed | Refused]], *, may_be_lost: bool
    ) -> Observed | Refused:
        """Write that outputs are about to be submitted, or the run cancelled, send that, and return what became of it.

        Safe to cancel: it is then written that this was about to happen, or nothing.

        Args:
            asked: What is sent: a submit or a cancel.
            send: Sends the request.
            may_be_lost: Whether no poll can show that these outputs were accepted before the watch was resumed.
        """
        if asked is Asked.CANCEL:
            return await self._cancel(send)
        return await self._submit(send, may_be_lost=may_be_lost)

    async def _cancel(self, send: Callable[[], Awaitable[Observed | Refused]]) -> Observed | Refused:
        """Write that the run is to be cancelled, so that `resume` does that; it is sent although that fails."""
        if not self.is_forgotten:
            with anyio.move_on_after(CANCEL_WAITS_S):
                cancelling = self._journal.submitting
                await self._try(lambda: cancelling(self.key, CANCEL_STEP), "that a run is to be cancelled")
        return await send()

    async def _submit(
        self, send: Callable[[], Awaitable[Observed | Refused]], *, may_be_lost: bool
    ) -> Observed | Refused:
        if self.is_forgotten:  # the caller has left, and a pending submit is sent all the same
            return await send()
        lost, self._lost = self._lost, ()
        if may_be_lost and set(lost) & set(self._to_submit):
            cause = APIConnectionError(LOST, sent=True)
            return Refused(loop_time(), Refusal(kind=RefusalKind.LOST, cause=cause), Asked.SUBMIT)
        try:
            await self._write_move()
            await self._record(self._outputs_but(self._written | self._being_written))
            await self._write(lambda: self._journal.submitting(self.key, tuple(self._to_submit)))
            await self._record(self._outputs_but(self._written))  # what was being written, and could not be
        except JournalError as error:
            return refused_by(error, Asked.SUBMIT)
        event = await send()
        if isinstance(event, Observed):
            self._claimed, self._written = {}, set()
            self._moved_to = event.snapshot.ref or ref_of(self.record), wall_time()
            await self._try(self._write_move, "that a submit was accepted")
        elif not event.refusal.kind.may_have_acted:
            await self._try(lambda: self._journal.submitting(self.key, ()), "that a submit was refused")
        return event

    async def delivered(self, outcome: AnyOutcome[Any]) -> None:
        """Forget the watch, since its outcome was delivered; one that needs its caller is kept. Safe to cancel."""
        if may_be_forgotten(outcome) and not self.is_forgotten:
            self.is_forgotten = True
            await self._try(lambda: self._journal.delivered([self.key]), "that an outcome was delivered")

    async def _write_move(self) -> None:
        """Write that the last submit was accepted, or the run created: nothing may begin before that is written."""
        if (moved := self._moved_to) is not None:
            await self._write(lambda: self._journal.moved(self.key, *moved))
            self._moved_to = None

    async def settled(self, delivered: AnyOutcome[Any] | None, outcome: AnyOutcome[Any] | None) -> None:
        """Note that a single watch was left: forget it, or leave it to `resume`, with its outcome if there is one.

        Args:
            delivered: The outcome that its caller has; None for none.
            outcome: How it finished; None if it did not.
        """
        try:
            if delivered is not None:
                await self.delivered(delivered)
            if not self.is_forgotten:
                with contextlib.suppress(NotOwnerError):
                    await self._write_move()  # first, as that forgets an outcome
            if not self.is_forgotten and self._is_unsent:
                await self._try(lambda: self._journal.submitting(self.key, ()), "that a create was not sent")
            if not self.is_forgotten and outcome is not None and outcome.reason is not Reason.TAKEN_OVER:
                await self._try(lambda: self._journal.finished({self.key: outcome.to_dict()}), "an outcome")
            if not self.is_forgotten:
                with contextlib.suppress(NotOwnerError):
                    await self._write(lambda: self._journal.release([self.key]))
        except JournalError as error:
            log_unwritten(WATCH_LOG, ref_of(self.record), "that a watch was left", error)
        finally:
            let_go(self._journal, self.key, self)

    def _outputs_but(self, keys: Set[str]) -> list[CallRecord]:
        """Return the outputs of the next submit, without those of these calls."""
        return [_record_of(*self._to_submit[key]) for key in self._to_submit.keys() - keys]

    async def _record(self, outputs: list[CallRecord]) -> None:
        if not outputs:
            return
        keys = {output.key for output in outputs}
        self._being_written |= keys
        try:
            if await self._try(lambda: self._journal.answered(self.key, outputs), "the outputs of calls"):
                self._written |= keys
        finally:
            self._being_written -= keys

    async def abandon(self) -> None:
        """Forget the watch, whose run was not created, or has another watch. Safe to cancel."""
        self.is_forgotten = True
        await self._try(lambda: self._journal.delivered([self.key]), "that a watch is over")
        let_go(self._journal, self.key, self)

    async def _try(self, write: Callable[[], Awaitable[object]], what: str) -> bool:
        try:
            await self._write(write)
        except JournalError as error:
            if not self.is_forgotten or not isinstance(error, NotOwnerError):
                log_unwritten(WATCH_LOG, ref_of(self.record), what, error)
            return False
        return True

    async def _write_patiently(self, write: Callable[[], Awaitable[Any]], max_outage: float | None) -> Any:
        """Write; if it fails, try again for as long as an outage may last, unless the watch is not ours."""
        until = math.inf if max_outage is None else loop_time() + max_outage
        failures = 0
        while True:
            try:
                return await self._write(write)
            except NotOwnerError:
                raise
            except JournalError as error:
                pause = RETRY_PAUSES_S[min(failures, len(RETRY_PAUSES_S) - 1)]
                if loop_time() + pause > until:
                    raise
                if failures == 0:
                    log_unwritten(WATCH_LOG, ref_of(self.record), "that calls begin, which is tried again", error)
                failures += 1
                await anyio.sleep(pause)

    async def _write(self, write: Callable[[], Awaitable[Any]]) -> Any:
        try:
            if self._added is not None:
                await self._added(self)
                self._added = None
            return await write()
        except JournalError:
            raise
        except Exception as error:
            raise JournalError(f"The journal raised a {type(error).__name__}: {error}") from error


def _record_of(call: Call, output: str, *, failed: bool = False) -> CallRecord:
    return CallRecord(key=key_of_call(call), call_id=call.id, output=output, failed=failed)


def gone_on_as(ref: RunRef, newer: RunRef) -> NotOwnerError:
    """Return the error for a run that goes on as a newer one, according to the journal."""
    return NotOwnerError(
        f"The run {ref} goes on as {newer} in the journal, and its calls would run twice: fleet.resume() watches that"
    )


def may_be_forgotten(outcome: AnyOutcome[Any]) -> bool:
    """Return whether a journal forgets a watch once this outcome is delivered.

    One that needs its caller is kept, since the outputs of its other calls are not submitted yet; and one that another
    process has taken over is not ours.
    """
    return not isinstance(outcome, NeedsCaller) and outcome.reason is not Reason.TAKEN_OVER


def refused_by(error: JournalError, asked: Asked) -> Refused:
    """Return the event for a request that was not sent, since the journal did not allow it."""
    kind = RefusalKind.TAKEN_OVER if isinstance(error, NotOwnerError) else RefusalKind.NOT_SENT
    return Refused(loop_time(), Refusal(kind=kind, cause=without_frames(error)), asked)


def without_frames(error: JournalError) -> JournalError:
    """Return an error that a lifecycle is to keep: the frames of its traceback would keep the watch in memory.

    The garbage collector does not look into a lifecycle, so it would not find that cycle.
    """
    return error.with_traceback(None)


def keys_left_open(outcome: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the keys of the calls that were open when a watch finished as this outcome."""
    cause = (outcome or {}).get("cause")
    if isinstance(cause, Mapping) and cause.get("type") in ("JournalError", "NotOwnerError"):
        return frozenset()  # they were open because they could not be written down, and nobody was to answer them
    calls = (outcome or {}).get("calls") or ()
    return frozenset(
        key_of_call(Call(id=str(call.get("id")), name=str(call.get("name")), arguments=str(call.get("arguments"))))
        for call in calls
        if isinstance(call, Mapping)
    )
