"""The requests that an emulator records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator.faults import Fault

_SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-portkey-api-key"}
)


@dataclass(slots=True, kw_only=True)
class SeenRequest:
    """A request that arrived, and its result.

    Attributes:
        path, query: As they were sent, not unquoted; the query without its `?`.
        headers: Headers with lower-case names; credentials are replaced by `***`.
        at: Time of arrival, by the loop's clock.
        operation: The operation, as in `Fault.on`; "" if the server has no such operation.
        run_id: The run, response, batch or file that it is about: from the path, from the query of a list of messages,
            or, for a new response that answers calls, the response that made them.
        status: The HTTP status of the answer after it was sent; 0 before, and for an answer that was dropped.
        acted: Whether the server performed the request, whatever the answer was; False if it refused.
        fault: The fault that struck it, or None.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    operation: str = ""
    run_id: str | None = None
    status: int = 0
    acted: bool = False
    fault: Fault | None = None

    @property
    def key(self) -> tuple[str, str, str, bytes]:
        """A key that is equal for identical requests."""
        return self.method, self.path, self.query, self.body

    @property
    def asks_for_a_stream(self) -> bool:
        """Whether its body or its query has `stream` set to true."""
        if self.body:
            # The search is cheap and spares most bodies the decoding.
            return b'"stream"' in self.body and json_object(self.body).get("stream") is True
        return "stream=true" in self.query.split("&")


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, or an empty one if the body is not a JSON object."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {}


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names, and `***` in place of credentials."""
    lowered = ((name.lower(), value) for name, value in headers.items())
    return {name: "***" if name in _SECRET_HEADERS else value for name, value in lowered}
