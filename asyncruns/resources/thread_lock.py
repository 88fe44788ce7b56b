"""A thread that is locked: wait until the run that holds it has ended, then try again.

While a run is active, and `requires_action` is active too, its thread takes no message and no other run
(https://platform.openai.com/docs/assistants/deep-dive#thread-locks). Whether it has been let go only a further try can
tell: replicas lag, and another run may slip in between. So the look only says when to try, and the try is the judge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

from msgspec import UNSET

from asyncruns._loop import loop_time
from asyncruns.errors import APIError, InvalidRequestError, NotFoundError, ThreadBusyError
from asyncruns.http import Request, join_path
from asyncruns.lifecycle import Phase, Policy
from asyncruns.lifecycle.patience import Patience
from asyncruns.resources.base import Server
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.patient_reads import options_of_polls, poll, wait_for_next
from asyncruns.wire.visible import visible

T = TypeVar("T")

OnBusy = Literal["raise", "wait"]
"""What to do about a thread that another run holds."""

_CHOICES: Final = ("raise", "wait")
_MOVING: Final = frozenset({Phase.PENDING, Phase.RUNNING, Phase.CANCELLING})


def check_on_busy(on_busy: object) -> None:
    """Check a caller's choice.

    Raises:
        InvalidRequestError: There is no such choice.
    """
    if on_busy not in _CHOICES:
        raise InvalidRequestError(f'on_busy must be "raise" or "wait"; got {on_busy!r}')


async def when_free(server: Server, attempt: Callable[[], Awaitable[T]], options: CallOptions) -> T:
    """Try, and try again whenever the run that holds the thread has ended.

    Safe to cancel; what the attempt itself may leave at the server is left then.

    Args:
        attempt: Does what needs the thread; raises ThreadBusyError, and has had no effect then.
        options: The call's own, which the polls are sent with.

    Raises:
        ThreadBusyError: The run has not ended 60 s after its own expiry by the server's clock, nor within 15 minutes
            where it has none; or it can't be polled.
        APIError: The attempt failed in another way.
    """
    holders: dict[str, _Holder] = {}  # a server that names two in turn must not begin the wait anew each time
    while True:
        try:
            return await attempt()
        except ThreadBusyError as busy:
            holder = holders.get(busy.active_run_id)
            if holder is None:  # the first one, or another that slipped in
                holder = holders[busy.active_run_id] = _Holder(server, busy, options)
            await holder.wait_for_its_end(busy)


class _Holder:
    """The run that holds a thread, and how long it is waited for."""

    def __init__(self, server: Server, busy: ThreadBusyError, options: CallOptions) -> None:
        self._server = server
        self._poll = poll_at_holder(busy, options)
        self._patience = Patience(Policy(timeout=UNSET, max_outage=None))
        self._began = loop_time()
        self._patience.begin(self._began)
        self._was_over = False

    async def wait_for_its_end(self, busy: ThreadBusyError) -> None:
        """Wait until a further try is worth it.

        Raises:
            ThreadBusyError: The one given: the wait is at its end, or can't go on.
        """
        patience = self._patience
        while True:
            now = loop_time()
            if now >= patience.over_at and not patience.may_poll_once_more(now):
                raise busy.extend(f"It was waited for, {now - self._began:.0f} s long, and has not ended.")
            phase, hint = await self._where_it_stands(busy)
            was_over, self._was_over = self._was_over, phase is None or phase.is_terminal
            if self._was_over and not was_over:
                return
            # What waits for another caller, or is over and still holds the thread, is not brought on by looking often.
            await wait_for_next(
                patience, None if phase in _MOVING else patience.slow_pause(loop_time(), hint), hint=hint
            )
            if self._was_over:
                return

    async def _where_it_stands(self, busy: ThreadBusyError) -> tuple[Phase | None, float | None]:
        """Give the run's phase, None for a run that is not there, and the server's hint."""
        asked_at = loop_time()
        try:
            snapshot = await poll(self._server, self._poll, self._server.dialect.read, self._patience)
        except NotFoundError:  # deleted, or not there yet
            return None, None
        except APIError as error:
            raise busy.extend(visible(f"It can't be waited for: {error}")) from error
        self._patience.learn(snapshot, loop_time(), asked_at)
        return snapshot.phase, snapshot.hint


def poll_at_holder(busy: ThreadBusyError, options: CallOptions) -> Request:
    """Make the request that polls the run that holds a thread.

    Raises:
        ThreadBusyError: The one given: what the server says is no id.
    """
    try:
        path = join_path("threads", busy.thread_id, "runs", busy.active_run_id)
    except InvalidRequestError as error:
        raise busy from error
    return make_request("GET", path, None, None, options_of_polls(options))
