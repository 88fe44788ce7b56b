"""A locked thread: wait until the run that holds it has ended, then try again.

While a run is active, which includes `requires_action`, its thread accepts no message and no other run
(https://platform.openai.com/docs/assistants/deep-dive#thread-locks). Polls of the run only determine when to try again.
Only a try shows whether the thread is free, since replicas lag and another run may be started first.
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
from asyncruns.wire.shown_text import visible

T = TypeVar("T")

OnBusy = Literal["raise", "wait"]
"""What to do if another run holds the thread."""

_CHOICES: Final = ("raise", "wait")
_MOVING: Final = frozenset({Phase.PENDING, Phase.RUNNING, Phase.CANCELLING})  # phases that end without a caller


def check_on_busy(on_busy: object) -> None:
    """Check the value of `on_busy`.

    Raises:
        InvalidRequestError: It is neither "raise" nor "wait".
    """
    if on_busy not in _CHOICES:
        raise InvalidRequestError(f'on_busy must be "raise" or "wait"; got {on_busy!r}')


async def when_free(server: Server, attempt: Callable[[], Awaitable[T]], options: CallOptions) -> T:
    """Call `attempt`, and call it again each time the run that holds the thread has ended.

    Safe to cancel; the effects of an attempt at the server remain.

    Args:
        server: The server.
        attempt: Sends the request that needs the thread; raises ThreadBusyError if it had no effect for that reason.
        options: The options of the call, which polls are sent with, too.

    Raises:
        ThreadBusyError: The run that holds the thread had not ended 60 s after its own expiry by the server's clock, or
            after 15 minutes if it has none; or it can't be polled.
        APIError: The attempt failed for another reason.
    """
    holders: dict[str, _Holder] = {}  # by run: a server that alternates between two must not restart their time limits
    while True:
        try:
            return await attempt()
        except ThreadBusyError as busy:
            holder = holders.get(busy.active_run_id)
            if holder is None:  # the first one, or a run that was started before our next try
                holder = holders[busy.active_run_id] = _Holder(server, busy, options)
            await holder.wait_for_its_end(busy)


class _Holder:
    """The run that holds a thread, and the patience with it."""

    def __init__(self, server: Server, busy: ThreadBusyError, options: CallOptions) -> None:
        self._server = server
        self._poll = poll_at_holder(busy, options)
        self._patience = Patience(Policy(timeout=UNSET, max_outage=None))
        self._began = loop_time()
        self._patience.begin(self._began)
        self._was_over = False

    async def wait_for_its_end(self, busy: ThreadBusyError) -> None:
        """Wait until another try makes sense.

        Raises:
            ThreadBusyError: `busy`, extended: the time is over, or the run can't be polled.
        """
        patience = self._patience
        while True:
            now = loop_time()
            if now >= patience.over_at and not patience.may_poll_once_more(now):
                raise busy.extend(f"That run has not ended after a wait of {now - self._began:.0f} s.")
            phase, hint = await self._where_it_stands(busy)
            was_over, self._was_over = self._was_over, phase is None or phase.is_terminal
            # The first poll that shows its end allows a try at once. If that finds the thread still locked, as the lock
            # lags, pause before each further try.
            if self._was_over and not was_over:
                return
            # Frequent polls are useless for a run that waits for its caller, or has ended and still holds the thread.
            await wait_for_next(
                patience, None if phase in _MOVING else patience.slow_pause(loop_time(), hint), hint=hint
            )
            if self._was_over:
                return

    async def _where_it_stands(self, busy: ThreadBusyError) -> tuple[Phase | None, float | None]:
        """Return the run's phase, or None if there is no such run, and the server's hint in seconds or None.

        Raises:
            ThreadBusyError: `busy`, extended: the run can't be polled.
        """
        requested_at = loop_time()
        try:
            snapshot = await poll(self._server, self._poll, self._server.dialect.read, self._patience)
        except NotFoundError:  # deleted, or not there yet
            return None, None
        except APIError as error:
            raise busy.extend(visible(f"That run can't be polled: {error}")) from error
        self._patience.learn(snapshot, loop_time(), requested_at)
        return snapshot.phase, snapshot.hint


def poll_at_holder(busy: ThreadBusyError, options: CallOptions) -> Request:
    """Return the request that polls the run that holds a thread.

    Raises:
        ThreadBusyError: `busy` itself: the id in the server's error is not valid.
    """
    try:
        path = join_path("threads", busy.thread_id, "runs", busy.active_run_id)
    except InvalidRequestError as error:
        raise busy from error
    return make_request("GET", path, None, None, options_of_polls(options))
