"""`asyncruns batch` on OGX: submits a file, watches after the first watch was killed, and writes all results."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from requests_made import custom_ids, fails, lines_of, messages_of

COMMAND: Final = Path(sys.executable).with_name("asyncruns")  # as it was installed


def check_command_line(base_url: str, folder: Path) -> None:
    """Submit a file of each wire, and watch both batches in one command."""
    files = {"shell": lines_of("shell"), "shell-message": messages_of("shell-message")}
    ids: dict[str, str] = {}
    for name, requests in files.items():
        path = folder / f"{name}-requests.jsonl"
        path.write_text("".join(json.dumps(request) + "\n" for request in requests))
        ids[name] = asyncruns("submit", path, base_url).stdout.strip()
    watching = subprocess.Popen(
        [COMMAND, "batch", "watch", *ids.values(), "--base-url", base_url, "--json"],
        stdout=subprocess.PIPE,
    )
    assert watching.stdout is not None
    watching.stdout.readline()  # the first event of one of them
    watching.send_signal(signal.SIGKILL)
    watching.communicate()
    watched = asyncruns("watch", *ids.values(), base_url)
    assert "2 batches: 2 completed; 360 of 400 answered, 40 failed" in watched.stdout, watched
    for name, batch_id in ids.items():
        path = folder / f"{name}-results.jsonl"
        asyncruns("results", batch_id, "-o", path, base_url)
        results = [json.loads(line) for line in path.read_text().splitlines()]
        kinds = {result["custom_id"]: result["kind"] for result in results}
        assert len(results) == len(kinds)
        assert kinds == {id_: "failed" if fails(id_) else "answered" for id_ in custom_ids(name)}
    listed = asyncruns("list", base_url).stdout
    assert ids["shell"] in listed, listed


def asyncruns(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a command on batches; the last argument is the base URL."""
    *given, base_url = map(str, arguments)
    command_line: list[Any] = [COMMAND, "batch", *given, "--base-url", base_url]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done
    return done
