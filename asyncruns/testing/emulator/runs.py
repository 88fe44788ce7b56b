"""The runs of an emulator: creating them, reading them, and the other operations of a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.assistants import EmulatedAssistants
from asyncruns.testing.emulator.fields import Body, given, given_list, metadata_of, page, required_text, tools_of
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.run import EmulatedRun, Submission, calls_of
from asyncruns.testing.emulator.scenario import RunRequest, Scenario, ScenarioSource
from asyncruns.testing.emulator.structured import check_response_format
from asyncruns.testing.emulator.threads import EmulatedThread, EmulatedThreads
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES, reached


class EmulatedRuns:
    """Creates, reads, cancels and continues runs; times are epoch seconds.

    Args:
        scenario: What a run does if its assistant has no script.
    """

    def __init__(
        self, ids: Ids, assistants: EmulatedAssistants, threads: EmulatedThreads, scenario: ScenarioSource
    ) -> None:
        self._ids = ids
        self._assistants = assistants
        self._threads = threads
        self._scenario = scenario
        self.scripts: dict[str, ScenarioSource] = {}
        self.all: dict[str, EmulatedRun] = {}

    def create(self, thread_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Create a run; refused while another run is active on the thread."""
        thread = self._threads.find(thread_id, now)
        if thread.active is not None:
            raise refusals.has_active_run(thread_id, thread.active.id)
        return self._add(thread, body, now).body(now)

    def create_with_thread(self, body: Mapping[str, Any], now: float) -> Body:
        """Create a thread with its messages, and a run on it."""
        # Everything is checked before the thread is created, so that a refused request creates nothing.
        assistant = self._assistants.retrieve(required_text(body, "assistant_id"))
        settings = _settings(assistant, body)
        thread_body = given(body, "thread", {})
        if not isinstance(thread_body, dict):
            raise refusals.wrong_type("thread", "an object", thread_body)
        created = self._threads.create(thread_body, now)
        thread = self._threads.find(created["id"], now)
        return self._start(thread, assistant["id"], settings, now).body(now)

    def _add(self, thread: EmulatedThread, body: Mapping[str, Any], now: float) -> EmulatedRun:
        assistant = self._assistants.retrieve(required_text(body, "assistant_id"))
        settings = _settings(assistant, body)
        self._threads.add_messages(thread, given_list(body, "additional_messages"), now)
        return self._start(thread, assistant["id"], settings, now)

    def _start(self, thread: EmulatedThread, assistant_id: str, settings: Body, now: float) -> EmulatedRun:
        scenario = self._scenario_of(thread, assistant_id, settings)
        new = self._ids.new
        run = EmulatedRun(
            id=new("run"),
            thread_id=thread.body["id"],
            assistant_id=assistant_id,
            created=now,
            scenario=scenario,
            settings=settings,
            rounds=tuple(calls_of(self._ids, calls, reuse_ids=scenario.reuse_call_ids) for calls in scenario.rounds),
            step_ids=tuple(new("step") for _ in range(len(scenario.rounds) + 1)),
            message_id=new("msg"),
        )
        self.all[run.id] = thread.runs[run.id] = thread.active = run
        return run

    def _scenario_of(self, thread: EmulatedThread, assistant_id: str, settings: Body) -> Scenario:
        source = self.scripts.get(assistant_id, self._scenario)
        if isinstance(source, Scenario):
            return source
        return source(
            RunRequest(
                assistant_id=assistant_id,
                thread_id=thread.body["id"],
                model=settings["model"],
                instructions=settings["instructions"],
                tools=tuple(settings["tools"]),
                metadata=settings["metadata"],
                tool_choice=settings["tool_choice"],
                parallel_tool_calls=settings["parallel_tool_calls"],
                message=thread.last_user_text,
                number=len(self.all),
            )
        )

    def find(self, thread_id: str, run_id: str, now: float) -> EmulatedRun:
        """Return a run after settling its thread; for a time in the past, as it was then."""
        run = self._threads.find(thread_id, now).runs.get(run_id)
        if run is None or not reached(now, run.created):
            raise refusals.not_found("run", run_id)
        return run.as_of(now)

    def retrieve(self, thread_id: str, run_id: str, now: float) -> Body:
        """Return a run's body."""
        return self.find(thread_id, run_id, now).body(now)

    def list(self, thread_id: str, query: Mapping[str, str], now: float) -> Body:
        """Return a page of a thread's runs."""
        runs = self._threads.find(thread_id, now).runs.values()
        return page(query, [run.as_of(now).body(now) for run in runs if reached(now, run.created)], "run")

    def update(self, thread_id: str, run_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Change the metadata of a run that has ended."""
        run = self.find(thread_id, run_id, now)
        status = run.position(now).status
        if status not in TERMINAL_STATUSES:
            raise refusals.not_updatable(status)
        if "metadata" in body:
            run.settings = {**run.settings, "metadata": metadata_of(body)}
        return run.body(now)

    def cancel(self, thread_id: str, run_id: str, now: float) -> Body:
        """Begin to cancel a run."""
        run = self.find(thread_id, run_id, now)
        status = run.position(now).status
        if status in TERMINAL_STATUSES or status == "cancelling":
            raise refusals.not_cancellable(status)
        run.cancelled = now
        self._threads.find(thread_id, now)  # settle again: with `cancelling=0` the run has ended already
        return run.body(now)

    def submit(self, thread_id: str, run_id: str, body: Mapping[str, Any], now: float) -> Body:
        """Accept the outputs of the open round: exactly one for each call."""
        run = self.find(thread_id, run_id, now)
        outputs = _outputs(body)
        status = run.position(now).status
        if status != "requires_action":
            raise refusals.no_outputs_accepted(status)
        got, expected = [id for id, _ in outputs], [call.id for call in run.open_round]
        # In any order, but exactly one output for each call; a duplicate has an error of its own, as recorded.
        if len(set(got)) < len(got):
            raise refusals.duplicate_outputs()
        if set(got) != set(expected):
            raise refusals.wrong_outputs(expected, got)
        run.submissions.append(Submission(now, dict(outputs)))
        return run.body(now)

    def list_steps(self, thread_id: str, run_id: str, query: Mapping[str, str], now: float) -> Body:
        """Return a page of a run's steps."""
        return page(query, self.find(thread_id, run_id, now).steps(now), "run step")

    def retrieve_step(self, thread_id: str, run_id: str, step_id: str, now: float) -> Body:
        """Return one step."""
        for step in self.find(thread_id, run_id, now).steps(now):
            if step["id"] == step_id:
                return step
        raise refusals.not_found("run step", step_id)


def _outputs(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "tool_outputs" not in body:
        raise refusals.missing("tool_outputs")
    outputs = []
    for place, item in enumerate(given_list(body, "tool_outputs")):
        if not isinstance(item, dict):
            raise refusals.wrong_type(f"tool_outputs[{place}]", "an object", item)
        pair = []
        for name in ("tool_call_id", "output"):
            param = f"tool_outputs[{place}].{name}"
            if name not in item:
                raise refusals.missing(param)
            if not isinstance(item[name], str):
                raise refusals.wrong_type(param, "a string", item[name])
            pair.append(item[name])
        outputs.append((pair[0], pair[1]))
    return outputs


def _settings(assistant: Body, body: Mapping[str, Any]) -> Body:
    """Return the run's settings: from the request, or from the assistant if they are not in the request."""
    instructions = given(body, "instructions", assistant["instructions"])
    if additional := body.get("additional_instructions"):
        instructions = f"{instructions} {additional}" if instructions else additional
    response_format = given(body, "response_format", assistant["response_format"])
    check_response_format(response_format)
    return {
        "model": given(body, "model", assistant["model"]),
        "instructions": instructions,
        "tools": tools_of(body) if body.get("tools") is not None else assistant["tools"],
        "tool_resources": given(body, "tool_resources", {}),
        "metadata": metadata_of(body),
        "temperature": given(body, "temperature", assistant["temperature"]),
        "top_p": given(body, "top_p", assistant["top_p"]),
        "max_completion_tokens": body.get("max_completion_tokens"),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "truncation_strategy": given(body, "truncation_strategy", {"type": "auto", "last_messages": None}),
        "response_format": response_format,
        "tool_choice": given(body, "tool_choice", "auto"),
        "parallel_tool_calls": given(body, "parallel_tool_calls", True),
    }
