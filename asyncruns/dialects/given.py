"""Checks what callers pass for a run or for a client, and names their mistakes in error messages.

A run may be an object of another library, which is then identified by its ids. No other library is imported: its
objects are recognized by their attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from msgspec import Struct

from asyncruns.errors import InvalidRequestError
from asyncruns.http import require_id
from asyncruns.lifecycle.values import RunRef
from asyncruns.wire.names import DIALECTS, RESPONSE, THREAD_RUN

C = TypeVar("C")

_BY_IDS: Final = 'client.watch(thread_id="thread_...", run_id="run_...")'
# What to write instead of an id alone, by how the id begins; the first that fits counts.
_RIGHT_LINES: Final = (
    ("thread_", f"a thread has many runs: {_BY_IDS}"),
    ("resp_", "await client.responses.watch({id!r}), or pass RunRef('response', ({id!r},))"),
    ("run_", 'a run is identified together with its thread: thread_id="thread_...", run_id={id!r}'),
    ("", f"{_BY_IDS}, or RunRef('response', (id,)) for a response"),
)
_OF_CLIENTS: Final = ("transport", "dialect", "answer")


def canonical(dialect: str) -> str:
    """Return our name for a dialect that callers may know by another one; unknown names are returned unchanged."""
    return DIALECTS.get(dialect, dialect)


def given_run(run: object) -> Any:
    """Return the caller's argument for a run or a stream: unchanged, or a `RunRef` for an object of another library.

    Raises:
        InvalidRequestError: It is a string, an awaitable, or a `RunRef` whose ids are a string; the message says what
            to write. Other objects are left to the caller of this function (see `no_run`).
    """
    if run is None:
        return run
    if isinstance(run, RunRef):
        return _named(run)
    if isinstance(run, Struct):  # an object of ours, or of a dialect that the caller wrote
        return run
    if isinstance(run, str):
        raise InvalidRequestError(f"Expected a run, not only an id; got str {run!r}: {_right_line(run)}")
    if isinstance(run, Awaitable):
        raise _not_awaited(run)
    found = _foreign(run)
    return run if found is None else found


def no_run(run: object, wanted: str) -> InvalidRequestError:
    """Return the error for an object that is not a run.

    Args:
        run: The object.
        wanted: What was expected instead, as the beginning of the message.
    """
    if isinstance(run, Mapping):
        return InvalidRequestError(
            f"{wanted}; got {type(run).__name__} without the `id` and `object` of a run or a response"
        )
    if run is None:
        return InvalidRequestError(f"{wanted}; got None: does the function that creates the run return it?")
    hint = ""
    if isinstance(getattr(run, "ref", None), RunRef):
        hint = ": pass its ref"  # such as an outcome
    elif isinstance(run_id := getattr(run, "id", None), str) and run_id.startswith("thread_"):
        hint = f": {_right_line(run_id)}"
    return InvalidRequestError(f"{wanted}; got {type(run).__name__}{hint}")


def with_response_id(run: Any, response_id: str | None, **ids: str | None) -> Any:
    """Return the run, or the ref of the response that `response_id` names.

    Raises:
        InvalidRequestError: Both are given, or it cannot be an id.
    """
    if response_id is None:
        return run
    if run is not None or any(given is not None for given in ids.values()):
        raise InvalidRequestError(f"response_id names a response by itself: leave out run, {', '.join(ids)}")
    return RunRef(RESPONSE, (require_id("response_id", response_id),))


def check_ids(thread_id: str, run_id: str) -> None:
    """Check that the ids of a run are not swapped.

    Raises:
        InvalidRequestError: They are.
    """
    if thread_id.startswith("run_") and run_id.startswith("thread_"):
        raise InvalidRequestError(f"The ids are swapped: thread_id is {thread_id!r}, and run_id is {run_id!r}")


def check_client(client: C, where: str) -> C:
    """Return a client unchanged, if a watch can use it.

    Args:
        client: The caller's argument for the client.
        where: The name of the class or function that takes it, for the message.

    Raises:
        InvalidRequestError: It is a client of another library, or no client.
    """
    # On the class first: reading a property of the instance might have an effect, or raise.
    lacking = [name for name in _OF_CLIENTS if not (hasattr(type(client), name) or hasattr(client, name))]
    if not lacking:
        return client
    kind = type(client)
    library = kind.__module__.partition(".")[0]
    if isinstance(client, Awaitable):
        raise _not_awaited(client)
    if len(lacking) < len(_OF_CLIENTS):  # a client of the caller's own dialect
        raise InvalidRequestError(
            f"{kind.__name__} lacks {' and '.join(lacking)}: a client has transport, dialect and answer"
        )
    origin = "" if library in ("builtins", "asyncruns") else f" of {library}"
    raise InvalidRequestError(
        f"{where} takes a client of asyncruns first; got {kind.__name__}{origin}: make one with "
        "asyncruns.Client(base_url, auth=BearerAuth(key)), or Client.from_env()"
    )


def _named(ref: RunRef) -> RunRef:
    dialect = canonical(ref.dialect)
    if isinstance(ref.ids, str):
        raise InvalidRequestError(
            f"The ids of {ref!r} are a string; pass a tuple, as in RunRef({dialect!r}, ({ref.ids!r},))"
        )
    is_ours = dialect == ref.dialect and isinstance(ref.ids, tuple)
    return ref if is_ours else RunRef(dialect, tuple(ref.ids))  # a ref read from JSON has a list, which has no hash


def _right_line(text: str) -> str:
    return next(line.format(id=text) for begin, line in _RIGHT_LINES if text.startswith(begin))


def _not_awaited(found: object) -> InvalidRequestError:
    if inspect.iscoroutine(found):
        name = found.__qualname__
        found.close()  # without this Python warns, too: "coroutine ... was never awaited"
        return InvalidRequestError(
            f"The coroutine of {name}() was not awaited: write run = await ...{name.rpartition('.')[2]}(...), and pass "
            "that run"
        )
    return InvalidRequestError(f"A {type(found).__name__} must be awaited: pass what `await` returns, the run itself")


def _foreign(run: Any) -> RunRef | None:
    """Return the ref of a run that is an object of another library or parsed JSON; None if it is not a run."""
    found = [_field(run, name) for name in ("id", "thread_id", "object")]
    run_id, thread_id, kind = (each if isinstance(each, str) else "" for each in found)
    if not run_id:
        return None
    if kind == RESPONSE:
        return RunRef(RESPONSE, (run_id,))
    if thread_id and kind in (THREAD_RUN, ""):
        return RunRef(THREAD_RUN, (thread_id, run_id))
    return None


def _field(run: Any, name: str) -> object:
    return run.get(name) if isinstance(run, Mapping) else getattr(run, name, None)
