"""The errors of a stream that says that it failed, or ended too early. Each says what to do next."""

from __future__ import annotations

from asyncruns.errors import APIConnectionError, APIError
from asyncruns.http import Request
from asyncruns.wire.common import ErrorObject
from asyncruns.wire.visible import on_one_line


def given_up(request: Request, error: ErrorObject, next_step: str) -> APIError:
    """Return the error for what a server says when it gives a stream up.

    Args:
        request: What the stream answers.
        error: The server's words.
        next_step: What to do about it.
    """
    said = error.message or error.code or "no details"
    message = f"The server gave up the stream of {request.method} {request.path}: {said}. {next_step}"
    found = APIError(on_one_line(message), method=request.method, path=request.path)
    return found.classify(
        code=str(error.code) if error.code else None, type=error.type or None, param=error.param or None
    )


def ended_early(request: Request, next_step: str) -> APIConnectionError:
    """Return the error of a stream that ended, and did not tell of the end of its run."""
    what = f"The stream of {request.method} {request.path} ended before it told of an end"
    return _cut_off(request, f"{what}, so that its text may not be whole. {next_step}")


def not_streamed(request: Request, next_step: str) -> APIConnectionError:
    """Return the error for an answer that is the run, and not a stream, so that its text is missing."""
    what = f"The server answered {request.method} {request.path} with what has begun, and not with a stream"
    return _cut_off(request, f"{what}. {next_step}")


def told_nothing(request: Request, next_step: str) -> APIConnectionError:
    """Return the error of a stream that ended before it told of a run."""
    what = f"The stream of {request.method} {request.path} ended, or fell silent, before it told of a run"
    return _cut_off(request, f"{what}. {next_step}")


def _cut_off(request: Request, message: str) -> APIConnectionError:
    return APIConnectionError(message, sent=True, method=request.method, path=request.path)
