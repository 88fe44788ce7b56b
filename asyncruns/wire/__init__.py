"""What is on the wire, and nothing else: msgspec structs, and `decode` and `encode`.

The many structs of a response are loaded when the first of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from asyncruns.wire.assistants import Assistant
from asyncruns.wire.codec import Maybe, Object, Unknown, decode, encode
from asyncruns.wire.common import (
    CodeInterpreterTool,
    Deleted,
    ErrorBody,
    FileSearchTool,
    FunctionDefinition,
    FunctionTool,
    LastError,
    Page,
    RetrievalTool,
    Tool,
    ToolResources,
    Usage,
    epoch_seconds,
)
from asyncruns.wire.runs import (
    Function,
    IncompleteDetails,
    RequiredAction,
    RequiredActionFunctionToolCall,
    RequiredActionMCPToolCall,
    Run,
    SubmitToolOutputs,
    ToolCall,
    TruncationStrategy,
)
from asyncruns.wire.steps import (
    CodeInterpreterToolCall,
    FileSearchToolCall,
    FunctionToolCall,
    MessageCreationStepDetails,
    RetrievalToolCall,
    RunStep,
    ToolCallsStepDetails,
)
from asyncruns.wire.threads import (
    Attachment,
    ImageFileContentBlock,
    ImageURLContentBlock,
    Message,
    RefusalContentBlock,
    Text,
    TextContentBlock,
    Thread,
)

if TYPE_CHECKING:
    from asyncruns.wire.response_items import (
        ImageGenerationCall,
        LocalShellCall,
        LocalShellCallOutput,
        McpApprovalRequest,
        McpApprovalResponse,
        McpCall,
        McpListTools,
        ReasoningText,
        ResponseApplyPatchToolCall,
        ResponseApplyPatchToolCallOutput,
        ResponseCodeInterpreterToolCall,
        ResponseCompactionItem,
        ResponseComputerToolCall,
        ResponseComputerToolCallOutputItem,
        ResponseCustomToolCall,
        ResponseCustomToolCallOutputItem,
        ResponseFileSearchToolCall,
        ResponseFunctionShellToolCall,
        ResponseFunctionShellToolCallOutput,
        ResponseFunctionToolCall,
        ResponseFunctionToolCallOutputItem,
        ResponseFunctionWebSearch,
        ResponseItem,
        ResponseMessage,
        ResponseReasoningItem,
        ResponseToolSearchCall,
        ResponseToolSearchOutputItem,
    )
    from asyncruns.wire.response_parts import (
        ResponseAnnotation,
        ResponseContainerFileCitation,
        ResponseContent,
        ResponseFileCitation,
        ResponseFilePath,
        ResponseInputFile,
        ResponseInputImage,
        ResponseInputText,
        ResponseOutputRefusal,
        ResponseOutputText,
        ResponseURLCitation,
    )
    from asyncruns.wire.responses import (
        InputTokensDetails,
        ModelResponse,
        OutputTokensDetails,
        ResponseConversation,
        ResponseError,
        ResponseUsage,
    )

__all__ = [
    "Assistant",
    "Attachment",
    "CodeInterpreterTool",
    "CodeInterpreterToolCall",
    "Deleted",
    "ErrorBody",
    "FileSearchTool",
    "FileSearchToolCall",
    "Function",
    "FunctionDefinition",
    "FunctionTool",
    "FunctionToolCall",
    "ImageFileContentBlock",
    "ImageGenerationCall",
    "ImageURLContentBlock",
    "IncompleteDetails",
    "InputTokensDetails",
    "LastError",
    "LocalShellCall",
    "LocalShellCallOutput",
    "Maybe",
    "McpApprovalRequest",
    "McpApprovalResponse",
    "McpCall",
    "McpListTools",
    "Message",
    "MessageCreationStepDetails",
    "ModelResponse",
    "Object",
    "OutputTokensDetails",
    "Page",
    "ReasoningText",
    "RefusalContentBlock",
    "RequiredAction",
    "RequiredActionFunctionToolCall",
    "RequiredActionMCPToolCall",
    "ResponseAnnotation",
    "ResponseApplyPatchToolCall",
    "ResponseApplyPatchToolCallOutput",
    "ResponseCodeInterpreterToolCall",
    "ResponseCompactionItem",
    "ResponseComputerToolCall",
    "ResponseComputerToolCallOutputItem",
    "ResponseContainerFileCitation",
    "ResponseContent",
    "ResponseConversation",
    "ResponseCustomToolCall",
    "ResponseCustomToolCallOutputItem",
    "ResponseError",
    "ResponseFileCitation",
    "ResponseFilePath",
    "ResponseFileSearchToolCall",
    "ResponseFunctionShellToolCall",
    "ResponseFunctionShellToolCallOutput",
    "ResponseFunctionToolCall",
    "ResponseFunctionToolCallOutputItem",
    "ResponseFunctionWebSearch",
    "ResponseInputFile",
    "ResponseInputImage",
    "ResponseInputText",
    "ResponseItem",
    "ResponseMessage",
    "ResponseOutputRefusal",
    "ResponseOutputText",
    "ResponseReasoningItem",
    "ResponseToolSearchCall",
    "ResponseToolSearchOutputItem",
    "ResponseURLCitation",
    "ResponseUsage",
    "RetrievalTool",
    "RetrievalToolCall",
    "Run",
    "RunStep",
    "SubmitToolOutputs",
    "Text",
    "TextContentBlock",
    "Thread",
    "Tool",
    "ToolCall",
    "ToolCallsStepDetails",
    "ToolResources",
    "TruncationStrategy",
    "Unknown",
    "Usage",
    "decode",
    "encode",
    "epoch_seconds",
]

_LATE: Final = ("responses", "response_items", "response_parts")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{late}" for late in _LATE)):
            if hasattr(module, name):
                value = globals()[name] = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
