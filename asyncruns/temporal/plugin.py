"""The plugin for Temporal: what a worker needs so that its workflows can wait for runs.

Clients are made on workers and stay there: no credential is in a workflow, a history or a heartbeat.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final

from temporalio.client import Client as TemporalClient
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    Interceptor,
    Worker,
    WorkerConfig,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from asyncruns.client.client import Client
from asyncruns.errors import AsyncRunsError, ConfigurationError
from asyncruns.lifecycle import RunRef
from asyncruns.temporal.activities import Activities, toolsets_by_name
from asyncruns.temporal.converter import with_our_structs
from asyncruns.temporal.desk import desk
from asyncruns.temporal.shard import ShardWorkflow
from asyncruns.temporal.shard_fleet import OnOutcome
from asyncruns.tools import Toolset

MOST_ACTIVITIES: Final = 10_000
"""Activities at a time of a worker that sets no other number: one that watches a run takes some kilobytes."""
GRACEFUL_S: Final = 10.0
PASSED_THROUGH: Final = ("asyncruns", "anyio", "msgspec", "sniffio")


class AsyncRunsPlugin(SimplePlugin):
    """Connect Temporal with a client of asyncruns: pass it to `temporalio.client.Client.connect(plugins=[...])`.

    Workers that are made with that client then have the activities and the workflow of shards, and their workflows may
    use `watch` and `run_and_wait`. List it last: it adds to the payload converter that the plugins before it have set.
    In a process that only starts workflows, and answers calls, no client is needed.

    A worker that sets no number of activities gets 10,000 at a time, unless it has an executor for activities of its
    own, which may have fewer threads; and one without a grace for shutdown gets 10 s.

    Args:
        client: The client with which the activities send requests. It is borrowed: not closed here.
        tools: Answers the calls of watches that name no toolset.
        toolsets: Those that watches name: `Toolset(name=...)`.
        context_factory: Called in the worker with the ref of a run and the label of its watch, for each call; returns
            the `context` of its tools.
        on_outcome: Called in the worker with the outcome of each run of a shard, at least once: when a worker has died,
            another one may call it again. It may be async. What it raises is logged, and it is called again.
        requests_per_second: The most requests per second that this worker sends for the watches of workflows; those
            with `observe_only` have as many of their own, and shards have budgets of their own. None for no limit.

    Raises:
        ConfigurationError: Two toolsets have the same name, or there are tools without a client.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        tools: Toolset | None = None,
        toolsets: Iterable[Toolset] = (),
        context_factory: Callable[[RunRef, Any], object] | None = None,
        on_outcome: OnOutcome | None = None,
        requests_per_second: float | None = 100.0,
    ) -> None:
        self._own = client
        self._toolsets = toolsets_by_name(tools, toolsets)
        if client is None and (self._toolsets or on_outcome is not None):
            raise ConfigurationError(
                "Tools and on_outcome run on workers, which need a client: AsyncRunsPlugin(client)"
            )
        self._context_factory = context_factory
        self._on_outcome = on_outcome
        self._per_second = requests_per_second
        super().__init__(
            "asyncruns",
            data_converter=with_our_structs,
            interceptors=[DeskInterceptor()],
            workflows=[ShardWorkflow],
            workflow_runner=_with_passthrough,
            workflow_failure_exception_types=[AsyncRunsError],
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add what a worker needs."""
        if self._own is None:
            raise ConfigurationError(
                "A worker sends requests, so it needs a client: AsyncRunsPlugin(client, tools=...)"
            )
        config = super().configure_worker(config)
        activities = Activities(
            self._own,
            toolsets=self._toolsets,
            context_factory=self._context_factory,
            on_outcome=self._on_outcome,
            per_second=self._per_second,
            host=f"{config.get('task_queue', '')}:{uuid.uuid4().hex}",
        )
        config["activities"] = [*config.get("activities", ()), *activities.all()]
        if not any(config.get(name) for name in ("max_concurrent_activities", "tuner", "activity_executor")):
            config["max_concurrent_activities"] = MOST_ACTIVITIES
        if not config.get("graceful_shutdown_timeout"):
            config["graceful_shutdown_timeout"] = timedelta(seconds=GRACEFUL_S)
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Run a worker, and beside it one for the queue of this process alone, where the fleets of its shards are."""
        config: Any = worker.config(active_config=True)
        activities = _activities_of(config["activities"])
        # This plugin must not be applied to the second worker as well; the composed converter is for both.
        bare_config: Any = {**config["client"].config(active_config=True), "plugins": []}
        bare = TemporalClient(**bare_config)
        own = Worker(
            bare,
            task_queue=activities.host,
            activities=[activities.watch_shard, activities.add_to_shard],
            graceful_shutdown_timeout=config["graceful_shutdown_timeout"],
            max_concurrent_activities=MOST_ACTIVITIES,
        )
        try:
            async with own:
                await next(worker)
        finally:
            await activities.aclose()


def _activities_of(given: Iterable[Callable[..., Any]]) -> Activities:
    for activity in given:
        found = getattr(activity, "__self__", None)
        if isinstance(found, Activities):
            return found
    raise ConfigurationError("The activities of AsyncRunsPlugin are missing from this worker")


def _with_passthrough(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Return the runner with our modules passed through: they are the same in each workflow, and are loaded once.

    So is the backend of anyio, which a sandbox can't load: this package has loaded it.
    """
    runner = runner or SandboxedWorkflowRunner()
    if isinstance(runner, SandboxedWorkflowRunner):
        restrictions = runner.restrictions.with_passthrough_modules(*PASSED_THROUGH)
        return dataclasses.replace(runner, restrictions=restrictions)
    return runner


class DeskInterceptor(Interceptor):
    """Makes the desk of each workflow before that begins: an update in its first task would be refused otherwise."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """Return what makes it."""
        return DeskInbound


class DeskInbound(WorkflowInboundInterceptor):
    """Makes the desk of one workflow."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Make it."""
        super().init(outbound)
        desk()
