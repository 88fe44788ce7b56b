"""One read that has to succeed: it is retried after temporary errors, within the limits of a `Patience`.

It serves calls that need to read something else first: the run that holds a thread, or the list that may contain the
object of a lost create. Pauses and limits are those of a watch (`lifecycle/patience.py`). Only requests that change
nothing may be sent through here, so everything is safe to cancel and to repeat.
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

POLL_TIMEOUT_S: Final = 30.0  # a client may have no timeout at all, and a hanging poll would ignore the patience


async def poll(
    server: Server,
    request: Request,
    read: Callable[[Request, Response], T],
    patience: Patience,
    *,
    not_found_until: float = -math.inf,
) -> T:
    """Send a request that only reads, and repeat it until it succeeds. Safe to cancel.

    Args:
        server: The server.
        request: The request.
        read: Decodes a successful answer; raises APIResponseValidationError if it can't.
        patience: Determines the pauses, and when to give up.
        not_found_until: A time on the loop's clock until which a 404 counts as temporary: replicas lag.

    Raises:
        APIError: The server refuses the request, or the patience is exhausted.
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
        patience: The patience.
        pause: Seconds until the next poll; by default those of the cadence.
        hint: Seconds that the server suggests, or None.
    """
    now = loop_time()
    end = max(patience.over_at, now)
    # Callers that wait for the same run must not poll it all at the same moment.
    due = random.uniform(*patience.next_poll(now, pause, hint=hint))  # noqa: S311 - spreads polls, hides nothing
    await anyio.sleep_until(min(due, end))


def options_of_polls(options: CallOptions) -> CallOptions:
    """Return the options of a call that also apply to its polls: all except `extra_body`."""
    polls = options.copy()
    polls.pop("extra_body", None)
    return polls
