"""All uses of private names of aiohttp and anyio; no other module may use one.

If a version lacks a name, the function still works without it; its docstring says what is lost then.
`tests/transport/test_private_names.py` fails in that case.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    import aiohttp
    from aiohttp.client_reqrep import ConnectionKey


def load_anyio_backend() -> None:
    """Load anyio's asyncio backend now, instead of at its first use.

    Without the name, the first use blocks a running loop for some 20 ms.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("anyio._backends._asyncio")


def stop_scopes_of(task: asyncio.Task[Any]) -> None:
    """Stop the cancel scopes of anyio around a task whose own task ended without leaving them.

    Without the names, each such scope cancels the task in every pass of the loop, for ever.
    """
    with contextlib.suppress(ImportError, AttributeError):
        states: Any = importlib.import_module("anyio._backends._asyncio")._task_states
        state = states.get(task)
        scope = None if state is None else state.cancel_scope
        while scope is not None:
            if scope._host_task is not None and scope._host_task.done() and scope._cancel_handle is not None:
                scope._cancel_handle.cancel()
            scope = scope._parent_scope


def arrived(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes of a body that have arrived and were not read, or b"". Does not raise if the connection broke.

    Without the names, what arrived just before a connection broke is lost, since the public methods raise.
    """
    reader: Any = content
    return bytes(reader._read_nowait(-1)) if getattr(reader, "_buffer", None) else b""


def middlewares_of(session: aiohttp.ClientSession) -> tuple[aiohttp.ClientMiddlewareType, ...]:
    """Return the middlewares that a session was created with.

    Without the name, those of a borrowed session do not run, since a request's own middlewares replace them.
    """
    return tuple(getattr(session, "_middlewares", None) or ())


def loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop | None:
    """Return the event loop of a session; its public property is deprecated.

    Without the name, a borrowed session of another loop fails with errors of asyncio that do not say so.
    """
    found: asyncio.AbstractEventLoop | None = getattr(session, "_loop", None)
    return found


def has_idle(connector: aiohttp.BaseConnector | None, key: ConnectionKey | None = None) -> bool:
    """Return whether a pool holds an idle connection that seems to be alive, which the next request would use.

    Without the name, a request that changes something may be sent over a connection that the server is about to close.

    Args:
        connector: The pool; None has no connections.
        key: The host, port and settings whose connections count; None for all.
    """
    pool: Any = getattr(connector, "_conns", None)
    if not pool:
        return False
    kept = pool.values() if key is None else (pool.get(key, ()),)
    return any(protocol.is_connected() for connections in kept for protocol, _ in connections)


def close_idle(connector: aiohttp.BaseConnector | None, key: ConnectionKey) -> None:
    """Close the idle connections of a pool with this key.

    Without the name, the second attempt of a read, or of any request over a borrowed session, may use a dead connection
    as well.
    """
    pool: Any = getattr(connector, "_conns", {})
    for protocol, _ in pool.pop(key, ()):
        protocol.close()


def close_stray(connector: aiohttp.BaseConnector | None, key: ConnectionKey) -> None:
    """Close the idle connections of a pool with this key, oldest first, until the first one that received nothing more.

    The oldest is the one that the next request uses. If bytes arrived over it while no request was in flight, aiohttp
    takes them for the answer to that request, though they may be for another caller. Without the names, it does.
    """
    kept: Any = getattr(connector, "_conns", {}).get(key)
    while kept and getattr(kept[0][0], "should_close", False):
        protocol, _ = kept.popleft()
        protocol.close()
