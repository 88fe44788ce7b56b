"""The public attributes of streams, and what importing the package loads."""

from __future__ import annotations

import subprocess
import sys

from asyncruns.streams.response_stream import ResponseStream
from asyncruns.streams.run_stream import RunStream

OF_BOTH = {"ref", "close", "error", "is_done", "is_whole", "request_id", "text_deltas"}


def shown(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_a_stream_has_only_the_public_attributes_that_users_need() -> None:
    assert shown(RunStream) == OF_BOTH | {"run", "thread", "message", "messages", "step", "steps"}
    assert shown(ResponseStream) == OF_BOTH | {"response", "sequence_number"}


def test_the_event_types_are_not_imported_by_programs_that_do_not_stream() -> None:
    code = (
        "import sys\n"
        "from asyncruns import Client, Fleet, RunWatcher\n"
        "loaded = {'asyncruns.wire.stream_events', 'asyncruns.wire.response_events'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
