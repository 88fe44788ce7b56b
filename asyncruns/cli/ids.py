"""The runs, responses and batches that a command line names by their ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from asyncruns.errors import InvalidRequestError
from asyncruns.http import join_path
from asyncruns.lifecycle import RunRef
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN

_THREAD_PREFIX: Final = "thread_"
_RUN_PREFIX: Final = "run_"
_BATCH_PREFIXES: Final = {"batch": BATCH, "msgbatch": MESSAGE_BATCH}


def given_refs(ids: Iterable[str]) -> list[RunRef]:
    """Return what the ids name, each once, in their order.

    Raises:
        InvalidRequestError: One of them names nothing.
    """
    left, refs = list(ids), list[RunRef]()
    while left:
        first = left.pop(0)
        is_pair = first.startswith(_THREAD_PREFIX) and "/" not in first and left
        refs.append(given_ref(first, left.pop(0) if is_pair else None))
    return list(dict.fromkeys(refs))


def given_ref(first: str, second: str | None = None) -> RunRef:
    """Return what one or two ids name.

    Raises:
        InvalidRequestError: They name nothing; the message says what to pass.
    """
    thread_id, slash, run_id = first.partition("/")
    if second is not None and not slash:
        thread_id, run_id = first, second
    elif second is not None:
        raise InvalidRequestError(f"{first} names a run already; what is {second}?")
    if not run_id and (slash or first.startswith((_THREAD_PREFIX, _RUN_PREFIX))):
        raise InvalidRequestError(f"{first} names no run: pass THREAD_ID/RUN_ID")
    if run_id:
        join_path("threads", thread_id, "runs", run_id)
        return RunRef(THREAD_RUN, (thread_id, run_id))
    prefix, mark, _ = first.partition("_")
    dialect = _BATCH_PREFIXES.get(prefix, RESPONSE) if mark else RESPONSE
    join_path("batches" if dialect in _BATCH_PREFIXES.values() else "responses", first)
    return RunRef(dialect, (first,))
