"""Responses: https://platform.openai.com/docs/api-reference/responses/object

The object is `ModelResponse` here ("model response" in the API's documentation): `asyncruns.http.Response` is HTTP's.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, field

from asyncruns.wire.codec import Maybe, Object, may_be_text
from asyncruns.wire.common import Metadata, Time
from asyncruns.wire.response_items import ResponseItem, ResponseMessage
from asyncruns.wire.runs import IncompleteDetails


class ResponseError(Object, frozen=True, kw_only=True, gc=False):
    """Why a response failed.

    The set of codes is open. `rate_limit_exceeded` means here that the response has failed; it is no HTTP 429.
    """

    code: Maybe[str] = UNSET
    message: Maybe[str] = UNSET
    type: Maybe[str] = UNSET
    param: Maybe[str] = UNSET


class InputTokensDetails(Object, frozen=True, kw_only=True, gc=False):
    """Numbers of input tokens that were read from the prompt cache and written to it."""

    cached_tokens: Maybe[int] = UNSET
    cache_write_tokens: Maybe[int] = UNSET


class OutputTokensDetails(Object, frozen=True, kw_only=True, gc=False):
    """Number of output tokens that were used for reasoning."""

    reasoning_tokens: Maybe[int] = UNSET


class ResponseUsage(Object, frozen=True, kw_only=True):
    """Tokens that a response used; null until it has ended."""

    input_tokens: Maybe[int] = UNSET
    input_tokens_details: Maybe[InputTokensDetails] = UNSET
    output_tokens: Maybe[int] = UNSET
    output_tokens_details: Maybe[OutputTokensDetails] = UNSET
    total_tokens: Maybe[int] = UNSET


class ResponseConversation(Object, frozen=True, kw_only=True, gc=False):
    """The conversation that a response belongs to."""

    id: str = ""


def _message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text}


_AnyItem = Annotated[ResponseItem, may_be_text(_message)]


class ModelResponse(Object, frozen=True, kw_only=True):
    """A response. All fields except `id` and `status` may be absent (UNSET) or null (None); both are false."""

    id: str
    status: str
    object: str = "response"
    created_at: Time = UNSET
    completed_at: Time = UNSET
    background: Maybe[bool] = UNSET
    background_options: Maybe[dict[str, Any]] = UNSET
    error: Maybe[ResponseError] = UNSET
    incomplete_details: Maybe[IncompleteDetails] = UNSET
    output: Maybe[Annotated[list[_AnyItem], may_be_text(lambda text: [text])]] = UNSET
    usage: Maybe[ResponseUsage] = UNSET
    previous_response_id: Maybe[str] = UNSET
    conversation: Maybe[ResponseConversation] = UNSET
    model: Maybe[str] = UNSET
    instructions: Maybe[str | list[Any]] = UNSET
    tools: Maybe[list[dict[str, Any]]] = UNSET
    tool_choice: Maybe[str | dict[str, Any]] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    metadata: Metadata = UNSET
    reasoning: Maybe[dict[str, Any]] = UNSET
    text: Maybe[dict[str, Any]] = UNSET
    temperature: Maybe[float] = UNSET
    top_p: Maybe[float] = UNSET
    top_logprobs: Maybe[int] = UNSET
    max_output_tokens: Maybe[int] = UNSET
    max_tool_calls: Maybe[int] = UNSET
    truncation: Maybe[str] = UNSET
    service_tier: Maybe[str] = UNSET
    store: Maybe[bool] = UNSET
    prompt: Maybe[dict[str, Any]] = UNSET
    prompt_cache_key: Maybe[str] = UNSET
    prompt_cache_options: Maybe[dict[str, Any]] = UNSET
    prompt_cache_retention: Maybe[str] = UNSET
    safety_identifier: Maybe[str] = UNSET
    user: Maybe[str] = UNSET
    tool_usage: Maybe[dict[str, Any]] = UNSET
    moderation: Maybe[dict[str, Any]] = UNSET

    # Some servers send the text that the official client computes from `output`, and a few of them send no `output`.
    sent_output_text: Maybe[str] = field(default=UNSET, name="output_text")

    @property
    def messages(self) -> list[ResponseMessage]:
        """The messages in the output, in their order; [] if there are none, or none yet."""
        found = [item for item in self.output or [] if isinstance(item, ResponseMessage)]
        if self.sent_output_text and not any(message.text for message in found):
            found.append(ResponseMessage(role="assistant", content=self.sent_output_text))
        return found

    @property
    def output_text(self) -> str:
        """The texts of all messages, joined; "" if there are none, or none yet."""
        return "".join(message.text for message in self.messages)
