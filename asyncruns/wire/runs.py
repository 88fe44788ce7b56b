"""Runs: https://platform.openai.com/docs/api-reference/runs/object"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, Unknown
from asyncruns.wire.common import LastError, Metadata, Time, Tool, ToolResources, Usage


class Function(Object, frozen=True, kw_only=True, gc=False):
    """The function that the model calls; `arguments` is JSON text as the model wrote it, possibly malformed."""

    name: str = ""
    arguments: JsonText = ""


class RequiredActionFunctionToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="function", gc=False):
    """A function call whose output the run waits for."""

    type: ClassVar[Literal["function"]] = "function"
    id: str
    function: Function = Function()


class RequiredActionMCPToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp", gc=False):
    """A call of a tool of an MCP server, which waits for the caller's approval (Azure AI Foundry)."""

    type: ClassVar[Literal["mcp"]] = "mcp"
    id: str
    name: str = ""
    server_label: str = ""
    arguments: JsonText = ""


ToolCall = RequiredActionFunctionToolCall | RequiredActionMCPToolCall | Unknown


class SubmitToolOutputs(Object, frozen=True, kw_only=True):
    """The calls whose outputs, or approvals, the run waits for."""

    tool_calls: Maybe[list[ToolCall]] = UNSET


class RequiredAction(Object, frozen=True, kw_only=True):
    """What the run waits for. The set of types is open; `submit_tool_approval` is Azure's."""

    type: Maybe[str] = UNSET
    submit_tool_outputs: Maybe[SubmitToolOutputs] = UNSET
    submit_tool_approval: Maybe[SubmitToolOutputs] = UNSET


class IncompleteDetails(Object, frozen=True, kw_only=True, gc=False):
    """Why a run is incomplete: `max_completion_tokens`, `max_prompt_tokens`, or another reason."""

    reason: Maybe[str] = UNSET


class TruncationStrategy(Object, frozen=True, kw_only=True, gc=False):
    """How the thread is truncated before the run."""

    type: Maybe[str] = UNSET
    last_messages: Maybe[int] = UNSET


class Run(Object, frozen=True, kw_only=True):
    """A run, of v1 or v2 of the API.

    All fields except `id` and `status` may be absent (UNSET; `thread_id` is "") or null (None); all of these are false.
    """

    id: str
    status: str
    object: str = "thread.run"
    created_at: Time = UNSET
    thread_id: str = ""
    assistant_id: Maybe[str] = UNSET
    required_action: Maybe[RequiredAction] = UNSET
    last_error: Maybe[LastError] = UNSET
    expires_at: Time = UNSET
    started_at: Time = UNSET
    cancelled_at: Time = UNSET
    failed_at: Time = UNSET
    completed_at: Time = UNSET
    incomplete_details: Maybe[IncompleteDetails] = UNSET
    model: Maybe[str] = UNSET
    instructions: Maybe[str] = UNSET
    tools: Maybe[list[Tool]] = UNSET
    tool_resources: Maybe[ToolResources] = UNSET
    file_ids: Maybe[list[str]] = UNSET
    metadata: Metadata = UNSET
    usage: Maybe[Usage] = UNSET
    temperature: Maybe[float] = UNSET
    top_p: Maybe[float] = UNSET
    max_prompt_tokens: Maybe[int] = UNSET
    max_completion_tokens: Maybe[int] = UNSET
    truncation_strategy: Maybe[TruncationStrategy] = UNSET
    tool_choice: Maybe[str | dict[str, Any]] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    response_format: Maybe[str | dict[str, Any]] = UNSET
    reasoning_effort: Maybe[str] = UNSET
