"""The requests of the campaign, and what OGX has to answer to each. Plain data; sends nothing."""

from __future__ import annotations

from typing import Any, Final

from servers import MODEL

LINES: Final = 200
FAIL_EVERY: Final = 10
WAIT_S: Final = 0.15  # OGX works on ten requests of a batch at once: 200 take 3 s


def custom_ids(name: str) -> list[str]:
    """Return the custom ids of a batch, in order."""
    return [f"{name}-{number}" for number in range(1, LINES + 1)]


def fails(custom_id: str) -> bool:
    """Return whether the model refuses this request."""
    return int(custom_id.rpartition("-")[2]) % FAIL_EVERY == 0


def body_of(custom_id: str) -> dict[str, Any]:
    """Return the body of a request: of a chat completion, and of a message as well."""
    rule = " fail=400" if fails(custom_id) else ""
    content = f"wait={WAIT_S} {custom_id}{rule}"
    return {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": content}]}


def lines_of(name: str) -> list[dict[str, Any]]:
    """Return the requests of a batch of OpenAI's wire, as the lines of its file."""
    url = "/v1/chat/completions"
    return [{"custom_id": id_, "method": "POST", "url": url, "body": body_of(id_)} for id_ in custom_ids(name)]


def messages_of(name: str) -> list[dict[str, Any]]:
    """Return the requests of a batch of Anthropic's wire."""
    return [{"custom_id": id_, "params": body_of(id_)} for id_ in custom_ids(name)]


def expected_text(custom_id: str) -> str:
    """Return the answer to a request that the model does not refuse."""
    return f"echo: {custom_id}"
