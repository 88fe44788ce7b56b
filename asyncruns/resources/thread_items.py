"""The base class for operations that create runs and messages: the thread may be locked, and an answer may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncruns.errors import InvalidRequestError
from asyncruns.limits import Limits
from asyncruns.resources.adoption import Creation, with_nonce
from asyncruns.resources.base import Resource
from asyncruns.resources.options import CallOptions
from asyncruns.resources.thread_lock import OnBusy, check_on_busy, when_free
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.wire import Message, Run

if TYPE_CHECKING:
    from asyncruns.streams.run_stream import RunStream

Item = TypeVar("Item", bound=Run | Message)

_DEFAULT_LIMITS: Final = Limits()


class ThreadItems(Resource):
    """Operations on the items of a thread: its messages and runs."""

    async def _create(
        self,
        type_: type[Item],
        *segments: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any],
        options: CallOptions,
        on_busy: OnBusy,
        adopt: bool,
        guard: CreateGuard | None = None,
    ) -> Item:
        """Create an item once; `thread_lock.py` handles a locked thread, and `adoption.py` a lost answer.

        Args:
            guard: Awaits each try, so that the item is not lost when the caller is cancelled; None for no guard.

        Raises:
            InvalidRequestError: A parameter can't be sent, or there is no such `on_busy`.
            ThreadBusyError: A run holds the thread.
            APIError: The item could not be created, or it is not known whether it was.
        """
        check_on_busy(on_busy)
        nonce = None
        # Metadata in extra_body would replace ours, and the nonce with it, so there is none.
        if adopt and "metadata" not in (options.get("extra_body") or {}):
            limits = self._server.dialect.limits or _DEFAULT_LIMITS
            metadata, nonce = with_nonce(body.get("metadata"), limits.metadata_pairs)
            body = {**body, "metadata": metadata}
        # Built once: every try must send the same bytes, and building uses up parameters that are iterators.
        request = self._request("POST", *segments, query=query, body=body, options=options)

        async def attempt() -> Item:
            sending = self._send(request, type_)
            # With `adopt`, the `Creation` uses the guard, around each try and the search after it.
            return await (sending if guard is None or adopt else guard.keep(sending))

        if adopt:
            sent = {**body, **(options.get("extra_body") or {})}
            attempt = Creation(
                self._server,
                attempt,
                type_,
                segments,
                nonce=nonce,
                is_like_ours=lambda item: _is_like(item, sent),
                raw=self._raw,
                options=options,
                guard=guard,
            ).attempt
        return await attempt() if on_busy == "raise" else await when_free(self._server, attempt, options)

    async def _create_stream(
        self,
        *segments: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any],
        options: CallOptions,
        on_busy: OnBusy,
        adopt: bool,
    ) -> RunStream:
        """Create a run once, and return its stream.

        Raises:
            InvalidRequestError: As in `_create`; or `adopt`, since a search finds the run and not its stream.
            ThreadBusyError: A run holds the thread.
            APIError: The run could not be created, or it is not known whether it was.
        """
        from asyncruns.streams.run_stream import RunStream  # late: most programs do not stream

        check_on_busy(on_busy)
        if adopt:
            raise InvalidRequestError("adopt=True can find a run, but not its stream; leave it out for stream=True")
        request = self._request("POST", *segments, query=query, body={**body, "stream": True}, options=options)

        async def attempt() -> RunStream:
            return RunStream(request, await self._open_stream(request), thread_id=segments[1])

        return await attempt() if on_busy == "raise" else await when_free(self._server, attempt, options)


def _is_like(item: Run | Message, sent: Mapping[str, Any]) -> bool:
    """Return whether an item may have been created with these fields, by a field that no server changes."""
    if isinstance(item, Run):
        return not item.assistant_id or item.assistant_id == sent["assistant_id"]
    return not item.role or item.role == sent["role"]
