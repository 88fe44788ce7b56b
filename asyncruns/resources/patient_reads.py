"""One poll that has to succeed: passing errors are waited out, within a patience.

For what is read on the way to something else: the run that holds a thread, the list where a lost create may show. The
pauses and the bounds are those of a watch (`lifecycle/patience.py`); reading changes nothing, so all is safe to cancel.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final, TypeVar

import anyio

from asyncruns._loop import loop_time
from asyncruns.errors import APIConnectionError, APIResponseValidationError, APITimeoutError
from asyncruns.http import Request, Response
from asyncruns.lifecycle.patience import Patience
from asyncruns.lifecycle.values import Refusal, RefusalKind
from asyncruns.resources.base import Server
from asyncruns.resources.options import CallOptions
from asyncruns.watch.requests import refusal_of

T = TypeVar("T")

POLL_TIMEOUT_S: Final = 30.0  # a client may have no timeout at all, and a poll that hangs would be the end of patience


async def poll(
    server: Server,
    request: Request,
    read: Callable[[Request, Response], T],
    patience: Patience,
    *,
    not_found_until: float = -math.inf,
) -> T:
    """Send a request that only reads, until it is answered.

    Safe to cancel.

    Args:
        read: Gives what a good answer holds; raises APIResponseValidationError for a body that is none.
        patience: Gives the pauses, and when to give up.
        not_found_until: Until this time of the loop's clock a 404 passes, too: replicas lag.

    Raises:
        APIError: The server refuses it, or the patience is at its end.
    """
    while True:
        answer = await _try(server, request, read)
        now = loop_time()
        if not isinstance(answer, Refusal):
            patience.heard()
            return answer
        passes = answer.kind.passes or (answer.kind is RefusalKind.NOT_FOUND and now < not_found_until)
        pause, _ = patience.failed(answer, now)
        if not passes or patience.outage_is_over_budget(now) or now >= patience.over_at:
            raise answer.cause
        await wait_for_next(patience, pause)


async def _try(server: Server, request: Request, read: Callable[[Request, Response], T]) -> T | Refusal:
    transport = server.once or server.transport
    try:
        with anyio.fail_after(POLL_TIMEOUT_S):
            response = await transport.send(request)
        if not 200 <= response.status < 300:
            return server.dialect.refusal(request, response)
        return read(request, response)
    except TimeoutError:
        what = f"{request.method} {request.path}"
        late = APITimeoutError(f"No answer in time: {what}", sent=True, method=request.method, path=request.path)
        return Refusal(kind=RefusalKind.LOST, cause=late)
    except (APIConnectionError, APIResponseValidationError) as error:
        return refusal_of(error)


async def wait_for_next(patience: Patience, pause: float | None = None, *, hint: float | None = None) -> None:
    """Sleep until the next poll is due, or the patience ends.

    Args:
        pause: Seconds; those of the cadence by default.
        hint: What the server asks for, in seconds.
    """
    now = loop_time()
    end = max(patience.over_at, now)
    # Those who wait for the same thing shall not all come at once.
    due = random.uniform(*patience.next_poll(now, pause, hint=hint))  # noqa: S311 - spreads polls, hides nothing
    await anyio.sleep_until(min(due, end))


def options_of_polls(options: CallOptions) -> CallOptions:
    """Give the options of a call that hold for the looks on its way, too: all but the body's."""
    polls = options.copy()
    polls.pop("extra_body", None)
    return polls
