"""Run steps: https://platform.openai.com/docs/api-reference/run-steps/step-object"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, PlainText, Unknown, may_be_text
from asyncruns.wire.common import LastError, Metadata, Time, Usage


class MessageCreation(Object, frozen=True, kw_only=True, gc=False):
    """The id of the message that the step created."""

    message_id: str = ""


class MessageCreationStepDetails(Object, frozen=True, kw_only=True, tag_field="type", tag="message_creation"):
    """A step that created a message."""

    type: ClassVar[Literal["message_creation"]] = "message_creation"
    message_creation: Annotated[MessageCreation, may_be_text(lambda text: {"message_id": text})] = MessageCreation()


class StepFunction(Object, frozen=True, kw_only=True, gc=False):
    """The function of a call; `output` is null until the caller has submitted it."""

    name: str = ""
    arguments: JsonText = ""
    output: Maybe[JsonText] = UNSET


class FunctionToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A call of the caller's function."""

    type: ClassVar[Literal["function"]] = "function"
    id: str = ""
    function: StepFunction = StepFunction()


class CodeInterpreterImageFile(Object, frozen=True, kw_only=True, gc=False):
    """The file of an image that the code created."""

    file_id: str = ""


class CodeInterpreterLogs(Object, frozen=True, kw_only=True, tag_field="type", tag="logs", gc=False):
    """The output text of the code."""

    type: ClassVar[Literal["logs"]] = "logs"
    logs: PlainText = ""


class CodeInterpreterImage(Object, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image that the code created."""

    type: ClassVar[Literal["image"]] = "image"
    image: CodeInterpreterImageFile = CodeInterpreterImageFile()


_AnyOutput = Annotated[
    CodeInterpreterLogs | CodeInterpreterImage | Unknown, may_be_text(lambda text: {"type": "logs", "logs": text})
]


class CodeInterpreter(Object, frozen=True, kw_only=True):
    """The code and its outputs."""

    input: str = ""
    outputs: Maybe[Annotated[list[_AnyOutput], may_be_text(lambda text: [text])]] = UNSET


class CodeInterpreterToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter"):
    """A call of the code interpreter."""

    type: ClassVar[Literal["code_interpreter"]] = "code_interpreter"
    id: str = ""
    code_interpreter: CodeInterpreter = CodeInterpreter()


class FileSearchToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="file_search"):
    """A file search: its `ranking_options` and `results`, which have `content` only if requested with `include`."""

    type: ClassVar[Literal["file_search"]] = "file_search"
    id: str = ""
    file_search: Maybe[dict[str, Any]] = UNSET


class RetrievalToolCall(Object, frozen=True, kw_only=True, tag_field="type", tag="retrieval"):
    """A file search, as v1 of the API names it."""

    type: ClassVar[Literal["retrieval"]] = "retrieval"
    id: str = ""
    retrieval: Maybe[dict[str, Any]] = UNSET


StepToolCall = FunctionToolCall | CodeInterpreterToolCall | FileSearchToolCall | RetrievalToolCall | Unknown


class ToolCallsStepDetails(Object, frozen=True, kw_only=True, tag_field="type", tag="tool_calls"):
    """A step that called tools."""

    type: ClassVar[Literal["tool_calls"]] = "tool_calls"
    tool_calls: Maybe[list[StepToolCall]] = UNSET


class RunStep(Object, frozen=True, kw_only=True):
    """A step of a run. Servers send `expires_at`; the documentation says `expired_at`."""

    id: str
    status: str
    object: str = "thread.run.step"
    created_at: Time = UNSET
    assistant_id: Maybe[str] = UNSET
    thread_id: Maybe[str] = UNSET
    run_id: Maybe[str] = UNSET
    type: Maybe[str] = UNSET
    step_details: Maybe[MessageCreationStepDetails | ToolCallsStepDetails | Unknown] = UNSET
    last_error: Maybe[LastError] = UNSET
    expires_at: Time = UNSET
    expired_at: Time = UNSET
    cancelled_at: Time = UNSET
    failed_at: Time = UNSET
    completed_at: Time = UNSET
    metadata: Metadata = UNSET
    usage: Maybe[Usage] = UNSET
