"""The parameters of a response: https://platform.openai.com/docs/api-reference/responses/create"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asyncruns.errors import InvalidRequestError
from asyncruns.resources.options import CallOptions
from asyncruns.schemas.output_type import output_type_of
from asyncruns.wire import Maybe


class ResponseParameters(CallOptions, total=False):
    """The parameters of a response. Those that are not passed are not sent; None is sent as null.

    Attributes:
        model: The model's name at the server; needed unless `prompt` names one.
        input: A text, or a list of items: messages, and outputs of calls such as `{"type": "function_call_output",
            "call_id": ..., "output": ...}`.
        instructions: For this response only; those of the previous one are not inherited.
        background: If true, the server answers at once and works on: poll the response until it has ended.
        background_options: `{"completion_window": "soonest" | "2h" | "8h", "continuation_id": ...}`.
        store: Whether the server keeps the response, as it must for `background` and for `previous_response_id`; the
            server's default is true.
        previous_response_id: The response that this one continues; `input` must have the outputs of all its calls.
        conversation: An id or `{"id": ...}`, instead of `previous_response_id`.
        tools: `toolset.definitions(wire="responses")` for your functions; not inherited either.
        tool_choice: "none", "auto", "required", or an object that names a tool.
        parallel_tool_calls: The server's default is true.
        max_tool_calls: The limit for calls of the server's own tools.
        include: What else to include in the response, such as "reasoning.encrypted_content".
        metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
        reasoning: `{"effort": ..., "summary": ...}`, for models that reason.
        text: `{"format": ..., "verbosity": ...}`; a format `{"type": "json_schema", ...}` for structured answers.
        output_type: A pydantic model, a msgspec Struct, a dataclass or a TypedDict, whose strict JSON Schema is sent as
            the format in `text`. Pass it to the watch as well, for `outcome.parsed()`.
        max_output_tokens: Includes reasoning; a response that would use more ends as incomplete.
        temperature: 0 to 2; the server's default is 1.
        top_p: 0 to 1; the server's default is 1.
        top_logprobs: 0 to 20.
        truncation: "auto" drops the oldest items of an input that is too long; the server's default is "disabled".
        service_tier: "auto", "default", "flex", "priority", or another one that the server knows.
        prompt: A template at the server: `{"id": ..., "version": ..., "variables": ...}`.
        safety_identifier: A stable id of the user of your program.
        user: Deprecated: use `safety_identifier` and `prompt_cache_key`.
    """

    model: Maybe[str]
    input: Maybe[str | Iterable[Any]]
    instructions: Maybe[str]
    background: Maybe[bool]
    background_options: Maybe[Mapping[str, Any]]
    store: Maybe[bool]
    previous_response_id: Maybe[str]
    conversation: Maybe[str | Mapping[str, Any]]
    tools: Maybe[Iterable[Any]]
    tool_choice: Maybe[str | Mapping[str, Any]]
    parallel_tool_calls: Maybe[bool]
    max_tool_calls: Maybe[int]
    include: Maybe[Sequence[str]]
    metadata: Maybe[Mapping[str, str]]
    reasoning: Maybe[Mapping[str, Any]]
    text: Maybe[Mapping[str, Any]]
    output_type: type[object] | None
    max_output_tokens: Maybe[int]
    temperature: Maybe[float]
    top_p: Maybe[float]
    top_logprobs: Maybe[int]
    truncation: Maybe[str]
    service_tier: Maybe[str]
    prompt: Maybe[Mapping[str, Any]]
    prompt_cache_key: Maybe[str]
    prompt_cache_options: Maybe[Mapping[str, Any]]
    prompt_cache_retention: Maybe[str]
    context_management: Maybe[Iterable[Any]]
    moderation: Maybe[Mapping[str, Any]]
    image: Maybe[Mapping[str, Any]]
    access_programs: Maybe[Mapping[str, Any]]
    safety_identifier: Maybe[str]
    user: Maybe[str]


def with_text_format(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a response with the schema of their `output_type` as the format in `text`.

    Raises:
        InvalidRequestError: There is a format as well, or the type has no strict schema.
    """
    sent = dict(parameters)
    output_type = sent.pop("output_type", None)
    if output_type is None:
        return sent
    text = sent.get("text") or {}
    if not isinstance(text, Mapping):
        raise InvalidRequestError(f'text must be a dict, such as {{"verbosity": "low"}}; got {type(text).__name__}')
    if "text" in (sent.get("extra_body") or {}):
        raise InvalidRequestError("The text in extra_body would replace the format of output_type: pass text= instead")
    if text.get("format"):
        raise InvalidRequestError("output_type is sent as the format in text: leave out the one that is given")
    made = output_type_of(output_type)
    chosen = {"type": "json_schema", "name": made.name, "schema": made.schema, "strict": True}
    return {**sent, "text": {**text, "format": chosen}}
