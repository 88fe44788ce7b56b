#!/usr/bin/env python3
"""The campaign on a real server: 3 batches of 200 requests on each wire, a client that is killed, official clients.

    python .ci/ogx/campaign.py "$(.ci/ogx/install FOLDER)"

Each request has to end as it must: one in ten fails, all others are answered with what they asked for, none is missing,
and none is there twice. It fails with an AssertionError that names the request.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from command_line import check_command_line
from killed_client import MESSAGE_NAMES, NAMES, remembered
from official_clients import check_official_clients
from requests_made import LINES, custom_ids, expected_text, fails
from servers import ogx_server

HERE: Final = Path(__file__).parent
PATIENCE_S: Final = 120.0
KILL_DELAYS_S: Final = (0.0, 0.4)


def main(command: str) -> None:
    """Run the campaign and print its numbers."""
    # A CI that gives up sends SIGTERM: the servers must end then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ogx_server(command) as base_url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        kills = kill_and_take_up(base_url, folder)
        ids = remembered(folder)
        counts = sum((check_results(folder, name) for name in ids), Counter[str]())
        asked = LINES * len(ids)
        print(f"{len(ids)} batches, {kills} kills, {time.monotonic() - began:.0f} s")
        print(f"asked {asked}, answered {counts['answered']}, failed {counts['failed']}, missing {counts['missing']}")
        asyncio.run(check_official_clients(base_url, ids))
        print(f"The official clients read what we created, and we what they created: {time.monotonic() - began:.0f} s")
        check_command_line(base_url, folder)
        print(f"The command line submits, watches after a kill, writes the results: {time.monotonic() - began:.0f} s")


def kill_and_take_up(base_url: str, folder: Path) -> int:
    """Start the client again and again, and kill it: while it creates, while it watches, while it fetches results.

    Return how often it was killed.
    """
    all_names = len(NAMES) + len(MESSAGE_NAMES)
    moments: list[Callable[[], bool]] = [
        lambda: len(remembered(folder)) >= 2,  # of six: it creates
        lambda: len(remembered(folder)) >= all_names,  # it watches
        lambda: len(list(folder.glob("*.part"))) > 0,  # it fetches results
    ]
    kills = sum(started(base_url, folder, moment) for moment in moments)
    assert not started(base_url, folder, lambda: False), "nothing kills the last one"
    return kills


def started(base_url: str, folder: Path, moment: Callable[[], bool]) -> bool:
    """Run the client, and kill it shortly after a moment; return whether it was killed before it was done."""
    process = subprocess.Popen([sys.executable, HERE / "killed_client.py", base_url, folder])
    try:
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and not moment():
            assert time.monotonic() < until, "the client has not ended"
            time.sleep(0.005)
        time.sleep(random.uniform(*KILL_DELAYS_S) if process.poll() is None else 0)
    finally:
        process.send_signal(signal.SIGKILL)
        code = process.wait()
    assert code in (0, -signal.SIGKILL), f"the client failed with {code}"
    return code != 0


def check_results(folder: Path, name: str) -> Counter[str]:
    """Check each request of a batch, and return how many ended in which way."""
    *results, last = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {}
    for result in results:
        assert result["id"] not in found, f"{result['id']} is there twice"
        found[result["id"]] = result
    assert found.keys() == set(custom_ids(name)), f"{name}: {found.keys() ^ set(custom_ids(name))}"
    for custom_id, result in found.items():
        assert (result["kind"] == "failed") == fails(custom_id), result
        assert fails(custom_id) or result["text"] == expected_text(custom_id), result
    told = last["reconciliation"]
    assert told["failed"] == [custom_id for custom_id in custom_ids(name) if fails(custom_id)], told["failed"]
    assert not told["missing"], told["missing"]
    assert not told["unexpected"], told["unexpected"]
    return Counter({kind: len(told[kind]) for kind in ("answered", "failed", "missing")})


if __name__ == "__main__":
    os.environ.pop("OPENAI_API_KEY", None)
    main(sys.argv[1])
