"""What callers give for a run: objects of other libraries are taken for their ids, mistakes are named at once.

Nothing of another library is imported: its objects are known by what they say of themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from msgspec import Struct

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle.values import RunRef
from asyncruns.wire.names import DIALECTS, RESPONSE, THREAD_RUN

C = TypeVar("C")

_BY_IDS: Final = 'client.watch(thread_id="thread_...", run_id="run_...")'
_RIGHT_LINES: Final = (
    ("thread_", f"a thread has many runs: {_BY_IDS}"),
    ("resp_", "await client.responses.watch({id!r}), or give RunRef('response', ({id!r},))"),
    ("run_", 'a run is named together with its thread: thread_id="thread_...", run_id={id!r}'),
    ("", f"{_BY_IDS}, or RunRef('response', (id,)) for a response"),
)


def canonical(dialect: str) -> str:
    """Return our name for a dialect, of which callers know several; another word as it is."""
    return DIALECTS.get(dialect, dialect)


def given_run(run: object) -> Any:
    """Return what a caller gave for a run, or for a stream: itself, or a `RunRef` for another library's object.

    Raises:
        InvalidRequestError: It is a string, a coroutine that was not awaited, or something else that is no run; the
            message says what to write.
    """
    if run is None:
        return run
    if isinstance(run, RunRef):
        return _named(run)
    if isinstance(run, Struct):  # one of ours, or of a dialect of the caller's
        return run
    if isinstance(run, str):
        raise InvalidRequestError(f"A run is wanted, and no id alone; got str {run!r}: {_right_line(run)}")
    if isinstance(run, Awaitable):
        raise _not_awaited(run)
    found = _foreign(run)
    return run if found is None else found


def no_run(run: object, wanted: str) -> InvalidRequestError:
    """Return the error for what is no run; `wanted` says what one is."""
    if isinstance(run, Mapping):
        return InvalidRequestError(
            f"{wanted}; got {type(run).__name__} without the `id` and `object` of a run or a response"
        )
    if run is None:
        return InvalidRequestError(f"{wanted}; got None: did the function that was to return the run return it?")
    hint = ""
    if isinstance(getattr(run, "ref", None), RunRef):
        hint = ": give its ref"  # such as an outcome
    elif isinstance(run_id := getattr(run, "id", None), str) and run_id.startswith("thread_"):
        hint = f": {_right_line(run_id)}"
    return InvalidRequestError(f"{wanted}; got {type(run).__name__}{hint}")


def check_ids(thread_id: str, run_id: str) -> None:
    """Check that the ids of a run are not swapped.

    Raises:
        InvalidRequestError: They are.
    """
    if thread_id.startswith("run_") and run_id.startswith("thread_"):
        raise InvalidRequestError(
            f"The ids are swapped: {thread_id!r} is given for the thread, and {run_id!r} for the run"
        )


def check_client(client: C, where: str) -> C:
    """Return what a watch is given for its client, when it can be one.

    Raises:
        InvalidRequestError: It is another library's client, or none.
    """
    if all(hasattr(type(client), name) or hasattr(client, name) for name in ("transport", "dialect", "answer")):
        return client
    kind = type(client)
    library = kind.__module__.partition(".")[0]
    if isinstance(client, Awaitable):
        raise _not_awaited(client)
    origin = "" if library in ("builtins", "asyncruns") else f" of {library}"
    raise InvalidRequestError(
        f"{where} takes a client of asyncruns first; got {kind.__name__}{origin}: make one with "
        "asyncruns.Client(base_url, auth=BearerAuth(key)), or Client.from_env()"
    )


def _named(ref: RunRef) -> RunRef:
    dialect = canonical(ref.dialect)
    if isinstance(ref.ids, str):
        raise InvalidRequestError(
            f"The ids of {ref!r} are a string; give a tuple, as in RunRef({dialect!r}, ({ref.ids!r},))"
        )
    is_ours = dialect == ref.dialect and isinstance(ref.ids, tuple)
    return ref if is_ours else RunRef(dialect, tuple(ref.ids))  # a list, from JSON, could not be hashed


def _right_line(text: str) -> str:
    return next(line.format(id=text) for begin, line in _RIGHT_LINES if text.startswith(begin))


def _not_awaited(found: object) -> InvalidRequestError:
    if inspect.iscoroutine(found):
        name = found.__qualname__
        found.close()  # it would be told of once more, as one that was never awaited
        return InvalidRequestError(
            f"The coroutine of {name}() was not awaited: write run = await ...{name.rpartition('.')[2]}(...), and give "
            "that run"
        )
    return InvalidRequestError(f"A {type(found).__name__} is to be awaited: give what `await` returns, the run itself")


def _foreign(run: Any) -> RunRef | None:
    """Return the ref of a run as another library, or JSON, has it; None where it is none."""
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
