"""Sends one request of a watch, and gives what came of it as an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from asyncruns._loop import loop_time
from asyncruns.abc import RunClient
from asyncruns.errors import APIConnectionError, APIError, APIResponseValidationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Observed, Refusal, RefusalKind, Refused


async def send_for_event(
    client: RunClient[Any],
    request: Request,
    asked: Asked,
    heed: Callable[[Response], object] | None = None,
) -> Observed | Refused:
    """Send a request; whatever becomes of it is an event.

    Safe to cancel; the server may then have acted or not.

    Args:
        heed: Gets the answer, before it is read. Must not raise.

    Raises:
        RuntimeError: What sends let out the cancellation of something else; ours would end all that we belong to.
    """
    dialect = client.dialect
    asked_at = loop_time()
    try:
        response = await client.transport.send(request)
        if heed is not None:
            heed(response)
        if not 200 <= response.status < 300:
            return Refused(loop_time(), dialect.refusal(request, response), asked)
        return Observed(loop_time(), dialect.read(request, response), asked, asked_at)
    except (APIConnectionError, APIResponseValidationError) as error:
        return Refused(loop_time(), refusal_of(error), asked)
    except asyncio.CancelledError as error:
        check_is_ours(error)
        raise


def refusal_of(error: APIError) -> Refusal:
    """Say what it means that a request was not answered, or not so that it could be read."""
    if not isinstance(error, APIConnectionError) or error.sent:
        return Refusal(kind=RefusalKind.LOST, cause=error)
    return Refusal(kind=RefusalKind.NOT_SENT if error.passes else RefusalKind.UNREACHABLE, cause=error)


def check_is_ours(error: asyncio.CancelledError) -> None:
    """Check that somebody has cancelled us.

    Raises:
        RuntimeError: What sends let out the cancellation of something else.
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise RuntimeError("What sends requests raised a CancelledError, and nobody had cancelled it") from error
