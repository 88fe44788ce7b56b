"""Watch remote agent runs: a typed asyncio client and watcher.

Names are imported when they are first used, so that importing the lifecycle alone does not import aiohttp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from asyncruns._version import __version__ as __version__

if TYPE_CHECKING:
    from asyncruns.cadence import Cadence as Cadence
    from asyncruns.client.client import Client as Client
    from asyncruns.dialects.result_lines import BatchResult as BatchResult
    from asyncruns.errors import APIConnectionError as APIConnectionError
    from asyncruns.errors import APIError as APIError
    from asyncruns.errors import APIResponseValidationError as APIResponseValidationError
    from asyncruns.errors import APIStatusError as APIStatusError
    from asyncruns.errors import APITimeoutError as APITimeoutError
    from asyncruns.errors import AsyncRunsError as AsyncRunsError
    from asyncruns.errors import AuthenticationError as AuthenticationError
    from asyncruns.errors import BadRequestError as BadRequestError
    from asyncruns.errors import BatchGroupError as BatchGroupError
    from asyncruns.errors import CallNotAnsweredError as CallNotAnsweredError
    from asyncruns.errors import ConfigurationError as ConfigurationError
    from asyncruns.errors import ConflictError as ConflictError
    from asyncruns.errors import EventTooLargeError as EventTooLargeError
    from asyncruns.errors import InternalServerError as InternalServerError
    from asyncruns.errors import InvalidOutputError as InvalidOutputError
    from asyncruns.errors import InvalidRequestError as InvalidRequestError
    from asyncruns.errors import InvalidWebhookSignatureError as InvalidWebhookSignatureError
    from asyncruns.errors import JournalError as JournalError
    from asyncruns.errors import NotFoundError as NotFoundError
    from asyncruns.errors import NotOwnerError as NotOwnerError
    from asyncruns.errors import OpenAIError as OpenAIError
    from asyncruns.errors import PermissionDeniedError as PermissionDeniedError
    from asyncruns.errors import RateLimitError as RateLimitError
    from asyncruns.errors import RefusalError as RefusalError
    from asyncruns.errors import RunCancelledError as RunCancelledError
    from asyncruns.errors import RunError as RunError
    from asyncruns.errors import RunExpiredError as RunExpiredError
    from asyncruns.errors import RunFailedError as RunFailedError
    from asyncruns.errors import RunGoneError as RunGoneError
    from asyncruns.errors import RunIncompleteError as RunIncompleteError
    from asyncruns.errors import RunNeedsCallerError as RunNeedsCallerError
    from asyncruns.errors import ThreadBusyError as ThreadBusyError
    from asyncruns.errors import ToolError as ToolError
    from asyncruns.errors import UnprocessableEntityError as UnprocessableEntityError
    from asyncruns.errors import WatchGaveUpError as WatchGaveUpError
    from asyncruns.fleet import CreateRequest as CreateRequest
    from asyncruns.fleet import Fleet as Fleet
    from asyncruns.fleet import Statistics as Statistics
    from asyncruns.fleet import Watch as Watch
    from asyncruns.journal.memory import MemoryJournal as MemoryJournal
    from asyncruns.journal.postgres import PostgresJournal as PostgresJournal
    from asyncruns.journal.sqlite import SQLiteJournal as SQLiteJournal
    from asyncruns.lifecycle import ActionRequired as ActionRequired
    from asyncruns.lifecycle import Call as Call
    from asyncruns.lifecycle import CallAnswered as CallAnswered
    from asyncruns.lifecycle import CallsLeftToServer as CallsLeftToServer
    from asyncruns.lifecycle import CancelRefused as CancelRefused
    from asyncruns.lifecycle import Connectivity as Connectivity
    from asyncruns.lifecycle import ConnectivityChanged as ConnectivityChanged
    from asyncruns.lifecycle import Counts as Counts
    from asyncruns.lifecycle import CurrentState as CurrentState
    from asyncruns.lifecycle import EndRevoked as EndRevoked
    from asyncruns.lifecycle import Gap as Gap
    from asyncruns.lifecycle import OutputsSubmitted as OutputsSubmitted
    from asyncruns.lifecycle import Phase as Phase
    from asyncruns.lifecycle import ProgressChanged as ProgressChanged
    from asyncruns.lifecycle import Reason as Reason
    from asyncruns.lifecycle import RunLifecycle as RunLifecycle
    from asyncruns.lifecycle import RunRef as RunRef
    from asyncruns.lifecycle import Snapshot as Snapshot
    from asyncruns.lifecycle import StatusChanged as StatusChanged
    from asyncruns.lifecycle import StreamBroken as StreamBroken
    from asyncruns.lifecycle import TextAdded as TextAdded
    from asyncruns.lifecycle import TokenUsage as TokenUsage
    from asyncruns.lifecycle import ToolReported as ToolReported
    from asyncruns.resources.batch_group import BatchGroup as BatchGroup
    from asyncruns.resources.batch_group import BatchPart as BatchPart
    from asyncruns.resources.group_outcome import GroupOutcome as GroupOutcome
    from asyncruns.resources.response_parameters import ResponseParameters as ResponseParameters
    from asyncruns.resources.run_parameters import RunParameters as RunParameters
    from asyncruns.resources.webhooks import WebhookEvent as WebhookEvent
    from asyncruns.streams.event_handler import AssistantEventHandler as AssistantEventHandler
    from asyncruns.streams.event_handler import AsyncAssistantEventHandler as AsyncAssistantEventHandler
    from asyncruns.streams.run_stream import RunStream as RunStream
    from asyncruns.tools import ToolContext as ToolContext
    from asyncruns.tools import Toolset as Toolset
    from asyncruns.tools import to_thread as to_thread
    from asyncruns.transport.auth import ApiKeyAuth as ApiKeyAuth
    from asyncruns.transport.auth import Auth as Auth
    from asyncruns.transport.auth import BearerAuth as BearerAuth
    from asyncruns.transport.auth import NoAuth as NoAuth
    from asyncruns.transport.auth import PortkeyAuth as PortkeyAuth
    from asyncruns.watch.call_answerer import Calls as Calls
    from asyncruns.watch.observers import Ended as Ended
    from asyncruns.watch.outcome import AnyOutcome as AnyOutcome
    from asyncruns.watch.outcome import Cancelled as Cancelled
    from asyncruns.watch.outcome import Completed as Completed
    from asyncruns.watch.outcome import Expired as Expired
    from asyncruns.watch.outcome import Failed as Failed
    from asyncruns.watch.outcome import GaveUp as GaveUp
    from asyncruns.watch.outcome import Incomplete as Incomplete
    from asyncruns.watch.outcome import NeedsCaller as NeedsCaller
    from asyncruns.watch.outcome import Outcome as Outcome
    from asyncruns.watch.reconciliation import Reconciliation as Reconciliation
    from asyncruns.watch.watcher import RunWatcher as RunWatcher

_HOMES: Final = {
    "APIConnectionError": "asyncruns.errors",
    "APIError": "asyncruns.errors",
    "APIResponseValidationError": "asyncruns.errors",
    "APIStatusError": "asyncruns.errors",
    "APITimeoutError": "asyncruns.errors",
    "ActionRequired": "asyncruns.lifecycle",
    "AnyOutcome": "asyncruns.watch.outcome",
    "ApiKeyAuth": "asyncruns.transport.auth",
    "AssistantEventHandler": "asyncruns.streams.event_handler",
    "AsyncAssistantEventHandler": "asyncruns.streams.event_handler",
    "AsyncRunsError": "asyncruns.errors",
    "Auth": "asyncruns.transport.auth",
    "AuthenticationError": "asyncruns.errors",
    "BadRequestError": "asyncruns.errors",
    "BatchGroup": "asyncruns.resources.batch_group",
    "BatchGroupError": "asyncruns.errors",
    "BatchPart": "asyncruns.resources.batch_group",
    "BatchResult": "asyncruns.dialects.result_lines",
    "BearerAuth": "asyncruns.transport.auth",
    "Cadence": "asyncruns.cadence",
    "Call": "asyncruns.lifecycle",
    "CallAnswered": "asyncruns.lifecycle",
    "CallNotAnsweredError": "asyncruns.errors",
    "Calls": "asyncruns.watch.call_answerer",
    "CallsLeftToServer": "asyncruns.lifecycle",
    "CancelRefused": "asyncruns.lifecycle",
    "Cancelled": "asyncruns.watch.outcome",
    "Client": "asyncruns.client.client",
    "Completed": "asyncruns.watch.outcome",
    "ConfigurationError": "asyncruns.errors",
    "ConflictError": "asyncruns.errors",
    "Connectivity": "asyncruns.lifecycle",
    "ConnectivityChanged": "asyncruns.lifecycle",
    "Counts": "asyncruns.lifecycle",
    "CreateRequest": "asyncruns.fleet",
    "CurrentState": "asyncruns.lifecycle",
    "EndRevoked": "asyncruns.lifecycle",
    "Ended": "asyncruns.watch.observers",
    "EventTooLargeError": "asyncruns.errors",
    "Expired": "asyncruns.watch.outcome",
    "Failed": "asyncruns.watch.outcome",
    "Fleet": "asyncruns.fleet",
    "Gap": "asyncruns.lifecycle",
    "GaveUp": "asyncruns.watch.outcome",
    "GroupOutcome": "asyncruns.resources.group_outcome",
    "Incomplete": "asyncruns.watch.outcome",
    "InternalServerError": "asyncruns.errors",
    "InvalidOutputError": "asyncruns.errors",
    "InvalidRequestError": "asyncruns.errors",
    "InvalidWebhookSignatureError": "asyncruns.errors",
    "JournalError": "asyncruns.errors",
    "MemoryJournal": "asyncruns.journal.memory",
    "NeedsCaller": "asyncruns.watch.outcome",
    "NoAuth": "asyncruns.transport.auth",
    "NotFoundError": "asyncruns.errors",
    "NotOwnerError": "asyncruns.errors",
    "OpenAIError": "asyncruns.errors",
    "Outcome": "asyncruns.watch.outcome",
    "OutputsSubmitted": "asyncruns.lifecycle",
    "PermissionDeniedError": "asyncruns.errors",
    "Phase": "asyncruns.lifecycle",
    "PortkeyAuth": "asyncruns.transport.auth",
    "ProgressChanged": "asyncruns.lifecycle",
    "RateLimitError": "asyncruns.errors",
    "PostgresJournal": "asyncruns.journal.postgres",
    "Reason": "asyncruns.lifecycle",
    "Reconciliation": "asyncruns.watch.reconciliation",
    "RefusalError": "asyncruns.errors",
    "ResponseParameters": "asyncruns.resources.response_parameters",
    "RunCancelledError": "asyncruns.errors",
    "RunError": "asyncruns.errors",
    "RunExpiredError": "asyncruns.errors",
    "RunFailedError": "asyncruns.errors",
    "RunGoneError": "asyncruns.errors",
    "RunIncompleteError": "asyncruns.errors",
    "RunLifecycle": "asyncruns.lifecycle",
    "RunNeedsCallerError": "asyncruns.errors",
    "RunParameters": "asyncruns.resources.run_parameters",
    "RunRef": "asyncruns.lifecycle",
    "RunStream": "asyncruns.streams.run_stream",
    "RunWatcher": "asyncruns.watch.watcher",
    "SQLiteJournal": "asyncruns.journal.sqlite",
    "Snapshot": "asyncruns.lifecycle",
    "Statistics": "asyncruns.fleet",
    "StatusChanged": "asyncruns.lifecycle",
    "StreamBroken": "asyncruns.lifecycle",
    "TextAdded": "asyncruns.lifecycle",
    "ThreadBusyError": "asyncruns.errors",
    "TokenUsage": "asyncruns.lifecycle",
    "ToolContext": "asyncruns.tools",
    "ToolError": "asyncruns.errors",
    "ToolReported": "asyncruns.lifecycle",
    "Toolset": "asyncruns.tools",
    "UnprocessableEntityError": "asyncruns.errors",
    "Watch": "asyncruns.fleet",
    "WatchGaveUpError": "asyncruns.errors",
    "WebhookEvent": "asyncruns.resources.webhooks",
    "to_thread": "asyncruns.tools",
}

# Public modules: `asyncruns.testing.Emulator` works after `import asyncruns`.
_PARTS: Final = ("errors", "sse", "testing", "wire")

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActionRequired",
    "AnyOutcome",
    "ApiKeyAuth",
    "AssistantEventHandler",
    "AsyncAssistantEventHandler",
    "AsyncRunsError",
    "Auth",
    "AuthenticationError",
    "BadRequestError",
    "BatchGroup",
    "BatchGroupError",
    "BatchPart",
    "BatchResult",
    "BearerAuth",
    "Cadence",
    "Call",
    "CallAnswered",
    "CallNotAnsweredError",
    "Calls",
    "CallsLeftToServer",
    "CancelRefused",
    "Cancelled",
    "Client",
    "Completed",
    "ConfigurationError",
    "ConflictError",
    "Connectivity",
    "ConnectivityChanged",
    "Counts",
    "CreateRequest",
    "CurrentState",
    "EndRevoked",
    "Ended",
    "EventTooLargeError",
    "Expired",
    "Failed",
    "Fleet",
    "Gap",
    "GaveUp",
    "GroupOutcome",
    "Incomplete",
    "InternalServerError",
    "InvalidOutputError",
    "InvalidRequestError",
    "InvalidWebhookSignatureError",
    "JournalError",
    "MemoryJournal",
    "NeedsCaller",
    "NoAuth",
    "NotFoundError",
    "NotOwnerError",
    "OpenAIError",
    "Outcome",
    "OutputsSubmitted",
    "PermissionDeniedError",
    "Phase",
    "PortkeyAuth",
    "PostgresJournal",
    "ProgressChanged",
    "RateLimitError",
    "Reason",
    "Reconciliation",
    "RefusalError",
    "ResponseParameters",
    "RunCancelledError",
    "RunError",
    "RunExpiredError",
    "RunFailedError",
    "RunGoneError",
    "RunIncompleteError",
    "RunLifecycle",
    "RunNeedsCallerError",
    "RunParameters",
    "RunRef",
    "RunStream",
    "RunWatcher",
    "SQLiteJournal",
    "Snapshot",
    "Statistics",
    "StatusChanged",
    "StreamBroken",
    "TextAdded",
    "ThreadBusyError",
    "TokenUsage",
    "ToolContext",
    "ToolError",
    "ToolReported",
    "Toolset",
    "UnprocessableEntityError",
    "Watch",
    "WatchGaveUpError",
    "WebhookEvent",
    "to_thread",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"asyncruns.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
