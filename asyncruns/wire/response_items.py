"""The items of a response, of its output and of its input: https://platform.openai.com/docs/api-reference/responses

Names follow the official client, where it has one for the same thing. A message is one struct here, whoever wrote it.
What a server may change without notice (actions, results) is kept as it came.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, PlainText, Unknown, may_be_text, text_of_unknown
from asyncruns.wire.response_parts import ResponseContent, ResponseInputText, ResponseOutputText

_AnyContent = Annotated[ResponseContent, may_be_text(lambda text: {"type": "output_text", "text": text})]


class ResponseMessage(Object, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message: the model's (role `assistant`), or one that was given to it.

    `phase` is `commentary` or `final_answer` where the model says which.
    """

    type: ClassVar[Literal["message"]] = "message"
    id: str = ""
    role: str = ""
    content: Maybe[str | Annotated[list[_AnyContent], may_be_text(lambda text: [text])]] = UNSET
    status: Maybe[str] = UNSET
    phase: Maybe[str] = UNSET

    @property
    def text(self) -> str:
        """Its text, the model's or a user's, joined; "" for a message without text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(_text_in(part) for part in self.content or [])


def _text_in(part: ResponseContent) -> str:
    if isinstance(part, ResponseOutputText | ResponseInputText):
        return part.text
    return text_of_unknown(part) if isinstance(part, Unknown) else ""


class ReasoningText(Object, frozen=True, kw_only=True, gc=False):
    """A piece of reasoning, or of a summary of it; `type` is `reasoning_text` or `summary_text`."""

    type: str = ""
    text: PlainText = ""


class ResponseReasoningItem(Object, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought: summaries mostly, and `encrypted_content` where `include` asks for it."""

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    id: str = ""
    summary: Maybe[list[ReasoningText]] = UNSET
    content: Maybe[list[ReasoningText]] = UNSET
    encrypted_content: Maybe[str] = UNSET
    status: Maybe[str] = UNSET


class ResponseCompactionItem(Object, frozen=True, kw_only=True, tag_field="type", tag="compaction", gc=False):
    """What an earlier part of the conversation was compacted to."""

    type: ClassVar[Literal["compaction"]] = "compaction"
    id: str = ""
    encrypted_content: Maybe[str] = UNSET


# Calls that wait for the caller. `call_id` is what an output names; `id` is the item's own.


class ResponseFunctionToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call of a function of the caller's; `arguments` is JSON text as the model wrote it, maybe broken."""

    type: ClassVar[Literal["function_call"]] = "function_call"
    call_id: str
    name: str = ""
    arguments: JsonText = ""
    id: str = ""
    namespace: Maybe[str] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseCustomToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call"):
    """A call of a custom tool of the caller's; `input` is any text."""

    type: ClassVar[Literal["custom_tool_call"]] = "custom_tool_call"
    call_id: str
    name: str = ""
    input: JsonText = ""
    id: str = ""
    namespace: Maybe[str] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseComputerToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="computer_call"):
    """Something to do at a computer of the caller's: one `action`, or several `actions`."""

    type: ClassVar[Literal["computer_call"]] = "computer_call"
    call_id: str
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    actions: Maybe[list[Any]] = UNSET
    pending_safety_checks: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseFunctionShellToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="shell_call"):
    """Commands for a shell: the caller's, or that of a container of the server's, as `environment` says."""

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
    """A file of the caller's to create, change or delete."""

    type: ClassVar[Literal["apply_patch_call"]] = "apply_patch_call"
    call_id: str
    id: str = ""
    operation: Maybe[dict[str, Any]] = UNSET
    caller: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseToolSearchCall(Object, frozen=True, kw_only=True, tag_field="type", tag="tool_search_call"):
    """A search for tools. Only where `execution` is `client` does it wait for the caller."""

    type: ClassVar[Literal["tool_search_call"]] = "tool_search_call"
    id: str = ""
    call_id: Maybe[str] = UNSET
    execution: Maybe[str] = UNSET
    arguments: Any = UNSET
    status: Maybe[str] = UNSET


class McpApprovalRequest(Object, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_request", gc=False):
    """A call of a tool behind the server that waits for an approval, which names its `id`."""

    type: ClassVar[Literal["mcp_approval_request"]] = "mcp_approval_request"
    id: str
    name: str = ""
    server_label: str = ""
    arguments: JsonText = ""


# Calls that the server does itself


class ResponseFunctionWebSearch(Object, frozen=True, kw_only=True, tag_field="type", tag="web_search_call"):
    """A search in the web, or a page that was opened there."""

    type: ClassVar[Literal["web_search_call"]] = "web_search_call"
    id: str = ""
    action: Maybe[dict[str, Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseFileSearchToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="file_search_call"):
    """A search in vector stores; `results` only when `include` asks for them."""

    type: ClassVar[Literal["file_search_call"]] = "file_search_call"
    id: str = ""
    queries: Maybe[list[str]] = UNSET
    results: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ResponseCodeInterpreterToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter_call"):
    """Code that ran in a container; `outputs` (logs and images) only when `include` asks for them."""

    type: ClassVar[Literal["code_interpreter_call"]] = "code_interpreter_call"
    id: str = ""
    code: Maybe[str] = UNSET
    container_id: Maybe[str] = UNSET
    outputs: Maybe[list[Any]] = UNSET
    status: Maybe[str] = UNSET


class ImageGenerationCall(Object, frozen=True, kw_only=True, tag_field="type", tag="image_generation_call"):
    """An image that was made; `result` is base64."""

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
    """A call of a tool behind the server, done: its `output`, or the `error`."""

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
    """The tools that a server of tools has."""

    type: ClassVar[Literal["mcp_list_tools"]] = "mcp_list_tools"
    id: str = ""
    server_label: str = ""
    tools: Maybe[list[Any]] = UNSET
    error: Maybe[str | dict[str, Any]] = UNSET


# What answers calls


class ResponseFunctionToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"
):
    """The output of a `function_call`: a text, or a list of parts."""

    type: ClassVar[Literal["function_call_output"]] = "function_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[str | list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseCustomToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call_output"
):
    """The output of a `custom_tool_call`: a text, or a list of parts."""

    type: ClassVar[Literal["custom_tool_call_output"]] = "custom_tool_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[str | list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseComputerToolCallOutputItem(
    Object, frozen=True, kw_only=True, tag_field="type", tag="computer_call_output"
):
    """What a `computer_call` led to: a screenshot."""

    type: ClassVar[Literal["computer_call_output"]] = "computer_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[dict[str, Any]] = UNSET
    acknowledged_safety_checks: Maybe[list[Any]] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class ResponseFunctionShellToolCallOutput(Object, frozen=True, kw_only=True, tag_field="type", tag="shell_call_output"):
    """What the commands of a `shell_call` wrote, and how each ended."""

    type: ClassVar[Literal["shell_call_output"]] = "shell_call_output"
    call_id: Maybe[str] = UNSET
    output: Maybe[list[Any]] = UNSET
    max_output_length: Maybe[int] = UNSET
    id: str = ""
    status: Maybe[str] = UNSET


class LocalShellCallOutput(Object, frozen=True, kw_only=True, tag_field="type", tag="local_shell_call_output"):
    """What the command of a `local_shell_call` wrote; `id` is the `call_id` of the call."""

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
    """Whether the call of an `mcp_approval_request` may be done."""

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
