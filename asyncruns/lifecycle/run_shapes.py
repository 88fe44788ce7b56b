"""Recognizes runs in the objects that callers have, by their attributes or keys, and names mistakes in error messages.

No library is imported for that: an object of another client, and its JSON, have the same fields as ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from asyncruns.errors import InvalidRequestError
from asyncruns.wire.names import BATCH, DIALECTS, MESSAGE_BATCH, RESPONSE, THREAD_RUN

_BY_IDS: Final = 'client.watch(thread_id="thread_...", run_id="run_...")'
_OF_A_BATCH: Final = "pass batch_id={id!r} to client.watch or fleet.watch; a RunWatcher takes the batch, or"
# What to write instead of an id alone, by how the id begins; the first that fits counts.
_RIGHT_LINES: Final = (
    ("thread_", f"a thread has many runs: {_BY_IDS}"),
    ("resp_", "await client.responses.watch({id!r}), or pass RunRef('response', ({id!r},))"),
    ("batch_", f"{_OF_A_BATCH} RunRef('batch', ({{id!r}},))"),
    ("msgbatch_", f"{_OF_A_BATCH} RunRef('message_batch', ({{id!r}},))"),
    ("run_", 'a run is identified together with its thread: thread_id="thread_...", run_id={id!r}'),
    ("", f"{_BY_IDS}, or RunRef('response', (id,)) for a response"),
)


def canonical(dialect: str) -> str:
    """Return our name for a dialect that callers may know by another one; unknown names are returned unchanged."""
    return DIALECTS.get(dialect, dialect)


def dialect_and_ids(run: object) -> tuple[str, tuple[str, ...]] | None:
    """Return the dialect and ids of a run, a response or a batch in any form, or None if it is none of these."""
    found = [_field(run, name) for name in ("id", "thread_id", "object", "type")]
    run_id, thread_id, kind, type_ = (each if isinstance(each, str) else "" for each in found)
    if not run_id:
        return None
    if kind in (RESPONSE, BATCH):
        return kind, (run_id,)
    if type_ == MESSAGE_BATCH and not kind:
        return MESSAGE_BATCH, (run_id,)
    if thread_id and kind in (THREAD_RUN, ""):
        return THREAD_RUN, (thread_id, run_id)
    return None


def check_is_object(run: object) -> None:
    """Check that the caller passed neither an id alone nor something that has to be awaited first.

    Raises:
        InvalidRequestError: It is a string or an awaitable; the message says what to write.
    """
    if isinstance(run, str):
        raise InvalidRequestError(f"Expected a run, not only an id; got str {run!r}: {_right_line(run)}")
    if isinstance(run, Awaitable):
        raise not_awaited(run)


def no_run(run: object, wanted: str) -> InvalidRequestError:
    """Return the error for an object that is not a run.

    Args:
        run: The object.
        wanted: What was expected instead, as the beginning of the message.
    """
    if isinstance(run, Mapping):
        if "parts" in run:
            return InvalidRequestError(
                f"{wanted}; got {type(run).__name__}: of a stored group, pass BatchGroup.of(it) to client.watch"
            )
        return InvalidRequestError(
            f"{wanted}; got {type(run).__name__} without the `id` and `object` of a run or a response"
        )
    if isinstance(run, list | tuple | set):
        return InvalidRequestError(
            f"{wanted}; got {type(run).__name__}: many are watched by a Fleet, with fleet.watch for each or "
            "fleet.add_many for all"
        )
    if run is None:
        return InvalidRequestError(f"{wanted}; got None: does the function that creates the run return it?")
    hint = ""
    if hasattr(run, "parts") and hasattr(run, "batches"):
        hint = ": client.watch(group) watches a group of batches; a fleet watches each of group.batches"
    elif getattr(run, "ref", None) is not None:
        hint = ": pass its ref"  # such as an outcome
    elif isinstance(run_id := getattr(run, "id", None), str) and run_id.startswith("thread_"):
        hint = f": {_right_line(run_id)}"
    return InvalidRequestError(f"{wanted}; got {type(run).__name__}{hint}")


def not_awaited(found: object) -> InvalidRequestError:
    """Return the error for an awaitable in place of what it returns."""
    if inspect.iscoroutine(found):
        name = found.__qualname__
        found.close()  # without this Python warns, too: "coroutine ... was never awaited"
        return InvalidRequestError(
            f"The coroutine of {name}() was not awaited: write run = await ...{name.rpartition('.')[2]}(...), and pass "
            "that run"
        )
    return InvalidRequestError(f"A {type(found).__name__} must be awaited: pass what `await` returns, the run itself")


def _right_line(text: str) -> str:
    return next(line.format(id=text) for begin, line in _RIGHT_LINES if text.startswith(begin))


def _field(run: Any, name: str) -> object:
    return run.get(name) if isinstance(run, Mapping) else getattr(run, name, None)
