"""The errors of streams that failed or ended too early. Each message says what to do next."""

from __future__ import annotations

from asyncruns.errors import APIConnectionError, APIError
from asyncruns.http import Request
from asyncruns.wire.common import ErrorObject
from asyncruns.wire.shown_text import on_one_line


def given_up(request: Request, error: ErrorObject, next_step: str) -> APIError:
    """Return the error for a stream that the server ended with an error.

    Args:
        request: The request for the stream.
        error: The server's error.
        next_step: What the caller can do next, as a sentence.
    """
    said = error.message or error.code or "no details"
    message = f"The server gave up the stream of {request.method} {request.path}: {said}. {next_step}"
    found = APIError(on_one_line(message), method=request.method, path=request.path)
    return found.classify(
        code=str(error.code) if error.code else None, type=error.type or None, param=error.param or None
    )


def ended_early(request: Request, next_step: str) -> APIConnectionError:
    """Return the error for a stream that ended before it reported the end of its run."""
    what = f"The stream of {request.method} {request.path} ended before it reported the end of a run or response"
    return _cut_off(request, f"{what}, so its text may be incomplete. {next_step}")


def not_streamed(request: Request, next_step: str) -> APIConnectionError:
    """Return the error for a response that is the run and not a stream, so there are no pieces of text."""
    what = f"The server answered {request.method} {request.path} with the object itself, not with a stream"
    return _cut_off(request, f"{what}. {next_step}")


def told_nothing(request: Request, next_step: str) -> APIConnectionError:
    """Return the error for a stream that ended before any event of a run."""
    what = f"The stream of {request.method} {request.path} ended, or fell silent, before any event of a run or response"
    return _cut_off(request, f"{what}. {next_step}")


def _cut_off(request: Request, message: str) -> APIConnectionError:
    return APIConnectionError(message, sent=True, method=request.method, path=request.path)
