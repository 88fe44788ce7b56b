"""What an emulator remembers of a request."""

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
    """A request that arrived, and what became of it.

    Attributes:
        path, query: As they were sent, not unquoted; the query without its `?`.
        headers: Lower-case names; credentials are replaced by `***`.
        at: When it arrived, by the loop's clock.
        operation: What it asks for, as in `Fault.on`; "" if the server has no such thing.
        run_id: The run or response that it is about: in its path, asked for in a list of messages, or the one whose
            calls a new response answers.
        status: The HTTP status of the answer, once that was sent; 0 before, and for an answer that was dropped.
        acted: Whether the server did what it was asked, however it was answered; False for what it refused.
        fault: What struck it, if anything did.
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
        """What two requests have in common that ask for the very same."""
        return self.method, self.path, self.query, self.body

    @property
    def asks_for_a_stream(self) -> bool:
        """Whether its body or its query says so."""
        if self.body:
            return b'"stream"' in self.body and json_object(self.body).get("stream") is True
        return "stream=true" in self.query.split("&")


def json_object(body: bytes) -> dict[str, Any]:
    """Give the JSON object in a body, an empty one where it is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {}


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Give headers with lower-case names, and `***` for credentials."""
    lowered = ((name.lower(), value) for name, value in headers.items())
    return {name: "***" if name in _SECRET_HEADERS else value for name, value in lowered}
