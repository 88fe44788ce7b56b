"""Runs of threads: the OpenAI Assistants wire, as served by Azure AI Foundry, Portkey and self-hosted servers.

https://platform.openai.com/docs/api-reference/runs
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from asyncruns.abc import Dialect
from asyncruns.dialects.errors import (
    bad_answer,
    busy_error,
    check_is_of,
    error_object,
    has_no_cancel,
    redacted,
    refusal_kind,
    status_error,
)
from asyncruns.dialects.given import check_ids, given_run
from asyncruns.errors import APIStatusError, InvalidRequestError
from asyncruns.http import Request, Response, join_path, require_id, server_time, wait_hint
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.run_shapes import no_run
from asyncruns.lifecycle.values import (
    Answers,
    Call,
    CallKind,
    Refusal,
    RefusalKind,
    RunFault,
    RunRef,
    Snapshot,
    TokenUsage,
    approval_of,
)
from asyncruns.limits import Limits
from asyncruns.wire import Run, decode, encode, status_names
from asyncruns.wire.common import Usage, count_in, epoch_seconds
from asyncruns.wire.names import THREAD_RUN
from asyncruns.wire.runs import RequiredActionFunctionToolCall, RequiredActionMCPToolCall, ToolCall

# https://platform.openai.com/docs/assistants/deep-dive#run-lifecycle
RUN_PHASES: Final[Mapping[str, Phase]] = {
    status_names.QUEUED: Phase.PENDING,
    status_names.IN_PROGRESS: Phase.RUNNING,
    status_names.REQUIRES_ACTION: Phase.NEEDS_CALLER,
    status_names.CANCELLING: Phase.CANCELLING,
    status_names.CANCELLED: Phase.CANCELLED,
    status_names.FAILED: Phase.FAILED,
    status_names.COMPLETED: Phase.SUCCEEDED,
    status_names.INCOMPLETE: Phase.INCOMPLETE,
    status_names.EXPIRED: Phase.EXPIRED,
}

# Tools that the server runs itself. Their calls may be listed in `submit_tool_outputs`, but need no outputs.
# https://learn.microsoft.com/azure/ai-foundry/agents/how-to/tools/overview
SERVER_SIDE: Final = frozenset(
    {
        "azure_ai_search",
        "azure_function",
        "bing_custom_search",
        "bing_grounding",
        "browser_automation",
        "code_interpreter",
        "connected_agent",
        "deep_research",
        "fabric_dataagent",
        "file_search",
        "mcp",
        "openapi",
        "sharepoint_grounding",
    }
)


# The meaning of error texts. `code` is null in about half of the error responses, so nothing better is available. `re`
# compiles each pattern when an error first needs it. The group is a status, or the id of the active run.
_PROSE: Final = (
    (r"""in status ["'](\w+)["'] do(?:es)? not accept tool outputs""", RefusalKind.NOT_ACCEPTING),
    (r"""cannot cancel run with status ["'](\w+)["']""", RefusalKind.ALREADY_OVER),
    (r"already has an active run ([^\s.]+)", RefusalKind.BUSY),
    (r"while a run ([^\s.]+) is active", RefusalKind.BUSY),
)


class ThreadRunDialect(Dialect[Run]):
    """The dialect of `GET /threads/{thread_id}/runs/{run_id}`."""

    name = THREAD_RUN
    limits: Limits | None = Limits()

    def __init__(self, *, host: str = "") -> None:
        """Create the dialect; the host is only used in error messages."""
        self._host = host

    def given(self, run: object) -> Any:
        return given_run(run)

    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        run = given_run(run)
        if isinstance(run, RunRef):
            if run.dialect != self.name or len(run.ids) != 2:
                raise InvalidRequestError(
                    f"{run!r} does not name a run of a thread, which is RunRef({self.name!r}, (thread_id, run_id))"
                )
            check_ids(*run.ids)
            return run
        if isinstance(run, Run):
            known = {"thread_id": run.thread_id or ids.get("thread_id"), "run_id": run.id}
            for name, given in ids.items():
                if given != known.get(name):
                    raise InvalidRequestError(f"{name}={given!r} contradicts the run, which has {known.get(name)!r}")
            return self.ref(known["thread_id"], known["run_id"])
        if run is None and ids:
            return self.ref(ids.get("thread_id"), ids.get("run_id"))
        raise no_run(run, "Expected a run, a RunRef, or thread_id and run_id")

    def ref(self, thread_id: str | None, run_id: str | None) -> RunRef:
        """Return the ref of a run by its ids.

        Raises:
            InvalidRequestError: An id is missing or cannot be one, or the two are swapped.
        """
        thread_id, run_id = require_id("thread_id", thread_id), require_id("run_id", run_id)
        check_ids(thread_id, run_id)
        ref = RunRef(self.name, (thread_id, run_id))
        _run_path(ref)  # raises if an id would change the path
        return ref

    def snapshot(self, resource: Run) -> Snapshot[Run]:
        return _snapshot(resource, {})

    def poll(self, ref: RunRef) -> Request:
        return Request("GET", _run_path(ref))

    def read(self, request: Request, response: Response) -> Snapshot[Run]:
        try:
            run = decode(response.body, Run)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error
        thread_id, run_id = _ids_in(request)
        check_is_of(request, response, run_id=(run_id, run.id), thread_id=(thread_id, run.thread_id))
        return redacted(_snapshot(run, response.headers), response.redact)

    def submit(
        self, ref: RunRef, snapshot: Snapshot[Run], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        outputs, approvals = [], []
        for call, output in answers:
            if call.kind is CallKind.APPROVAL:
                approvals.append({**(approval_of(output) or {"approve": False}), "tool_call_id": call.id})
            else:
                outputs.append({"tool_call_id": call.id, "output": output})
        # If there are only approvals, `tool_outputs` is omitted; without either, an empty list is sent.
        body = {"tool_outputs": outputs} if outputs or not approvals else {}
        if approvals:
            body["tool_approvals"] = approvals
        return Request("POST", _run_path(ref) + "/submit_tool_outputs", body=encode(body))

    def cancel(self, ref: RunRef) -> Request:
        return Request("POST", _run_path(ref) + "/cancel")

    def refusal(self, request: Request, response: Response) -> Refusal:
        error = error_object(response)
        cause: APIStatusError = status_error(request, response, host=self._host)
        kind = refusal_kind(response, error)
        if has_no_cancel(request, response, error):
            kind = RefusalKind.UNSUPPORTED
        # Under other statuses the text proves nothing: a 500 may quote anything.
        phase = active_run = None
        for pattern, meaning in _PROSE if response.status in (400, 409, 422) else ():
            if found := re.search(pattern, error.message or "", re.IGNORECASE):
                kind = meaning
                phase = RUN_PHASES.get(found[1])
                if meaning is RefusalKind.BUSY:
                    active_run = found[1]
                    cause = busy_error(request, response, thread_id=_ids_in(request)[0], active_run_id=active_run)
        return Refusal(
            kind=kind, cause=cause, retry_after=wait_hint(response.headers), phase=phase, active_run=active_run
        )


def _run_path(ref: RunRef) -> str:
    thread_id, run_id = ref.ids
    return join_path("threads", thread_id, "runs", run_id)


def _ids_in(request: Request) -> tuple[str, str]:
    """Return the ids in `/threads/{thread_id}/runs/{run_id}/...`; "" for each one that the path does not have."""
    parts = request.path.split("/")
    if len(parts) < 4 or parts[1] != "threads":
        return "", ""
    return unquote(parts[2]), unquote(parts[4]) if len(parts) > 4 and parts[3] == "runs" else ""


def _snapshot(run: Run, headers: Mapping[str, str]) -> Snapshot[Run]:
    phase = RUN_PHASES.get(run.status, Phase.UNKNOWN)
    fault = None
    if run.last_error:
        fault = RunFault(run.last_error.code or "", run.last_error.message or "")
    elif run.incomplete_details:
        fault = RunFault(run.incomplete_details.reason or "", "")
    return Snapshot(
        phase=phase,
        status=run.status,
        resource=run,
        calls=_calls(run) if phase is Phase.NEEDS_CALLER else (),  # some servers leave `required_action` set
        fault=fault,
        expires_at=epoch_seconds(run.expires_at),
        server_time=server_time(headers),
        created_at=epoch_seconds(run.created_at),
        ended_at=_ended_at(run, phase) if phase.is_terminal else None,
        group=(run.assistant_id or "", run.model or ""),
        hint=wait_hint(headers),
        usage=_usage(run.usage) if run.usage else None,
    )


_ENDED_AT: Final = {
    Phase.SUCCEEDED: "completed_at",
    Phase.FAILED: "failed_at",
    Phase.CANCELLED: "cancelled_at",
    Phase.INCOMPLETE: "completed_at",
}


def _ended_at(run: Run, phase: Phase) -> float | None:
    return epoch_seconds(getattr(run, _ENDED_AT[phase])) if phase in _ENDED_AT else None


def _usage(used: Usage) -> TokenUsage:
    return TokenUsage(
        input_tokens=used.prompt_tokens or 0,
        output_tokens=used.completion_tokens or 0,
        total_tokens=used.total_tokens or 0,
        cached_tokens=count_in(used.prompt_token_details, "cached_tokens"),
        reasoning_tokens=count_in(used.completion_tokens_details, "reasoning_tokens"),
    )


def _calls(run: Run) -> tuple[Call, ...]:
    action = run.required_action
    if not action:
        return ()
    outputs, approvals = action.submit_tool_outputs, action.submit_tool_approval
    return (
        *(_call(call, _kind(call)) for call in (outputs and outputs.tool_calls) or ()),
        *(_call(call, CallKind.APPROVAL) for call in (approvals and approvals.tool_calls) or ()),
    )


def _kind(call: ToolCall) -> CallKind:
    if isinstance(call, RequiredActionFunctionToolCall):
        return CallKind.FUNCTION
    return CallKind.SERVER if call.type in SERVER_SIDE else CallKind.OTHER


def _call(call: ToolCall, kind: CallKind) -> Call:
    if isinstance(call, RequiredActionFunctionToolCall):
        return Call(id=call.id, name=call.function.name, arguments=call.function.arguments, kind=kind)
    # A call of an unknown type is listed with the fields that it has, so that the caller can recognize it.
    if isinstance(call, RequiredActionMCPToolCall):
        facts = {"name": call.name, "arguments": call.arguments, "server_label": call.server_label}
    else:
        found = {name: call.raw.get(name) for name in ("name", "arguments", "server_label")}
        facts = {name: value for name, value in found.items() if isinstance(value, str)}
    named = {"name": "", "arguments": "", "server_label": "", **facts}
    return Call(
        id=call.id,
        name=named["name"],
        arguments=named["arguments"],
        server_label=named["server_label"],
        kind=kind,
        type=call.type,
    )
