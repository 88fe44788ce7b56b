"""The exceptions: copies, headers, and the class for each status."""

from __future__ import annotations

import copy
import pickle

import pytest

from asyncruns import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AsyncRunsError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from asyncruns.errors import status_error_class


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("gone", status=404, code="x", body=b"{}", headers={"X-Request-Id": "req_1"}, path="/threads/t"),
        APIConnectionError("dropped", sent=True, method="GET"),
        APIResponseValidationError("html", status=200, body=b"<html>"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_pickled_and_copied(error: AsyncRunsError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__


def test_headers_are_found_in_lower_case() -> None:
    assert NotFoundError("gone", status=404, headers={"Retry-After": "3"}).headers["retry-after"] == "3"


def test_every_status_has_its_class() -> None:
    kinds = {
        400: BadRequestError,
        404: NotFoundError,
        429: RateLimitError,
        500: InternalServerError,
        418: APIStatusError,
    }
    assert {status: status_error_class(status) for status in kinds} == kinds
    assert status_error_class(599) is InternalServerError
