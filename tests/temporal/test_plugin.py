"""What the plugin sets of a worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.worker import WorkerConfig, WorkerTuner

from asyncruns import Client
from asyncruns.temporal import AsyncRunsPlugin

OWN = timedelta(seconds=3)
TUNER = WorkerTuner.create_fixed(workflow_slots=5, activity_slots=5, local_activity_slots=5)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({}, 10_000),
        ({"max_concurrent_activities": 7}, 7),
        ({"activity_executor": ThreadPoolExecutor(1)}, None),
        ({"tuner": TUNER}, None),
    ],
)
async def test_the_number_of_activities_is_the_users_if_they_care(given: dict[str, Any], number: int | None) -> None:
    assert (await config_of(given)).get("max_concurrent_activities") == number


async def test_the_grace_of_a_worker_is_the_users_if_they_set_one() -> None:
    assert (await config_of({"graceful_shutdown_timeout": OWN})).get("graceful_shutdown_timeout") == OWN
    assert (await config_of({})).get("graceful_shutdown_timeout") == timedelta(seconds=10)


async def config_of(given: Any) -> WorkerConfig:
    async with Client("http://127.0.0.1:1", api_key="test") as client:
        plugin = AsyncRunsPlugin(client)
        temporal = await TemporalClient.connect("127.0.0.1:1", lazy=True, plugins=[plugin])
        config: Any = {"client": temporal, "task_queue": "q", **given}
        return plugin.configure_worker(config)
