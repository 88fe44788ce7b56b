"""The items in the output and the input of a response: https://platform.openai.com/docs/api-reference/responses

The names are those of the official client, if it has one for the same thing. All messages are one struct here, those of
the model and of users. Values that a server may change without notice (actions, results) are kept as sent.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, PlainText, Unknown, may_be_text, text_of_unknown
from asyncruns.wire.response_parts import (
    ResponseContent,
    ResponseInputText,
    ResponseOutputRefusal,
    ResponseOutputText,
)

_AnyContent = Annotated[ResponseContent, may_be_text(lambda text: {"type": "output_text", "text": text})]


class ResponseMessage(Object, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message: written by the model (role `assistant`), or passed to it.

    `phase` is `commentary` or `final_answer`, if the model sets it.
    """

    type: ClassVar[Literal["message"]] = "message"
    id: str = ""
    role: str = ""
    content: Maybe[str | Annotated[list[_AnyContent], may_be_text(lambda text: [text])]] = UNSET
    status: Maybe[str] = UNSET
    phase: Maybe[str] = UNSET

    @property
    def text(self) -> str:
        """Its text parts, joined; "" for a message without text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(_text_in(part) for part in self.content or [])

    @property
    def refusal(self) -> str:
        """What the model wrote instead of an answer, if it refused; otherwise ""."""
        parts = [] if isinstance(self.content, str) else self.content or []
        return "".join(part.refusal for part in parts if isinstance(part, ResponseOutputRefusal))


def _text_in(part: ResponseContent) -> str:
    if isinstance(part, ResponseOutputText | ResponseInputText):
        return part.text
    return text_of_unknown(part) if isinstance(part, Unknown) else ""


class ReasoningText(Object, frozen=True, kw_only=True, gc=False):
    """A part of the model's reasoning or of its summary; `type` is `reasoning_text` or `summary_text`."""

    type: str = ""
    text: PlainText = ""


class ResponseReasoningItem(Object, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """The model's reasoning: usually only its summary, and `encrypted_content` if requested with `include`."""

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    id: str = ""
    summary: Maybe[list[ReasoningText]] = UNSET
    content: Maybe[list[ReasoningText]] = UNSET
    encrypted_content: Maybe[str] = UNSET
    status: Maybe[str] = UNSET


class ResponseCompactionItem(Object, frozen=True, kw_only=True, tag_field="type", tag="compaction", gc=False):
    """The compacted form of an earlier part of the conversation."""

    type: ClassVar[Literal["compaction"]] = "compaction"
    id: str = ""
    encrypted_content: Maybe[str] = UNSET


# Calls that wait for the caller. An output names the `call_id`; `id` is the id of the item itself.


class ResponseFunctionToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call of the caller's function; `arguments` is JSON text as the model wrote it, possibly malformed."""

    type: ClassVar[Literal["function_call"]] = "function_call"
    call_id: str
    name: str = ""
    arguments: JsonText = ""
    id: str = ""
    namespace: Maybe[str] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseCustomToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call"):
    """A call of the caller's custom tool; `input` is any text."""

    type: ClassVar[Literal["custom_tool_call"]] = "custom_tool_call"
    call_id: str
    name: str = ""
    input: JsonText = ""
    id: str = ""
    namespace: Maybe[str] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseComputerToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="computer_call"):
    """One `action`, or several `actions`, to perform on the caller's computer."""

    type: ClassVar[Literal["computer_call"]] = "computer_call"
    call_id: str
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    actions: Maybe[list[Any]] = UNSET
    pending_safety_checks: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseFunctionShellToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="shell_call"):
    """Commands for a shell: the caller's or, by its `environment`, the one of a container at the server."""

    type: ClassVar[Literal["shell_call"]] = "shell_call"
    call_id: str
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    environment: Maybe[dict[str, Any]] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class LocalShellCall(Object, frozen=True, kw_only=True, tag_field="type", tag="local_shell_call"):
    """A command for the caller's shell."""

    type: ClassVar[Literal["local_shell_call"]] = "local_shell_call"
    call_id: str
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseApplyPatchToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="apply_patch_call"):
    """A file to create, change or delete on the caller's side."""

    type: ClassVar[Literal["apply_patch_call"]] = "apply_patch_call"
    call_id: str
    id: str = ""
    operation: Maybe[dict[str, Any]] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseToolSearchCall(Object, frozen=True, kw_only=True, tag_field="type", tag="tool_search_call"):
    """A search for tools. It waits for the caller only if `execution` is `client`."""

    type: ClassVar[Literal["tool_search_call"]] = "tool_search_call"
    id: str = ""
    call_id: Maybe[str] = UNSET
    execution: Maybe[str] = UNSET
    arguments: Any = UNSET
    status: Maybe[str] = UNSET


class McpApprovalRequest(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_request", gc=False):
    """A call of a tool of an MCP server that waits for the caller's approval, which names its `id`."""

    type: ClassVar[Literal["mcp_approval_request"]] = "mcp_approval_request"
    id: str
    name: str = ""
    server_label: str = ""
    arguments: JsonText = ""


# Calls that the server runs itself


class ResponseFunctionWebSearch(Object, frozen=True, kw_only=True, tag_field="type", tag="web_search_call"):
    """A web search, or the opening of a web page."""

    type: ClassVar[Literal["web_search_call"]] = "web_search_call"
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseFileSearchToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="file_search_call"):
    """A search in vector stores; with `results` only if requested with `include`."""

    type: ClassVar[Literal["file_search_call"]] = "file_search_call"
    id: str = ""
    queries: Maybe[list[str]] = UNSET
    results: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseCodeInterpreterToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter_call"):
    """Code that ran in a container; with `outputs` (logs and images) only if requested with `include`."""

    type: ClassVar[Literal["code_interpreter_call"]] = "code_interpreter_call"
    id: str = ""
    code: Maybe[str] = UNSET
    container_id: Maybe[str] = UNSET
    outputs: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ImageGenerationCall(Object, frozen=True, kw_only=True, tag_field="type", tag="image_generation_call"):
    """A generated image; `result` is base64."""

    type: ClassVar[Literal["image_generation_call"]] = "image_generation_call"
    id: str = ""
    result: Maybe[str] = UNSET
    revised_prompt: Maybe[str] = UNSET
    output_format: Maybe[str] = UNSET
    size: Maybe[str] = UNSET
    quality: Maybe[str] = UNSET
    background: Maybe[str] = UNSET
    action: Maybe[str] = UNSET
    error: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class McpCall(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp_call"):
    """A call of a tool of an MCP server, with its `output` or `error`."""

    type: ClassVar[Literal["mcp_call"]] = "mcp_call"
    id: str = ""
    name: str = ""
    server_label: str = ""
    arguments: JsonText = ""
    approval_request_id: Maybe[str] = UNSET
    output: Maybe[str] = UNSET
    error: Maybe[str | dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class McpListTools(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp_list_tools"):
    """The tools that an MCP server has."""

    type: ClassVar[Literal["mcp_list_tools"]] = "mcp_list_tools"
    id: str = ""
    server_label: str = ""
    tools: Maybe[list[Any]] = UNSET
    error: Maybe[str | dict[str, Any]] = UNSET


# Outputs of calls


class ResponseFunctionToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"
):
    """The output of a `function_call`: a string, or a list of parts."""

    type: ClassVar[Literal["function_call_output"]] = "function_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[str | list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseCustomToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call_output"
):
    """The output of a `custom_tool_call`: a string, or a list of parts."""

    type: ClassVar[Literal["custom_tool_call_output"]] = "custom_tool_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[str | list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseComputerToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="computer_call_output"
):
    """The output of a `computer_call`: a screenshot."""

    type: ClassVar[Literal["computer_call_output"]] = "computer_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[dict[str, Any]] = UNSET
    acknowledged_safety_checks: Maybe[list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseFunctionShellToolCallOutput(Object, frozen=True, kw_only=True, tag_field="type", tag="shell_call_output"):
    """The output of the commands of a `shell_call`, and how each of them ended."""

    type: ClassVar[Literal["shell_call_output"]] = "shell_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[list[Any]] = UNSET
    max_output_length: Maybe[int] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class LocalShellCallOutput(Object, frozen=True, kw_only=True, tag_field="type", tag="local_shell_call_output"):
    """The output of the command of a `local_shell_call`; `id` is the `call_id` of the call."""

    type: ClassVar[Literal["local_shell_call_output"]] = "local_shell_call_output"
    id: str = ""
    output: JsonText = ""
    status: Maybe[str] = UNSET


class ResponseApplyPatchToolCallOutput(
    Object, frozen=True, kw_only=True, tag_field="type", tag="apply_patch_call_output", gc=False
):
    """Whether the patch of an `apply_patch_call` was applied: `status` is `completed` or `failed`."""

    type: ClassVar[Literal["apply_patch_call_output"]] = "apply_patch_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[str] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseToolSearchOutputItem(Object, frozen=True, kw_only=True, tag_field="type", tag="tool_search_output"):
    """The tools that a `tool_search_call` found."""

    type: ClassVar[Literal["tool_search_output"]] = "tool_search_output"
    call_id: Maybe[str] = UNSET
    execution: Maybe[str] = UNSET
    tools: Maybe[list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class McpApprovalResponse(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_response", gc=False):
    """The decision whether the call of an `mcp_approval_request` may run."""

    type: ClassVar[Literal["mcp_approval_response"]] = "mcp_approval_response"
    approval_request_id: Maybe[str] = UNSET
    approve: Maybe[bool] = UNSET
    reason: Maybe[str] = UNSET
    id: str = ""


ResponseItem = (
    ResponseMessage
    | ResponseReasoningItem
    | ResponseCompactionItem
    | ResponseFunctionToolCall
    | ResponseFunctionToolCallOutputItem
    | ResponseCustomToolCall
    | ResponseCustomToolCallOutputItem
    | ResponseComputerToolCall
    | ResponseComputerToolCallOutputItem
    | ResponseFunctionShellToolCall
    | ResponseFunctionShellToolCallOutput
    | LocalShellCall
    | LocalShellCallOutput
    | ResponseApplyPatchToolCall
    | ResponseApplyPatchToolCallOutput
    | ResponseToolSearchCall
    | ResponseToolSearchOutputItem
    | McpApprovalRequest
    | McpApprovalResponse
    | ResponseFunctionWebSearch
    | ResponseFileSearchToolCall
    | ResponseCodeInterpreterToolCall
    | ImageGenerationCall
    | McpCall
    | McpListTools
    | Unknown
)
