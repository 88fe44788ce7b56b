"""Typed dictionaries: the parameters of a run, and the outputs and approvals of its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Required, TypedDict, cast

from asyncruns.errors import InvalidRequestError
from asyncruns.resources.options import CallOptions, check_names
from asyncruns.schemas.output_type import output_type_of
from asyncruns.wire import Maybe


class ToolOutput(TypedDict):
    """The output of one tool call."""

    tool_call_id: str
    output: str


class ToolApproval(TypedDict, total=False):
    """Whether the server may make a call of a server-side tool, and with which headers."""

    tool_call_id: Required[str]
    approve: Required[bool]
    headers: Mapping[str, str]


class RunSettings(CallOptions, total=False):
    """The parameters of a run. Those that are not passed are not sent; None is sent as null.

    Attributes:
        model: Replaces the assistant's.
        instructions: Replaces the assistant's.
        tools: Replaces all tools of the assistant; up to 20.
        metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
        temperature: 0 to 2; the server's default is 1.
        top_p: 0 to 1; the server's default is 1.
        max_prompt_tokens: From 256; a run that would use more ends as incomplete.
        max_completion_tokens: From 256; a run that would use more ends as incomplete.
        truncation_strategy: `{"type": "auto"}` or `{"type": "last_messages", "last_messages": n}`.
        tool_choice: "none", "auto", "required", or an object that names a tool.
        parallel_tool_calls: The server's default is true.
        response_format: "auto", or an object. With `{"type": "json_object"}`, the instructions must ask for JSON as
            well: otherwise the model may write white space until the token limit, and the run seems stuck.
        output_type: A pydantic model, a msgspec Struct, a dataclass or a TypedDict, whose strict JSON Schema is sent as
            the `response_format`. Pass it to the watch as well, for `outcome.parsed()`.
    """

    model: Maybe[str]
    instructions: Maybe[str]
    tools: Maybe[Iterable[Any]]
    metadata: Maybe[Mapping[str, str]]
    temperature: Maybe[float]
    top_p: Maybe[float]
    max_prompt_tokens: Maybe[int]
    max_completion_tokens: Maybe[int]
    truncation_strategy: Maybe[Mapping[str, Any] | Any]
    tool_choice: Maybe[str | Mapping[str, Any]]
    parallel_tool_calls: Maybe[bool]
    response_format: Maybe[str | Mapping[str, Any]]
    output_type: type[object] | None


class RunParameters(RunSettings, total=False):
    """The parameters of a run on an existing thread, in addition to the `RunSettings`.

    Attributes:
        additional_instructions: Appended to the instructions.
        additional_messages: Added to the thread before the run.
        reasoning_effort: For models that reason.
    """

    additional_instructions: Maybe[str]
    additional_messages: Maybe[Iterable[Mapping[str, Any]]]
    reasoning_effort: Maybe[str]


def with_response_format(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run with the schema of their `output_type` as the `response_format`.

    https://platform.openai.com/docs/api-reference/runs/createRun#runs-createrun-response_format

    Raises:
        InvalidRequestError: Both are given, or the type has no strict schema.
    """
    sent = dict(parameters)
    output_type = sent.pop("output_type", None)
    if output_type is None:
        return sent
    if sent.get("response_format"):
        raise InvalidRequestError("output_type is sent as the response_format: leave out the one that is given")
    if "response_format" in (sent.get("extra_body") or {}):
        raise InvalidRequestError("The response_format in extra_body would replace that of output_type: leave it out")
    made = output_type_of(output_type)
    schema = {"name": made.name, "schema": made.schema, "strict": True}
    return {**sent, "response_format": {"type": "json_schema", "json_schema": schema}}


def split_options(parameters: Mapping[str, Any], known: type) -> tuple[dict[str, Any], CallOptions]:
    """Split parameters into the fields of the body and the `CallOptions`.

    Raises:
        TypeError: A name is not in `known`.
    """
    check_names(parameters, known)
    body = {name: value for name, value in parameters.items() if name not in CallOptions.__annotations__}
    options = {name: value for name, value in parameters.items() if name in CallOptions.__annotations__}
    return body, cast("CallOptions", options)
