"""The errors for requests without an answer: may the server have acted, and which setting has to be changed?"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Final

from yarl import URL

from asyncruns.errors import (
    SHOWN_BODY_CHARACTERS,
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
)
from asyncruns.http import Request, request_id
from asyncruns.transport.redaction import Redactor
from asyncruns.transport.trust import Trust
from asyncruns.transport.unreachable import tls_where_plain, what_to_set

BREAKS_BEFORE_PROBE: Final = 2  # in a row, if the server has never answered, before the port is tested for TLS
_SENT: Final = "The server may have acted on it."
_CUT_OFF: Final = "Only a part of the upload was sent, so the server did not act on it."
_NOTHING_SENT: Final = "Nothing was sent: check the host, the port and the network."


class Failures:
    """Creates the errors of one transport.

    Args:
        base_url: The base URL of the API.
        redactor: Removes credentials from texts of libraries and servers.
        trust: Is informed of each lost answer.
        may_be_tls: Whether the port may speak TLS although the base URL is http; only for direct connections.
    """

    def __init__(self, base_url: str, redactor: Redactor, trust: Trust, *, may_be_tls: bool) -> None:
        self._base_url = base_url
        self._redactor = redactor
        self._trust = trust
        self._breaks_before_probe = BREAKS_BEFORE_PROBE if may_be_tls else math.inf
        self._tls_where_plain: str | None = None

    async def lost(
        self, request: Request, error: BaseException, began: float, *, left: bool = True, whole: bool = True
    ) -> APIConnectionError:
        """Note that no answer came, and return the error that says so.

        Args:
            request: The request.
            error: The exception of the library.
            began: When the request began, by the loop's clock.
            left: Whether a part of the request may have been sent.
            whole: Whether all of it may have been sent; the server cannot act on a part of an upload.
        """
        to_set = what_to_set(error, has_answered=self._trust.has_answered)
        sent = to_set is None and left  # with a wrong setting, the server has not understood the request
        if sent:
            now = asyncio.get_running_loop().time()
            self._trust.lost(began, now, broke=not isinstance(error, TimeoutError))
        effect = _NOTHING_SENT if not sent else _SENT if whole else _CUT_OFF
        return self._no_answer(request, error, to_set or await self._probed(), effect)

    async def _probed(self) -> str | None:
        """Return which setting to change if the port speaks TLS and was used without, or None."""
        if self._trust.has_answered:
            return None
        if self._trust.broken_in_a_row == self._breaks_before_probe:  # once; the result is kept
            self._tls_where_plain = await tls_where_plain(URL(self._base_url))
        return self._tls_where_plain

    def _no_answer(self, request: Request, error: BaseException, to_set: str | None, effect: str) -> APIConnectionError:
        what = f"{request.method} {request.path} at {self._base_url}"
        if to_set is not None:
            message = f"No answer to {what} ({self._shown(error, request)}). {to_set}"
            return APIConnectionError(message, sent=False, passes=False, method=request.method, path=request.path)
        sent = effect == _SENT
        if isinstance(error, asyncio.TimeoutError):
            when = "No connection in time" if effect == _NOTHING_SENT else "No answer in time"
            return APITimeoutError(
                f"{when}: {what}. {effect}",
                sent=sent,
                method=request.method,
                path=request.path,
            )
        return APIConnectionError(
            f"No answer to {what} ({self._shown(error, request)}). {effect}",
            sent=sent,
            method=request.method,
            path=request.path,
        )

    def stream_broke(self, request: Request, error: BaseException, silent_s: float | None) -> APIConnectionError:
        """Return the error of a stream that broke off, or was silent for `silent_s` seconds."""
        what = f"The stream of {request.method} {request.path} at {self._base_url}"
        if isinstance(error, asyncio.TimeoutError):
            message = f"{what} fell silent: no byte in {silent_s} s"
            return APITimeoutError(message, sent=True, method=request.method, path=request.path)
        message = f"{what} broke off ({self._shown(error, request)})"
        return APIConnectionError(message, sent=True, method=request.method, path=request.path)

    def too_large(
        self, request: Request, status: int, headers: Mapping[str, str], start: bytes, limit: int
    ) -> APIResponseValidationError:
        """Return the error of an answer whose body is larger than the limit.

        Args:
            request: The request.
            status: The status of the answer.
            headers: The headers of the answer.
            start: The beginning of the body.
            limit: The maximum size of a body, in bytes.
        """
        return APIResponseValidationError(
            f"{request.method} {request.path} answered {status} with more than {limit} bytes; "
            "the rest was not read. Does the base URL end with the version of the API? For a list, pass a "
            "smaller limit=",
            status=status,
            body=self._redactor.body(start[:SHOWN_BODY_CHARACTERS], request),
            request_id=request_id(headers),
            method=request.method,
            path=request.path,
        )

    def _shown(self, error: BaseException, request: Request) -> str:
        return self._redactor.text(f"{type(error).__name__}: {error}", request)
