"""What a heartbeat of a shard, and a query for its ends, cost: parts of the figures of `temporal.py`, for sizing.

Shards whose runs do not end meanwhile send heartbeats at 24 times the usual rate; then they are queried as well, one
after the other. The cost of a heartbeat has that of its timer at the server in it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from temporal_costs import Costs, Figures, at
from temporalio.client import Client as TemporalClient

from asyncruns import RunRef
from asyncruns.temporal import start_shards
from asyncruns.temporal.messages import STATE, ShardState

SHARDS: Final = 20
HEARTBEAT_TIMEOUT_S: Final = 1.25  # the SDK sends one a second then
BEATS_FOR_S: Final = 40.0
QUERIES: Final = 300


async def parts(temporal: TemporalClient, costs: Costs, refs: list[RunRef], queue: str) -> Figures:
    """Return what heartbeats have cost, and then heartbeats and queries."""
    shards = await start_shards(
        temporal, refs, id="parts", task_queue=queue, size=1, heartbeat_timeout=HEARTBEAT_TIMEOUT_S
    )
    await costs.begin()
    await asyncio.sleep(BEATS_FOR_S)
    beats = costs.end(1)
    await costs.begin()
    for number in range(QUERIES):
        await shards.handles[number % SHARDS].query(STATE, 0, result_type=ShardState)
    both = costs.end(1)
    return {"beats": beats, "both": both}


def of_each(found: Figures, idle: Figures) -> Figures:
    """Return what one heartbeat and one query cost."""
    beats, both = found["beats"], found["both"]
    number = beats["requests_of_temporal"]["RecordActivityTaskHeartbeat"]
    took, share = beats["took_s"], both["took_s"] / beats["took_s"]
    idle_ms = 1e3 * at(idle["seconds"], took)[0]
    server, worker = (both[key] - share * beats[key] for key in ("server_cpu_ms_per_run", "worker_cpu_ms_per_run"))
    return {
        "heartbeat_server_ms": (beats["server_cpu_ms_per_run"] - idle_ms) / number,
        "heartbeat_database_writes": beats["database_writes_per_run"] / number,
        "query_server_ms": server / QUERIES,
        "query_worker_ms": worker / QUERIES,
    }
