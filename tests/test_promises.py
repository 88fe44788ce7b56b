"""What is promised to users: the names that they import, and what they see of the objects that they hold."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import asyncruns
from asyncruns import BearerAuth, Client, Completed, Fleet, RunWatcher, Watch
from asyncruns.cadence import Cadence
from asyncruns.fleet.create_request import ARGUMENTS
from asyncruns.streams.response_stream import ResponseStream
from asyncruns.streams.run_stream import RunStream

PACKAGE = Path(asyncruns.__file__).parent
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)

# The whole surface is in the README; these are the names that code outside of this repository stands on.
NAMES = [
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
    "ProgressChanged",
    "RateLimitError",
    "PostgresJournal",
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
DEEP_NAMES = (
    "wire.decode",
    "wire.encode",
    "sse.Decoder.feed",
    "sse.Decoder.close",
    "abc.Dialect",
    "abc.Transport",
    "http.Request",
    "http.Response",
    "lifecycle.RunRef",
    "Toolset.tool",
    "Toolset.call",
    "Toolset.definitions",
    "client.Client",
    "testing.Emulator",
    "testing.Fault",
    "testing.FunctionCall",
    "testing.InMemoryTransport",
    "testing.Recorder",
    "testing.Replay",
    "testing.Scenario",
    "testing.VirtualTimeLoop",
)
OPTIONS = (
    "tools", "timeout", "max_outage", "max_unknown_status", "max_concurrent_calls", "max_rounds", "observe_only",
    "keep_tool_choice", "context", "label", "output_type",
    "cadence", "on_lost_submit", "on_event", "on_status", "on_requires_action", "on_approval", "on_terminal",
)  # fmt: skip
SEEN: dict[str, tuple[Any, str]] = {
    "Client": (
        Client,
        "answer anthropic assistants azure batches beta cancel_run close dialect files for_run from_env from_openai "
        "message_batches messages poll_now portkey responses resume run run_steps runs threads transport watch "
        "webhooks base_url",
    ),
    "Fleet": (
        Fleet,
        "add_many cancel_run drain is_running keep_open poll_now record resume run run_many statistics watch",
    ),
    "Watch": (
        Watch,
        "cancel cancel_run created explain is_active label outcome poll_now polls recorded ref status submit subscribe "
        "token traceparent wait",
    ),
    "RunWatcher": (
        RunWatcher,
        "cancel_run label outcome poll_now polls ref run status stream_events submit subscribe text_deltas token "
        "traceparent wait",
    ),
    "Cadence": (Cadence, "backoff fixed hinted learned"),
    "RunStream": (
        RunStream,
        "close error is_done is_whole message messages ref request_id run step steps text_deltas thread",
    ),
    "ResponseStream": (
        ResponseStream,
        "close error is_done is_whole ref request_id response sequence_number text_deltas",
    ),
    "Outcome": (
        Completed,
        "at calls cancel_error cancel_requested cause context elapsed error label messages outputs parsed polls reason "
        "reconcile ref refs refusal results run run_elapsed status text timeline to_dict to_json token unanswered "
        "unwrap usage",
    ),
}  # fmt: skip


def test_the_root_has_these_names() -> None:
    assert sorted(NAMES) == asyncruns.__all__


@pytest.mark.parametrize("name", DEEP_NAMES)
def test_a_deep_name_is_there(name: str) -> None:
    assert _found(asyncruns, name) is not None


def test_a_watch_has_these_options() -> None:
    from asyncruns.watch.options import SharedOptions, WatchOptions

    assert tuple(SharedOptions.__annotations__) == OPTIONS
    assert set(WatchOptions.__annotations__) == {*OPTIONS, "on_exit"}


@pytest.mark.parametrize("name", SEEN)
def test_dir_shows_what_users_call_and_nothing_else(name: str) -> None:
    kind, names = SEEN[name]
    attributes = {line for line in _assigned(kind) if not line.startswith("_")}
    seen = {each for each in dir(kind) if not each.startswith("_")} | attributes
    assert sorted(seen) == sorted(names.split())


async def test_objects_have_no_other_attributes_than_their_classes_say() -> None:
    async with Client("http://127.0.0.1:1/v1", auth=BearerAuth("key")) as client:
        made = [client, Fleet(client), RunWatcher(client, thread_id="thread_1", run_id="run_1"), Cadence.learned()]
        for each in made:
            _, names = SEEN[type(each).__name__]
            assert {name for name in dir(each) if not name.startswith("_")} == set(names.split())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_says_what_of_it_is_public(package: Path) -> None:
    module = importlib.import_module(".".join(package.relative_to(PACKAGE.parent).parts))
    said = re.search(r"Public: (.+?)\.(?:\s|$)", inspect.getdoc(module) or "", re.DOTALL)
    assert said is not None, "its docstring has no sentence that begins with `Public:`"
    for name in re.findall(r"`([\w.]+)`", said[1]):
        if name != "__all__" and not name.startswith("client."):
            assert _found(module, name) is not None


def _found(module: Any, dotted: str) -> Any:
    found = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found


def _assigned(kind: type) -> set[str]:
    """Return the names that the initialisers of a class and its bases give to an instance."""
    made = [each.__dict__["__init__"] for each in kind.__mro__ if inspect.isfunction(each.__dict__.get("__init__"))]
    sources = map(inspect.getsource, made)
    return {name for source in sources for name in re.findall(r"^\s+self\.(\w+)\b[^=\n]*=", source, re.MULTILINE)}


def test_a_fleet_creates_with_all_that_client_run_takes() -> None:
    taken = set(inspect.signature(Client.run).parameters) - {"self", "options"}
    assert taken == ARGUMENTS
