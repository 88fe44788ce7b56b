"""The program that the campaign kills: creates what is missing of six batches, watches all, and writes their results.

It is what a user would write who may be killed at any moment: the id of each batch is on the disk before the next one
is created, and one that is missing there is searched for at the server. It is started again until it exits with 0.

    python killed_client.py BASE_URL FOLDER
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from requests_made import custom_ids, lines_of, messages_of

from asyncruns import Client, Fleet

NAMES: Final = ("batch-a", "batch-b", "batch-c")
MESSAGE_NAMES: Final = ("message-a", "message-b", "message-c")


def remembered(folder: Path) -> dict[str, str]:
    """Return the id of each batch that was written down, by its name."""
    path = folder / "ids.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {entry["name"]: entry["batch"] for entry in map(json.loads, lines)}


def remember(folder: Path, name: str, batch_id: str) -> None:
    """Write the id of a batch down, so that it survives a kill."""
    with (folder / "ids.jsonl").open("a") as file:
        file.write(json.dumps({"name": name, "batch": batch_id}) + "\n")
        file.flush()
        os.fsync(file.fileno())


async def create_missing(client: Client, messages: Client, folder: Path) -> dict[str, str]:
    """Create the batches that have no id yet, and return the ids of all."""
    ids = remembered(folder)
    at_server = {(batch.metadata or {}).get("campaign"): batch.id async for batch in client.batches.list(limit=100)}
    for name in NAMES:
        if name not in ids:
            ids[name] = at_server.get(name) or await create(client, name)
            remember(folder, name, ids[name])
    for name in MESSAGE_NAMES:
        if name not in ids:
            ids[name] = (await messages.message_batches.create(requests=messages_of(name))).id
            remember(folder, name, ids[name])
    return ids


async def create(client: Client, name: str) -> str:
    """Create one batch, and return its id."""
    batch: Any = await client.batches.create(
        requests=lines_of(name), endpoint="/v1/chat/completions", metadata={"campaign": name}
    )
    return str(batch.id)


async def write_results(outcome: Any, name: str, folder: Path) -> None:
    """Write what became of each request of a batch."""
    path = folder / f"{name}.jsonl"
    with path.with_suffix(".part").open("w") as file:
        async for result in outcome.results():
            file.write(json.dumps({"id": result.custom_id, "kind": result.kind, "text": result.text}) + "\n")
        reconciliation = await outcome.reconcile(custom_ids(name))
        file.write(json.dumps({"reconciliation": reconciliation.to_dict()}) + "\n")
    path.with_suffix(".part").rename(path)


async def main(base_url: str, folder: Path) -> None:
    """Do what is left to do."""
    async with Client(base_url) as client, Client.anthropic("any", base_url=base_url) as messages:
        ids = await create_missing(client, messages, folder)
        names = {batch_id: name for name, batch_id in ids.items()}
        async with Fleet(client) as fleet:
            for name, batch_id in ids.items():
                if not (folder / f"{name}.jsonl").exists():
                    fleet.watch(batch_id=batch_id, client=messages if name in MESSAGE_NAMES else client)
            async for outcome in fleet:
                outcome.unwrap()
                await write_results(outcome, names[outcome.ref.ids[0]], folder)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
