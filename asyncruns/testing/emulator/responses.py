"""The responses of an emulator: creating them, continuing them, and the other operations of a client.

A `Scenario` is the course of a chain. The first response completes with the calls of the first round; the response that
answers these completes with the calls of the second round, and so on. A response that continues one without calls
starts another scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body, given, given_list, metadata_of, page, required_text
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.input_items import input_items, outputs_of, said_in
from asyncruns.testing.emulator.response import OPEN, AnsweredRound, EmulatedResponse
from asyncruns.testing.emulator.run import EmulatedCall, calls_of
from asyncruns.testing.emulator.scenario import RunRequest, Scenario, ScenarioSource
from asyncruns.testing.emulator.structured import check_text
from asyncruns.testing.emulator.timeline import reached

# "around ten minutes": https://platform.openai.com/docs/guides/background#limits
KEPT_UNSTORED_S: Final = 600.0
_SUCCESS: Final = 200


class EmulatedResponses:
    """Creates, cancels and deletes responses; times are epoch seconds.

    Args:
        scenario: What a response does if its model has no script.
        late_cancel: Status of the answer to a cancel of a response that has ended; 200 returns the response.
    """

    def __init__(self, ids: Ids, scenario: ScenarioSource, late_cancel: int) -> None:
        self._ids = ids
        self._scenario = scenario
        self._late_cancel = late_cancel
        self.scripts: dict[str, ScenarioSource] = {}
        self.all: dict[str, EmulatedResponse] = {}

    def create(self, body: Mapping[str, Any], now: float) -> Body:
        """Create a response; one in the foreground has already ended in the answer, unless its end is "never"."""
        settings = _settings(body)
        items = self._input(body)
        previous = self._previous(body, now)
        pending = () if previous is None else previous.pending(now)
        outputs = outputs_of(items, pending)
        said = said_in(items) or ("" if previous is None else previous.said)
        # Outputs of the previous response's calls continue its scenario; any other input starts a new one.
        if previous is not None and pending:
            scenario = previous.scenario
            answered = (*previous.answered, AnsweredRound(pending, {call.id: outputs[call.id] for call in pending}))
        else:
            scenario, answered = self._chosen(settings, said), ()
        response = self._add(scenario, answered, items, settings, said, bool(body.get("background")), now)
        response.streams = bool(body.get("stream"))
        return response.body(now)

    def _add(
        self,
        scenario: Scenario,
        answered: tuple[AnsweredRound, ...],
        items: list[Body],
        settings: Body,
        said: str,
        background: bool,
        now: float,
    ) -> EmulatedResponse:
        # After n answered rounds, this response has the calls of round n (from 0), or else the end of the scenario.
        place, calls = len(answered), tuple[EmulatedCall, ...]()
        if place < len(scenario.rounds):
            calls = calls_of(self._ids, scenario.rounds[place], reuse_ids=scenario.reuse_call_ids)
        response = EmulatedResponse(
            id=self._ids.new("resp"),
            created=now,
            scenario=scenario,
            background=background,
            answered=answered,
            calls=calls,
            item_ids=tuple(self._ids.new("fc") for _ in calls) or (self._ids.new("msg"),),
            input=tuple(items),
            settings=settings,
            said=said,
        )
        self.all[response.id] = response
        return response

    def retrieve(self, response_id: str, query: Mapping[str, str], now: float) -> Body:
        """Return a response's body, also for a request that resumes the stream, whose parameters are checked here."""
        response = self._find(response_id, now)
        after = query.get("starting_after")
        if query.get("stream") == "true":
            if not (response.streams and response.background):
                raise refusals.no_stream_of(response_id)
            if after is not None and not after.isdecimal():
                raise refusals.wrong_type("starting_after", "an integer", after)
        return response.body(now)

    def cancel(self, response_id: str, now: float) -> Body:
        """Begin to cancel a response in the background; a second cancel changes nothing."""
        response = self._find(response_id, now)
        status = response.status(now)
        if not response.background:
            raise refusals.synchronous()
        if status in OPEN and response.cancelled is None:
            response.cancelled = now
        elif status not in OPEN and status != "cancelled" and self._late_cancel != _SUCCESS:
            raise refusals.over(status, self._late_cancel)
        return response.body(now)

    def delete(self, response_id: str, now: float) -> Body:
        """Delete a response; it can no longer be continued."""
        self._find(response_id, now)
        del self.all[response_id]
        return {"id": response_id, "object": "response", "deleted": True}

    def list_input_items(self, response_id: str, query: Mapping[str, str], now: float) -> Body:
        """Return a page of the input of a response, without that of earlier responses."""
        return page(query, self._find(response_id, now).input, "item")

    def _find(self, response_id: str, now: float) -> EmulatedResponse:
        """Return a response; for a time in the past, as it was then."""
        response = self.all.get(response_id)
        if response is None or not reached(now, response.created) or not _is_kept(response, now):
            raise refusals.no_response(response_id)
        return response.as_of(now)

    def _input(self, body: Mapping[str, Any]) -> list[Body]:
        if body.get("input") is None and not body.get("previous_response_id"):
            raise refusals.missing("input")
        return input_items(given(body, "input", []), self._ids)

    def _previous(self, body: Mapping[str, Any], now: float) -> EmulatedResponse | None:
        response_id = body.get("previous_response_id")
        if response_id is None:
            return None
        previous = self.all.get(response_id) if isinstance(response_id, str) else None
        if previous is None or not _is_kept(previous, now):
            raise refusals.no_previous_response(str(response_id))
        status = previous.status(now)
        if status in OPEN:
            raise refusals.still_going(previous.id, status)
        return previous

    def _chosen(self, settings: Body, said: str) -> Scenario:
        source = self.scripts.get(settings["model"], self._scenario)
        if isinstance(source, Scenario):
            return source
        return source(
            RunRequest(
                assistant_id="",
                thread_id="",
                model=settings["model"],
                instructions=settings["instructions"],
                tools=tuple(settings["tools"]),
                metadata=settings["metadata"],
                tool_choice=settings["tool_choice"],
                parallel_tool_calls=settings["parallel_tool_calls"],
                message=said,
                number=len(self.all),
            )
        )


def answered_by(raw: bytes) -> str | None:
    """Return the id of the response whose calls a request answers, or None if it answers none."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    items = body.get("input") if isinstance(body, dict) else None
    if not isinstance(items, list):
        return None
    # Other types of outputs (computer calls, shells, approvals) make it a submit as well.
    kinds = (str(item.get("type", "")) for item in items if isinstance(item, dict))
    if not any(kind.endswith("_output") or kind == "mcp_approval_response" for kind in kinds):
        return None
    previous = body.get("previous_response_id")
    return previous if isinstance(previous, str) else None


def _is_kept(response: EmulatedResponse, now: float) -> bool:
    if response.settings["store"]:
        return True
    # Unstored responses in the background are kept for a while, so that they can be polled.
    return response.background and not reached(now, response.created + KEPT_UNSTORED_S)


def _settings(body: Mapping[str, Any]) -> Body:
    conversation = body.get("conversation")
    check_text(body.get("text"))
    return {
        "model": required_text(body, "model"),
        "instructions": body.get("instructions"),
        "previous_response_id": body.get("previous_response_id"),
        "conversation": {"id": conversation} if isinstance(conversation, str) else conversation,
        "tools": _tools(body),
        "tool_choice": given(body, "tool_choice", "auto"),
        "parallel_tool_calls": given(body, "parallel_tool_calls", True),
        "metadata": metadata_of(body),
        "reasoning": given(body, "reasoning", {"effort": None, "summary": None}),
        "text": given(body, "text", {"format": {"type": "text"}}),
        "temperature": given(body, "temperature", 1.0),
        "top_p": given(body, "top_p", 1.0),
        "top_logprobs": given(body, "top_logprobs", 0),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "truncation": given(body, "truncation", "disabled"),
        "service_tier": given(body, "service_tier", "default"),
        "store": given(body, "store", True),
        "user": body.get("user"),
    }


def _tools(body: Mapping[str, Any]) -> list[Any]:
    """Read the tools; a function must have a name, since the default scenario calls it."""
    tools = given_list(body, "tools")
    for place, tool in enumerate(tools):
        param = f"tools[{place}]"
        if not isinstance(tool, dict):
            raise refusals.wrong_type(param, "an object", tool)
        if "type" not in tool:
            raise refusals.missing(f"{param}.type")
        if tool["type"] == "function" and not isinstance(tool.get("name"), str):
            raise refusals.missing(f"{param}.name")
    return tools
