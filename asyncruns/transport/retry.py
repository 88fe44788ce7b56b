"""Repeats a request when that can do no harm; the only module that imports tenacity.

A read (GET) can always be repeated. A request that changes something is repeated only if it had no effect for certain:
it was never sent (the connection was refused, for example), or the server answered 429. It must never be repeated if
the answer timed out, the connection broke, or the server answered 500: it may have had its effect.
No request is repeated if a setting has to be changed first, such as the trusted certificates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from msgspec.structs import replace

from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request, Response, wait_hint

Answer = TypeVar("Answer", bound=Response | ByteStream)

PAUSE_START_S: Final = 0.5
PAUSE_CEILING_S: Final = 8.0
LONGEST_HINT_S: Final = 60.0  # if the server asks for a longer pause, the caller gets its answer at once

_FIRST_ERROR_STATUS: Final = 400
PASSING_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_QUOTA: Final = b"insufficient_quota"  # a 429 with this code stays: waiting does not help


class RetryTransport(Transport):
    """Sends through another transport, and retries if that can do no harm.

    Args:
        inner: The transport that sends.
        max_retries: Maximum number of retries after the first attempt.
    """

    def __init__(self, inner: Transport, *, max_retries: int = 2) -> None:
        self._inner = inner
        self._max_retries = max_retries

    async def send(self, request: Request) -> Response:
        # Nearly every request succeeds at once, so it should not pay for the retries of others.
        try:
            response = await self._inner.send(request)
        except APIConnectionError as error:
            first: Response | APIConnectionError = error
        else:
            if response.status < _FIRST_ERROR_STATUS:
                return response
            first = response
        return await self._after(request, self._inner.send, first)

    async def stream(self, request: Request) -> Response | ByteStream:
        # Only opening is retried; a stream that has begun is not opened again here.
        return await self._after(request, self._inner.stream, await _try(request, self._inner.stream))

    async def download(self, request: Request) -> Response | ByteStream:
        # As for a stream.
        return await self._after(request, self._inner.download, await _try(request, self._inner.download))

    async def _after(
        self, request: Request, send: Callable[[Request], Awaitable[Answer]], first: Answer | APIConnectionError
    ) -> Answer:
        # The first attempt does without tenacity, which costs a third of the time of a request.
        if self._max_retries < 1 or not _is_worth_a_retry(request, first):
            return _unwrap(first)
        return await self._repeat(request, send, first)

    async def _repeat(
        self, request: Request, send: Callable[[Request], Awaitable[Answer]], first: Answer | APIConnectionError
    ) -> Answer:
        # Loaded only when needed: most programs never get here.
        import tenacity

        results: list[Answer | APIConnectionError] = []
        backoff = tenacity.wait_exponential(multiplier=PAUSE_START_S, max=PAUSE_CEILING_S)
        jitter = tenacity.wait_random(0, PAUSE_START_S)

        async def attempt() -> Answer | APIConnectionError:
            # The first call returns the result that is there already, so that tenacity pauses after it, too.
            results.append(await _try(request, send) if results else first)
            return results[-1]

        def pause(state: tenacity.RetryCallState) -> float:
            result = results[-1]
            hint = wait_hint(result.headers) if isinstance(result, Response) else None
            return max(backoff(state) + jitter(state), hint or 0.0)

        retrying = tenacity.AsyncRetrying(
            sleep=anyio.sleep,
            stop=tenacity.stop_after_attempt(self._max_retries + 1),
            wait=pause,
            retry=tenacity.retry_if_result(lambda result: _is_worth_a_retry(request, result)),
            retry_error_callback=lambda state: results[-1],
        )
        await retrying(attempt)
        return _unwrap(results[-1], tuple(map(_shown, results[:-1])))

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _try(request: Request, send: Callable[[Request], Awaitable[Answer]]) -> Answer | APIConnectionError:
    try:
        return await send(request)
    except APIConnectionError as error:
        return error


def _is_worth_a_retry(request: Request, result: Response | ByteStream | APIConnectionError) -> bool:
    is_read = request.method == "GET"
    if isinstance(result, ByteStream):
        return False
    if isinstance(result, APIConnectionError):
        return result.passes and (is_read or not result.sent)
    if result.status == 429:
        return _QUOTA not in result.body and (wait_hint(result.headers) or 0.0) <= LONGEST_HINT_S
    return is_read and result.status in PASSING_STATUSES and (wait_hint(result.headers) or 0.0) <= LONGEST_HINT_S


def _shown(result: Response | ByteStream | APIConnectionError) -> str:
    return type(result).__name__ if isinstance(result, APIConnectionError) else str(result.status)


def _unwrap(result: Answer | APIConnectionError, attempts: tuple[str, ...] = ()) -> Answer:
    if isinstance(result, APIConnectionError):
        if attempts:
            result._extend(f"(try {len(attempts) + 1}, after {', '.join(attempts)})")
        raise result
    return replace(result, attempts=attempts) if attempts and isinstance(result, Response) else result
