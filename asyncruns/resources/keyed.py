"""A create on a known thread that is safe to repeat, also by another process: it carries a key of the caller's.

The message and the run have the key in their metadata. Before each of them is created, the thread's list is searched::

    a run with the key is listed       it is taken, whatever its status; nothing is created
    only a message with the key        the process ended between the two: only the run is created
    another run holds the thread       if it has the key, another process was faster: it is taken

The sibling is `adoption.py`, whose nonce finds what one call has created; both may be in the metadata. What this cannot
promise: on a server that lets a thread have two active runs, or whose list lags, two processes that create at the very
same moment both do; and nothing is found on a server that keeps no metadata.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from asyncruns.errors import APIResponseValidationError, InvalidRequestError, NotFoundError, ThreadBusyError
from asyncruns.limits import Limits
from asyncruns.resources.adoption import NEWEST, SEARCH_PAGES, Item
from asyncruns.resources.pages import PageCall
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy, when_free
from asyncruns.resources.threads import Threads
from asyncruns.wire import Run

KEY_NAME: Final = "asyncruns_key"
"""The metadata key under which messages and runs have the `key=` that they were created with."""


def check_key(key: object, thread_id: str | None, parameters: RunParameters, limits: Limits) -> None:
    """Check that a create can carry this key.

    Raises:
        InvalidRequestError: It cannot; the message says why. Nothing was sent.
    """
    if not isinstance(key, str) or not 0 < len(key) <= limits.metadata_value:
        shown = f"{len(key)} characters" if isinstance(key, str) else type(key).__name__
        raise InvalidRequestError(f"key must be a string of 1 to {limits.metadata_value} characters; got {shown}")
    if thread_id is None:
        raise InvalidRequestError("key= is searched for in the lists of a thread, so it needs thread_id= as well")
    if "metadata" in (parameters.get("extra_body") or {}):
        raise InvalidRequestError("The metadata in extra_body would replace that of key=; pass it as metadata instead")
    pairs = {*(parameters.get("metadata") or {}), KEY_NAME}
    if len(pairs) > limits.metadata_pairs:
        raise InvalidRequestError(
            f"The metadata has {limits.metadata_pairs} pairs, the most that the server allows, and key= needs another "
            f"one: {KEY_NAME}"
        )


def with_key(metadata: object, key: str) -> dict[str, str]:
    """Return the caller's metadata with the key added, in place of one that was copied from another object."""
    return {**(metadata if isinstance(metadata, Mapping) else {}), KEY_NAME: key}


async def create_once(
    threads: Threads,
    thread_id: str,
    key: str | None,
    create_message: Callable[[], Awaitable[object]] | None,
    create_run: Callable[[], Awaitable[Run]],
    *,
    on_busy: OnBusy,
    settle: float = 0.0,
) -> Run:
    """Return the thread's run with this key; if there is none, create its message and the run.

    Safe to cancel, and to call again after any error.

    Args:
        threads: Reads the lists.
        thread_id: The thread.
        key: The key; None if the thread is for this run alone, so that any run on it is this one.
        create_message: Adds the message, with the key; None if the thread has it.
        create_run: Starts the run, with the key.
        on_busy: What to do if a run without this key holds the thread.
        settle: Seconds to wait if there is no such run: what a process has sent before it died may still take effect.

    Raises:
        ThreadBusyError: Another run holds the thread.
        APIError: The lists could not be read, or the message or the run could not be created.
    """

    async def find() -> Run | None:
        return await _with_key(threads.runs.list(thread_id, limit=NEWEST, order="desc"), key)

    async def attempt() -> Run:
        run = await find()
        if run is not None:
            return run
        try:
            if create_message is not None and not await has_message():
                await create_message()
            return await create_run()
        except ThreadBusyError as busy:
            holder = await _holder(threads, busy)
            if holder is None or not _has(holder, key):
                raise
            return holder

    async def has_message() -> bool:
        listed = threads.messages.list(thread_id, limit=NEWEST, order="desc")
        return await _with_key(listed, key) is not None

    if settle:
        run = await find()
        if run is not None:
            return run
        await asyncio.sleep(settle)
    return await attempt() if on_busy == "raise" else await when_free(threads._server, attempt, {})


def _has(item: Any, key: str | None) -> bool:
    return key is None or bool((item.metadata or {}).get(KEY_NAME) == key)


async def _with_key(listed: PageCall[Item], key: str | None) -> Item | None:
    """Return the item with the key; None if the list ends without it.

    Raises:
        APIError: The list could not be read to its end.
    """
    try:
        async for item in listed.at_most(SEARCH_PAGES):
            if _has(item, key):
                return item
    except APIResponseValidationError as error:
        raise error._extend("So it is not known whether key= was used before, and nothing was created.") from error
    return None


async def _holder(threads: Threads, busy: ThreadBusyError) -> Run | None:
    try:
        return await threads.runs.retrieve(busy.active_run_id, thread_id=busy.thread_id)
    except (NotFoundError, InvalidRequestError):  # gone, not there yet, or no valid id
        return None
