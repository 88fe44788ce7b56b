"""What the model of a batch answers if its scenario does not say: bodies of each endpoint that repeat the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.responses import EmulatedResponses
from asyncruns.testing.emulator.scenario import Scenario
from asyncruns.testing.emulator.structured import text_written
from asyncruns.testing.emulator.timeline import whole

INPUT_TOKENS: Final = 10  # of each request
OUTPUT_TOKENS: Final = 5

_Mapping = Mapping[str, Any]
_NO_SCRIPT: Final = Scenario()


def endpoint_answer(endpoint: str, body: _Mapping, ids: Ids, now: float) -> Body:
    """Return the body of a good response of an endpoint of OpenAI's wire."""
    make = _ENDPOINTS.get(endpoint)
    if make is None:
        return {"object": endpoint.rpartition("/")[2], "model": body.get("model"), "input": body.get("input")}
    return make(body, ids, now)


def message_answer(params: _Mapping, ids: Ids) -> Body:
    """Return a message of Anthropic's wire."""
    return {
        "id": ids.new("msg"),
        "type": "message",
        "role": "assistant",
        "model": params.get("model"),
        "content": [{"type": "text", "text": f"You said: {_said(params)}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _chat_completion(body: _Mapping, ids: Ids, now: float) -> Body:
    text = text_written(_NO_SCRIPT, body.get("response_format"), [], _said(body))
    message: Body = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return {
        "id": ids.new("chatcmpl").replace("_", "-", 1),
        "object": "chat.completion",
        "created": whole(now),
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(),
    }


def _completion(body: _Mapping, ids: Ids, now: float) -> Body:
    text = f"You said: {body.get('prompt')}"
    return {
        "id": ids.new("cmpl").replace("_", "-", 1),
        "object": "text_completion",
        "created": whole(now),
        "model": body.get("model"),
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(),
    }


def _response(body: _Mapping, ids: Ids, now: float) -> Body:
    try:
        return EmulatedResponses(ids, _NO_SCRIPT, 400).create({"input": "", "model": "", **body}, now)
    except refusals.RefusedError:  # the batch has counted it as answered
        return EmulatedResponses(ids, _NO_SCRIPT, 400).create({"input": "", "model": ""}, now)


def _embeddings(body: _Mapping, _ids: Ids, _now: float) -> Body:
    given = body.get("input")
    texts = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    rows = [
        {"object": "embedding", "index": place, "embedding": [float(len(str(text))), 0.5, -0.5]}
        for place, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS}
    return {"object": "list", "data": rows, "model": body.get("model"), "usage": usage}


_ENDPOINTS: Final[Mapping[str, Callable[[_Mapping, Ids, float], Body]]] = {
    "/v1/responses": _response,
    "/v1/chat/completions": _chat_completion,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
}


def _usage() -> Body:
    total = INPUT_TOKENS + OUTPUT_TOKENS
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": total}


def _said(body: _Mapping) -> str:
    """Return the text of the last message of a user, or ""."""
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            return content
        parts = content if isinstance(content, list) else []
        return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return ""
