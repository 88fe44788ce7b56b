"""Sends one request of a watch, and returns its result as an event for the lifecycle.

A refusal or a broken connection is an event as well, so that only the machine decides what it means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from asyncruns._loop import loop_time
from asyncruns.abc import RunClient, WatchTrace
from asyncruns.errors import APIConnectionError, APIError, APIResponseValidationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Observed, Refusal, RefusalKind, Refused

T = TypeVar("T")


async def send_for_event(
    client: RunClient[Any],
    request: Request,
    asked: Asked,
    heed: Callable[[Response], object] | None = None,
) -> Observed | Refused:
    """Send a request, and return its result as an event.

    Safe to cancel; it is then not known whether the server has acted.

    Args:
        client: The transport to send with, and the dialect that reads the answer.
        request: The request.
        asked: What the request asks for.
        heed: Called with the answer before it is read. Must not raise.

    Raises:
        RuntimeError: The transport raised a CancelledError although this task was not cancelled. Passed on as it is, it
            would end the watch as if the caller had cancelled it.
    """
    asked_at = loop_time()

    def read(response: Response) -> Observed:
        return Observed(loop_time(), client.dialect.read(request, response), asked, asked_at)

    return await send_for(client, request, asked, heed, read)


async def send_for(
    client: RunClient[Any],
    request: Request,
    asked: Asked,
    heed: Callable[[Response], object] | None,
    read: Callable[[Response], T],
) -> T | Refused:
    """Send a request, and return what `read` makes of a good answer; `send_for_event` describes the rest."""
    try:
        response = await client.transport.send(request)
        if heed is not None:
            heed(response)
        if not 200 <= response.status < 300:
            return Refused(loop_time(), client.dialect.refusal(request, response), asked)
        return read(response)
    except (APIConnectionError, APIResponseValidationError) as error:
        return Refused(loop_time(), refusal_of(error), asked)
    except asyncio.CancelledError as error:
        check_is_ours(error)
        raise


def refusal_of(error: APIError) -> Refusal:
    """Return the refusal for a request that got no answer, or an unreadable one."""
    if not isinstance(error, APIConnectionError) or error.sent:
        return Refusal(kind=RefusalKind.LOST, cause=error)
    return Refusal(kind=RefusalKind.NOT_SENT if error.passes else RefusalKind.UNREACHABLE, cause=error)


def check_is_ours(error: asyncio.CancelledError) -> None:
    """Check that the current task was cancelled itself.

    Raises:
        RuntimeError: It was not: the transport let the cancellation of something else escape.
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise RuntimeError(
            "The transport raised a CancelledError although its task was not cancelled; it must raise an "
            "APIConnectionError instead"
        ) from error


async def followed(
    trace: WatchTrace, asked: Asked, send: Callable[[], Awaitable[Observed | Refused]]
) -> Observed | Refused:
    """Send a submit or a cancel, and have that followed."""
    with trace.sending(asked) as note:
        event = await send()
        note(event)
        return event
