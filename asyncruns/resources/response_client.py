"""What a watcher, or a fleet, needs to watch responses, each of which goes on from the one before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

import msgspec

from asyncruns.abc import Dialect, Transport
from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.resources.base import Server
from asyncruns.resources.options import CallOptions, json_body, make_request
from asyncruns.resources.response_parameters import ResponseParameters
from asyncruns.resources.run_parameters import split_options
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.wire import ModelResponse, ResponseMessage


def _dialect(continue_with: Mapping[str, Any] | None) -> ResponsesDialect:
    """Make the dialect of a chain of responses; what the parameters hold is written down now, before anything is sent.

    Raises:
        InvalidRequestError: They are no parameters of a response.
    """
    if continue_with is None:
        return ResponsesDialect()
    if not isinstance(cast("object", continue_with), Mapping):
        raise InvalidRequestError(f"continue_with are the parameters of a response, by name; got {continue_with!r}")
    try:
        body, options = split_options(continue_with, ResponseParameters)
    except TypeError as error:
        raise InvalidRequestError(f"continue_with: {error}") from None
    extra = options.pop("extra_body", None) or {}
    given = {name: list(value) if isinstance(value, Iterator) else value for name, value in body.items()}
    plain = msgspec.json.decode(json_body({**given, **extra}))
    return ResponsesDialect(plain, like=make_request("POST", "/", None, None, options))


class ResponseClient:
    """What a `RunWatcher` needs to watch a response; `client.responses.continued(...)` makes one."""

    def __init__(
        self,
        retrieve: Callable[..., Awaitable[ModelResponse]],
        server: Server,
        continue_with: Mapping[str, Any] | None,
    ) -> None:
        self.transport: Transport = server.once or server.transport
        self.dialect: Dialect[ModelResponse] = _dialect(continue_with)
        self._open_watches: OpenWatches = server.open_watches
        self._retrieve = retrieve
        given, names = continue_with or {}, ("extra_headers", "extra_query", "request_timeout", "timeout")
        self._options = {name: given[name] for name in names if name in given}

    async def answer(self, ref: RunRef) -> list[ResponseMessage]:
        """Fetch what the response said. Safe to cancel.

        Raises:
            APIError: It could not be fetched.
        """
        response = await self._retrieve(*ref.ids, **cast("CallOptions", self._options))
        return [item for item in response.output or [] if isinstance(item, ResponseMessage)]
