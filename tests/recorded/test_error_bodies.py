"""Every recorded error answer becomes the exception for its status, with the server's whole text, and a refusal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

import pytest
from recordings import Exchange, exchanges

from asyncruns import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    Phase,
)
from asyncruns.dialects.errors import status_error
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Refusal, RefusalKind

ERRORS: Final = [each for each in exchanges() if each.status != 200]

CLASSES: Final[Mapping[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    404: NotFoundError,
    500: InternalServerError,
}
KINDS: Final = {
    400: RefusalKind.REJECTED,
    401: RefusalKind.UNAUTHORIZED,
    404: RefusalKind.NOT_FOUND,
    500: RefusalKind.UNAVAILABLE,
}
PHASES: Final = {
    "queued": Phase.PENDING,
    "in_progress": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "expired": Phase.EXPIRED,
}


def asked(exchange: Exchange) -> tuple[Request, Response]:
    body = json.dumps(exchange.body).encode()
    return Request(exchange.method, exchange.path), Response(exchange.status, exchange.headers, body)


def refusal_of(exchange: Exchange) -> Refusal:
    return ThreadRunDialect().refusal(*asked(exchange))


def message_of(exchange: Exchange) -> str:
    return str(exchange.body["error"]["message"])


def saying(*texts: str) -> list[Exchange]:
    return [each for each in ERRORS if any(text in message_of(each) for text in texts)]


NOT_ACCEPTING: Final = saying("do not accept tool outputs")
ALREADY_OVER: Final = saying("Cannot cancel run")
BUSY: Final = saying("already has an active run", "while a run")
WITH_MEANING: Final = [*NOT_ACCEPTING, *ALREADY_OVER, *BUSY]


def test_all_errors_are_here() -> None:
    assert Counter(each.status for each in ERRORS) == {400: 45, 401: 9, 404: 14, 500: 1}
    assert (len(NOT_ACCEPTING), len(ALREADY_OVER), len(BUSY)) == (7, 1, 4)
    assert sum(each.body["error"]["code"] is None for each in ERRORS) == 34


@pytest.mark.parametrize("exchange", ERRORS, ids=str)
def test_an_error_keeps_what_the_server_said(exchange: Exchange) -> None:
    request, response = asked(exchange)
    error = status_error(request, response)
    said = exchange.body["error"]
    assert type(error) is CLASSES[exchange.status]
    assert error.detail == said["message"]
    assert (error.code, error.type, error.param) == (said["code"], said["type"], said["param"])
    assert error.request_id == exchange.headers.get("x-request-id", "")
    assert (error.status, error.method, error.path) == (exchange.status, exchange.method, exchange.path)
    assert error.body == response.body
    assert " ".join(said["message"].split()) in str(error)  # on one line


@pytest.mark.parametrize("exchange", NOT_ACCEPTING, ids=str)
def test_outputs_that_are_not_wanted_tell_the_phase_of_the_run(exchange: Exchange) -> None:
    refusal = refusal_of(exchange)
    (status,) = re.findall(r'status "(\w+)"', message_of(exchange))
    assert (refusal.kind, refusal.phase) == (RefusalKind.NOT_ACCEPTING, PHASES[status])
    assert refusal.active_run is None


@pytest.mark.parametrize("exchange", ALREADY_OVER, ids=str)
def test_a_late_cancel_tells_the_phase_of_the_run(exchange: Exchange) -> None:
    refusal = refusal_of(exchange)
    assert (refusal.kind, refusal.phase) == (RefusalKind.ALREADY_OVER, Phase.SUCCEEDED)


@pytest.mark.parametrize("exchange", BUSY, ids=str)
def test_a_locked_thread_tells_the_run_that_locks_it(exchange: Exchange) -> None:
    refusal = refusal_of(exchange)
    (run_id,) = re.findall(r"\brun_\w+", message_of(exchange))
    assert (refusal.kind, refusal.active_run) == (RefusalKind.BUSY, run_id)
    assert refusal.phase is None


@pytest.mark.parametrize("exchange", [each for each in ERRORS if each not in WITH_MEANING], ids=str)
def test_any_other_error_is_refused_as_its_status_says(exchange: Exchange) -> None:
    refusal = refusal_of(exchange)
    assert refusal.kind is KINDS[exchange.status]
    assert (refusal.phase, refusal.active_run, refusal.retry_after) == (None, None, None)
    assert type(refusal.cause) is CLASSES[exchange.status]
