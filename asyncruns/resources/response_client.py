"""The client that a watcher or a fleet uses to watch responses, and the follow-ups that continue them."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

import msgspec

from asyncruns.abc import Dialect, Transport
from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.resources.base import Server
from asyncruns.resources.options import CallOptions, json_body, make_request
from asyncruns.resources.response_parameters import ResponseParameters, with_text_format
from asyncruns.resources.run_parameters import split_options
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.wire import ModelResponse, ResponseMessage


def _dialect(continue_with: Mapping[str, Any] | None) -> ResponsesDialect:
    """Return the dialect of a response and its follow-ups.

    The parameters are encoded now, so that errors show before anything is sent and later changes have no effect.

    Raises:
        InvalidRequestError: `continue_with` is not valid.
    """
    if continue_with is None:
        return ResponsesDialect()
    if not isinstance(cast("object", continue_with), Mapping):
        raise InvalidRequestError(f"continue_with must be a mapping of response parameters; got {continue_with!r}")
    try:
        body, options = split_options(with_text_format(continue_with), ResponseParameters)
    except TypeError as error:
        raise InvalidRequestError(f"continue_with: {error}") from None
    extra = options.pop("extra_body", None) or {}
    given = {name: list(value) if isinstance(value, Iterator) else value for name, value in body.items()}
    plain = msgspec.json.decode(json_body({**given, **extra}))
    return ResponsesDialect(plain, like=make_request("POST", "/", None, None, options))


class ResponseClient:
    """The client that a `RunWatcher` needs to watch a response; `client.responses.continued(...)` returns one."""

    def __init__(
        self,
        retrieving: Callable[[Server], Callable[..., Awaitable[ModelResponse]]],
        server: Server,
        continue_with: Mapping[str, Any] | None,
    ) -> None:
        self.transport: Transport = server.once or server.transport
        self.dialect: Dialect[ModelResponse] = _dialect(continue_with)
        self._open_watches: OpenWatches = server.open_watches
        self._server = server
        self._retrieving = retrieving  # the function that fetches a response from a server
        given, names = continue_with or {}, ("extra_headers", "extra_query", "request_timeout", "timeout")
        self._options = {name: given[name] for name in names if name in given}

    async def answer(self, ref: RunRef) -> list[ResponseMessage]:
        """Fetch the messages of a response. Safe to cancel.

        Raises:
            APIError: The response could not be fetched.
        """
        retrieve = self._retrieving(self._server)
        response = await retrieve(*ref.ids, **cast("CallOptions", self._options))
        return [item for item in response.output or [] if isinstance(item, ResponseMessage)]

    def _through(self, once: Transport) -> ResponseClient:
        """Return this client, with its answers fetched through another transport; see `Server.through`."""
        view = copy.copy(self)
        view._server = self._server.through(once)
        return view
