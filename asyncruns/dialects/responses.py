"""Background responses: `GET /responses/{id}`, as OpenAI, Azure, vLLM, SGLang and others serve it.

https://platform.openai.com/docs/guides/background

This API has no pause: a response that requests tool calls is completed, and their outputs are submitted by creating
another response, the follow-up, which names the first as `previous_response_id` and needs all parameters again. So the
ref of a watch changes with each round, and if the HTTP response to a create is lost, polls cannot find the follow-up:
its id is unknown, and the API has no list of responses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from asyncruns.abc import Dialect
from asyncruns.dialects.errors import (
    bad_answer,
    check_is_of,
    error_object,
    has_no_cancel,
    redacted,
    refusal_kind,
    status_error,
)
from asyncruns.dialects.given import given_run
from asyncruns.errors import InvalidRequestError
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
from asyncruns.wire import ModelResponse, Unknown, decode, encode, response_items, status_names
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.names import RESPONSE
from asyncruns.wire.responses import ResponseUsage

RESPONSE_PHASES: Final[Mapping[str, Phase]] = {
    status_names.QUEUED: Phase.PENDING,
    status_names.IN_PROGRESS: Phase.RUNNING,
    status_names.COMPLETED: Phase.SUCCEEDED,  # NEEDS_CALLER if its output has open calls, see `_snapshot`
    status_names.FAILED: Phase.FAILED,
    status_names.CANCELLED: Phase.CANCELLED,
    status_names.INCOMPLETE: Phase.INCOMPLETE,
}

# The values of `background_options.completion_window`, which set the expiry of a response. A response that may take
# hours is polled every 30 s, unless the server asks for another pause.
# https://platform.openai.com/docs/guides/background
WINDOWS_S: Final[Mapping[str, float]] = {"2h": 7200.0, "8h": 28800.0}
WINDOW_HINT_S: Final = 30.0

# A background response without a window may take hours, too. No window is longer than 24 h, so a response that has not
# ended after a day never will.
WITHOUT_EXPIRY_S: Final = 86400.0

# Parameters that a response echoes and that its follow-up needs again, since it inherits none.
ECHOED: Final = (
    "model",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "temperature",
    "top_p",
    "max_output_tokens",
    "max_tool_calls",
    "truncation",
    "metadata",
)

# For each type of call that the caller answers: the type of the output item, and its field for the id of the call.
ANSWERED_BY: Final[Mapping[str, tuple[str, str]]] = {
    "function_call": ("function_call_output", "call_id"),
    "custom_tool_call": ("custom_tool_call_output", "call_id"),
    "computer_call": ("computer_call_output", "call_id"),
    "shell_call": ("shell_call_output", "call_id"),
    "local_shell_call": ("local_shell_call_output", "id"),
    "apply_patch_call": ("apply_patch_call_output", "call_id"),
    "tool_search_call": ("tool_search_output", "call_id"),
    "mcp_approval_request": ("mcp_approval_response", "approval_request_id"),
}
# Of the parameters and of their tools; a URL may have a key in it.
# https://platform.openai.com/docs/guides/tools-connectors-mcp
_SECRET_FIELDS: Final = ("authorization", "headers", "api_key", "api_base", "base_url", "server_url")
_CREATE: Final = "/responses"
_NAMED: Final = frozenset(ANSWERED_BY) - {"shell_call", "tool_search_call"}  # the server itself may answer these two
_TEXTS: Final = frozenset({"function_call", "custom_tool_call", "local_shell_call"})  # their output may be any text

_OVER: Final = r"cannot cancel|already (?:been )?(?:completed|cancell?ed|finished)|not cancell?able"
# Some servers return a response before it can be continued (0.3 to 8 s earlier at vLLM, OGX and others).
_UNSTORED: Final = r"previous_response_not_found|previous.response.{0,80}not.found"


class ResponsesDialect(Dialect[ModelResponse]):
    """The dialect of `GET /responses/{response_id}`.

    Args:
        continue_with: The parameters with which follow-ups are created; by default those that the response echoes.
        like: A request whose query, headers and timeout all requests of this dialect repeat.
    """

    name = RESPONSE
    shows_submits = False
    without_expiry = WITHOUT_EXPIRY_S

    def __init__(self, continue_with: Mapping[str, Any] | None = None, *, like: Request | None = None) -> None:
        self._continue_with = continue_with
        self._like = like

    def _request(self, method: str, path: str, body: bytes | None = None) -> Request:
        if self._like is None:
            return Request(method, path, body=body)
        return replace(self._like, method=method, path=path, body=body)

    def given(self, run: object) -> Any:
        return given_run(run)

    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        run = given_run(run)
        if ids:
            raise InvalidRequestError("A response is identified by its own id: pass the response, or a RunRef")
        if isinstance(run, RunRef):
            if run.dialect != self.name or len(run.ids) != 1:
                raise InvalidRequestError(
                    f"{run!r} does not name a response, which is RunRef({self.name!r}, (response_id,))"
                )
            return self.ref(*run.ids)
        if isinstance(run, ModelResponse):
            return self.ref(run.id)
        raise no_run(run, "Expected a response or a RunRef")

    def ref(self, response_id: str) -> RunRef:
        """Return the ref of a response by its id.

        Raises:
            InvalidRequestError: It cannot be an id.
        """
        response_id = require_id("response_id", response_id)
        join_path(response_id)
        return RunRef(self.name, (response_id,))

    def snapshot(self, resource: ModelResponse) -> Snapshot[ModelResponse]:
        return self._snapshot(resource, {})

    def poll(self, ref: RunRef) -> Request:
        return self._request("GET", join_path("responses", *ref.ids))

    def read(self, request: Request, response: Response) -> Snapshot[ModelResponse]:
        try:
            read = decode(response.body, ModelResponse)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error
        if request.path == _CREATE:
            try:
                self.ref(read.id)  # the id goes into the path of the next poll
            except InvalidRequestError as error:
                raise bad_answer(request, response, error) from error
            requested, received = _previous_in(request), read.previous_response_id
            # LiteLLM, for example, replaces ids by its own, of another length, but not in this field. So ids of
            # different lengths prove nothing.
            if received and len(received) == len(requested):
                check_is_of(request, response, previous_response_id=(requested, received))
        else:
            check_is_of(request, response, response_id=(unquote(request.path.split("/")[2]), read.id))
        return redacted(self._snapshot(read, response.headers), response.redact)

    def submit(
        self, ref: RunRef, snapshot: Snapshot[ModelResponse], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        body = _echo(snapshot.resource) if self._continue_with is None else {**self._continue_with}
        if "tool_choice" in body and not keep_tool_choice:
            body["tool_choice"] = _unforced(body["tool_choice"])
        if snapshot.resource.model:
            body.setdefault("model", snapshot.resource.model)
        if snapshot.resource.conversation and snapshot.resource.conversation.id:
            body.setdefault("conversation", snapshot.resource.conversation.id)
        options = {**_echoed_options(snapshot.resource), **_mapping(body.get("background_options"))}
        if options:
            body["background_options"] = options
        if body.get("conversation"):
            body.pop("previous_response_id", None)  # the API accepts only one of the two
        else:
            body.pop("conversation", None)
            body["previous_response_id"] = ref.ids[0]
        body |= {"input": [_item(call, output) for call, output in answers], "background": True}
        return self._request("POST", _CREATE, encode(body))

    def cancel(self, ref: RunRef) -> Request:
        return self._request("POST", join_path("responses", *ref.ids, "cancel"))

    def reopen(self, ref: RunRef, after: int | None) -> tuple[Request, ...]:
        # https://platform.openai.com/docs/guides/background#streaming-a-background-response; fastresponses has its own
        # path, `/responses/{response_id}/events`.
        number = () if after is None else (("starting_after", str(after)),)
        whole, own = self.poll(ref), self._request("GET", join_path("responses", *ref.ids, "events"))
        return (
            replace(whole, query=(*whole.query, ("stream", "true"), *number)),
            replace(own, query=(*own.query, *number)),
        )

    def carried_parameters(self) -> Mapping[str, Any] | None:
        given = self._continue_with
        if self._like is not None and (self._like.headers or self._like.query):
            raise InvalidRequestError("the follow-ups of this response have headers or a query of their own")
        if given is not None and (secret := _secret_in(given, given.get("tools"))):
            raise InvalidRequestError(f"the parameters or the tools of this response have {secret!r}")
        return given

    def refusal(self, request: Request, response: Response) -> Refusal:
        error = error_object(response)
        kind = refusal_kind(response, error)
        if has_no_cancel(request, response, error):
            kind = RefusalKind.UNSUPPORTED
        said = f"{error.code} {error.message}"
        # Quotas and temporary refusals are recognized above, on every wire; these texts are of this wire only.
        if response.status in (400, 409, 422) and kind is not RefusalKind.THROTTLED:
            is_conflict = response.status == 409
            if re.search(_UNSTORED, said, re.IGNORECASE):
                kind = RefusalKind.NOT_FOUND
            elif is_conflict and request.path == _CREATE:
                kind = RefusalKind.NOT_READY  # the previous response is still being stored; nothing was created
            elif request.path.endswith("/cancel") and (is_conflict or re.search(_OVER, said, re.IGNORECASE)):
                kind = RefusalKind.ALREADY_OVER
        return Refusal(kind=kind, cause=status_error(request, response), retry_after=wait_hint(response.headers))

    def _snapshot(self, response: ModelResponse, headers: Mapping[str, str]) -> Snapshot[ModelResponse]:
        phase = RESPONSE_PHASES.get(response.status, Phase.UNKNOWN)
        calls = _calls(response) if phase is Phase.SUCCEEDED else ()
        hint, expires_at = wait_hint(headers), None
        window = WINDOWS_S.get(str(self._window(response)))
        if window is not None:
            created = epoch_seconds(response.created_at)
            expires_at = None if created is None else created + window
            hint = WINDOW_HINT_S if hint is None else hint
        return Snapshot(
            phase=Phase.NEEDS_CALLER if calls else phase,
            status=response.status,
            resource=response,
            calls=calls,
            fault=_fault(response),
            expires_at=expires_at,
            server_time=server_time(headers),
            created_at=epoch_seconds(response.created_at),
            ended_at=epoch_seconds(response.completed_at),
            group=(response.model or "",),
            hint=hint,
            ref=RunRef(self.name, (response.id,)),
            is_final=bool(calls),
            usage=_usage(response.usage) if response.usage else None,
        )

    def _window(self, response: ModelResponse) -> object:
        given = _mapping((self._continue_with or {}).get("background_options"))
        return {**given, **_mapping(response.background_options)}.get("completion_window")


def _usage(used: ResponseUsage) -> TokenUsage:
    read, written = used.input_tokens_details, used.output_tokens_details
    return TokenUsage(
        input_tokens=used.input_tokens or 0,
        output_tokens=used.output_tokens or 0,
        total_tokens=used.total_tokens or 0,
        cached_tokens=(read.cached_tokens or 0) if read else 0,
        reasoning_tokens=(written.reasoning_tokens or 0) if written else 0,
    )


class _FollowUp(msgspec.Struct):
    """The part of a create's body that names the previous response."""

    previous_response_id: str = ""


def _previous_in(request: Request) -> str:
    return msgspec.json.decode(request.body or b"{}", type=_FollowUp).previous_response_id


def _echo(response: ModelResponse) -> dict[str, Any]:
    """Return the parameters that a response echoes, without the values that the server filled in itself."""
    body = {name: getattr(response, name) for name in ECHOED}
    body = {name: value for name, value in body.items() if value or value in (0, False)}  # not UNSET, None, "", [], {}
    for name in ("temperature", "top_p"):
        if body.get(name) == 1:  # the default, which some models refuse if it is sent
            del body[name]
    if not isinstance(body.get("instructions", ""), str):  # a list of items, which came from a prompt template
        del body["instructions"]
    return body


def _unforced(choice: Any) -> Any:
    """Return a tool choice that lets the model decide whether to call a tool: it has already made the forced call.

    https://platform.openai.com/docs/api-reference/responses/create#responses_create-tool_choice
    """
    if choice in (None, "auto", "none"):
        return choice
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": "auto"}
    return "auto"


def _secret_in(given: Mapping[str, Any], tools: object) -> str:
    """Return the first field that may hold a credential, as those of MCP servers do; "" if none does."""
    listed = [given, *(tools if isinstance(tools, list) else [])]
    return next((name for each in listed for name in _SECRET_FIELDS if _mapping(each).get(name)), "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _echoed_options(response: ModelResponse) -> Mapping[str, Any]:
    echoed = _mapping(response.background_options)
    return {name: echoed[name] for name in ("completion_window", "continuation_id") if echoed.get(name) is not None}


def _fault(response: ModelResponse) -> RunFault | None:
    if response.error:
        return RunFault(response.error.code or "", response.error.message or "")
    if response.incomplete_details:
        return RunFault(response.incomplete_details.reason or "", "")
    return None


def _calls(response: ModelResponse) -> tuple[Call, ...]:
    """Return the calls that the caller has to answer: a call that the server ran itself has an output item."""
    items = response.output or []
    answered = {answer for item in items if (answer := _answer_in(item)) is not None}
    return tuple(call for call in map(_call, items) if call is not None and call.id not in answered)


def _answer_in(item: response_items.ResponseItem) -> str | None:
    """Return the id of the call whose output an item is, or None."""
    match item:
        case response_items.McpCall() | response_items.McpApprovalResponse():
            return item.approval_request_id or None
        case response_items.LocalShellCallOutput():
            return item.id
        case (
            response_items.ResponseFunctionToolCallOutputItem()
            | response_items.ResponseCustomToolCallOutputItem()
            | response_items.ResponseComputerToolCallOutputItem()
            | response_items.ResponseFunctionShellToolCallOutput()
            | response_items.ResponseApplyPatchToolCallOutput()
            | response_items.ResponseToolSearchOutputItem()
        ):
            return item.call_id or None
        case _:
            return None


def _call(item: response_items.ResponseItem) -> Call | None:
    match item:
        case response_items.ResponseFunctionToolCall():
            is_cut = _is_cut(item)
            return Call(id=item.call_id, name=item.name, arguments=item.arguments, type=item.type, is_cut=is_cut)
        case response_items.ResponseCustomToolCall():
            return Call(id=item.call_id, name=item.name, arguments=item.input, kind=CallKind.OTHER, type=item.type)
        case response_items.McpApprovalRequest():
            return Call(
                id=item.id,
                name=item.name,
                arguments=item.arguments,
                kind=CallKind.APPROVAL,
                type=item.type,
                server_label=item.server_label,
            )
        case (
            response_items.ResponseComputerToolCall()
            | response_items.LocalShellCall()
            | response_items.ResponseApplyPatchToolCall()
        ):
            return _other(item, item.call_id)
        case response_items.ResponseFunctionShellToolCall() if not _is_of_a_container(item):
            return _other(item, item.call_id)
        case response_items.ResponseToolSearchCall() if item.execution == "client":
            return _other(item, item.call_id or "")
        case Unknown() if item.type in _NAMED:
            # A call that lacks a required field, such as its id. It cannot be answered, but the response waits for it.
            return _other(item, "")
        case _:
            return None


def _is_cut(item: response_items.ResponseFunctionToolCall) -> bool:
    """Return whether a call was cut off: the model did not finish writing it, although the response is completed."""
    if not isinstance(item.status, str) or item.status == status_names.COMPLETED:
        return False
    # Some servers leave finished items `in_progress`; these have arguments.
    return item.status == status_names.INCOMPLETE or not item.arguments.strip()


def _other(item: Any, call_id: str) -> Call:
    """Return a call that no function can answer; its arguments are the item as JSON text."""
    return Call(id=call_id, name="", arguments=encode(item).decode(), kind=CallKind.OTHER, type=item.type)


def _is_of_a_container(item: response_items.ResponseFunctionShellToolCall) -> bool:
    return str(_mapping(item.environment or None).get("type", "")).startswith("container")


def _item(call: Call, output: str) -> dict[str, Any]:
    """Return the input item that submits the output of a call.

    An output that is JSON is used as it fits the type of the call: a list is the item's `output` (or `tools`), and an
    object gives the item's fields. The screenshot of a `computer_call` may be passed without its `output` field.
    """
    type_, id_field = ANSWERED_BY.get(call.type, ANSWERED_BY["function_call"])
    item: dict[str, Any] = {"type": type_, id_field: call.id}
    if call.type == "tool_search_call":
        item["execution"] = "client"
    if call.kind is CallKind.APPROVAL:
        approval = approval_of(output) or {"approve": False}
        return item | {name: approval[name] for name in ("approve", "reason") if name in approval}
    if call.type in _TEXTS:
        return item | {"output": output}
    try:
        read = msgspec.json.decode(output)
    except msgspec.DecodeError:
        read = output
    if isinstance(read, list):
        return item | {"tools" if call.type == "tool_search_call" else "output": read}
    if not isinstance(read, dict):
        return item | {"output": output}
    is_output = call.type == "computer_call" and "output" not in read
    return {**({"output": read} if is_output else read), **item}  # `item` last: the id of the call must not be replaced
