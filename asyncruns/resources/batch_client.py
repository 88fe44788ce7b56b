"""The client that a watcher or a fleet uses to watch batches, of either wire. It sends nothing by itself."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, NoReturn, TypeVar

from asyncruns.abc import Dialect, Transport
from asyncruns.dialects.result_lines import BatchResult
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.resources.base import Server
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.wire import Batch, MessageBatch

B = TypeVar("B", Batch, MessageBatch)


class BatchClient(Generic[B]):
    """The client that a `RunWatcher` needs to watch a batch; `Client.for_run` returns it."""

    def __init__(
        self,
        server: Server,
        dialect: Dialect[B],
        results: Callable[[Server, Any], AsyncGenerator[BatchResult]],
        requests: Callable[[Server, Any], AsyncGenerator[tuple[str, Any]]],
    ) -> None:
        self.transport: Transport = server.once or server.transport
        self.dialect: Dialect[B] = dialect
        self._open_watches: OpenWatches = server.open_watches
        self._server = server
        self._results, self._requests = results, requests

    def results(self, batch: B | str) -> AsyncGenerator[BatchResult]:
        """Yield the results of a batch, which may be given by its id; see `Outcome.results`."""
        return self._results(self._server, batch)

    def requests(self, batch: B | str) -> AsyncGenerator[tuple[str, Any]]:
        """Yield the requests of a batch, as pairs of custom id and body, as far as the server keeps them."""
        return self._requests(self._server, batch)

    async def answer(self, ref: RunRef) -> NoReturn:
        """Raise InvalidRequestError, which says how to read the results: a batch has these, and no messages."""
        raise InvalidRequestError(
            f"The batch {ref} has results, not messages: iterate over them with `async for result in outcome.results()`"
        )

    def _through(self, once: Transport) -> BatchClient[B]:
        """Return this client, with results fetched through another transport; see `Server.through`."""
        view = copy.copy(self)
        view._server = self._server.through(once)
        return view
