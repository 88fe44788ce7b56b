"""The exceptions that asyncruns raises on purpose, and how they are pickled.

::

    AsyncRunsError
    ├── ConfigurationError            a client or a toolset was set up wrongly; nothing was sent
    ├── InvalidRequestError           a wrong argument or a wrong call (also a ValueError); it sent nothing
    ├── InvalidWebhookSignatureError  a webhook that may not come from the server, or is too old (also a ValueError)
    ├── APIError                      a request or a stream failed
    │   ├── APIConnectionError        no response, or a part of one; `sent` is whether the server may have acted
    │   │   └── APITimeoutError       no response came in time
    │   ├── APIResponseValidationError   the response is not one of this API (HTML, truncated, empty)
    │   │   └── EventTooLargeError        an event of a stream is larger than the limit
    │   └── APIStatusError            the server answered with an error status
    │       ├── BadRequestError            400
    │       │   └── ThreadBusyError        a run is active on the thread
    │       ├── AuthenticationError        401
    │       ├── PermissionDeniedError      403
    │       ├── NotFoundError              404
    │       ├── ConflictError              409
    │       ├── UnprocessableEntityError   422
    │       ├── RateLimitError             429
    │       └── InternalServerError        500 and above
    ├── RunError                      raised by `outcome.unwrap()`; carries the outcome
    │   ├── RunFailedError
    │   ├── RunCancelledError
    │   ├── RunExpiredError
    │   ├── RunIncompleteError
    │   ├── RunNeedsCallerError       the caller must answer the calls that are still open
    │   └── WatchGaveUpError          the watch gave up before the run ended
    │       └── RunGoneError          the run existed and is gone: deleted or purged
    ├── JournalError                  a journal could not be written or read
    │   └── NotOwnerError             another process owns the watch now
    ├── BatchGroupError               not every batch of a group could be created; carries the group
    ├── InvalidOutputError            raised by `outcome.parsed()`: the text does not fit the output type
    ├── RefusalError                  raised by `outcome.parsed()`: the model refused to answer
    ├── CallNotAnsweredError          a tool call failed, and the toolset's policy leaves it to the caller
    └── ToolError                     raise it in a tool: the model reads its text
    ForeignError                      replaces an exception that could not be pickled; never raised

The names under `APIError` are those of the official client, except `EventTooLargeError` and `ThreadBusyError`, and so
is that of `InvalidWebhookSignatureError`; its `OpenAIError` is `AsyncRunsError`. No message, repr or attribute holds a
credential: the transport removes the client's credentials from whatever a server echoes.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol, Self, TypeVar

SHOWN_BODY_CHARACTERS: Final = 300


class AsyncRunsError(Exception):
    """Base class of the errors of asyncruns.

    It can be pickled and copied, with its cause and its notes. An exception in it that cannot be pickled safely, such
    as a cause that is an error of aiohttp, is unpickled as a `ForeignError`; any other such value as None.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes only `args` to the class, and so loses keyword-only arguments.
        with _entered(self):
            state = {name: portable(value) for name, value in self.__dict__.items()}
            return _restored, (type(self), tuple(map(portable, self.args)), state, _links(self))

    def __copy__(self) -> Self:
        twin = _blank(type(self), self.args)
        twin.__dict__.update(self.__dict__)
        return _linked(twin, self.__cause__, self.__context__, self.__suppress_context__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = copy.copy(self)
        twin.args = tuple(_deep(value, memo) for value in self.args)
        twin.__dict__.update({name: _deep(value, memo) for name, value in self.__dict__.items()})
        return twin


OpenAIError = AsyncRunsError

E = TypeVar("E", bound=BaseException)


class ForeignError(Exception):
    """Replaces an exception that could not be pickled, in the process that unpickles it. Never raised.

    Attributes:
        kind: The qualified name of the exception's class, with its module.
        message: The exception's text, without queries and credentials of URLs.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


# How errors are pickled. Each value that may fail is pickled separately and unpickled as a test, so that it can be
# replaced: an exception that can be pickled but not unpickled breaks a process pool.

# The ids of the values that are being pickled. An exception may be its own cause or context, at any depth.
_ENTERED: Final[ContextVar[frozenset[int]]] = ContextVar("asyncruns pickles", default=frozenset())
# In "http://user:secret@host/path?api-key=secret": "user:secret@" and "?api-key=secret".
_IN_URLS: Final = re.compile(r"(?<=://)[^/\s@]*@|\?[^\s'\")]*")
_HOLD_REQUESTS: Final = frozenset({"aiohttp", "azure", "httpcore", "httpx", "requests", "urllib3"})
"""Libraries whose exceptions hold requests or proxies, with their credentials: only their text is pickled."""

_PLAIN: Final = (str, bytes, int, float, bool, type(None))


def portable(value: object) -> object:
    """Return what is pickled in place of a value: something that can certainly be unpickled.

    A plain value is returned unchanged. An exception that cannot be pickled becomes a `ForeignError`, and any other
    such value None.
    """
    if type(value) in _PLAIN:
        return value
    try:
        return _dumped(value)
    except Exception:
        return _Pickled(pickle.dumps(_foreign(value))) if isinstance(value, BaseException) else None


def _dumped(value: object) -> _Pickled:
    if type(value).__module__.partition(".")[0] in _HOLD_REQUESTS:
        raise ValueError("it may hold a credential")
    if id(value) in _ENTERED.get():  # pickling it again would not end
        raise ValueError("an exception that is its own cause")
    with _entered(value):
        data = pickle.dumps(value)
        # Python does not pickle the cause and context of an exception; ours do it themselves, in `__reduce__`.
        links = _links(value) if isinstance(value, BaseException) and not isinstance(value, AsyncRunsError) else ()
    if type(pickle.loads(data)) is not type(value):  # noqa: S301 - our own bytes
        raise TypeError("it becomes something else")
    return _Pickled(data, links)


class _Pickled:
    """A value that is pickled already."""

    def __init__(self, data: bytes, links: tuple[Any, ...] = ()) -> None:
        self._data = data
        self._links = links

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._data, self._links)


def _unpickled(data: bytes, links: tuple[Any, ...]) -> Any:
    value = pickle.loads(data)  # noqa: S301 - inside of a pickle
    return _linked(value, *links) if links else value


@contextmanager
def _entered(value: object) -> Iterator[None]:
    token = _ENTERED.set(_ENTERED.get() | {id(value)})
    try:
        yield
    finally:
        _ENTERED.reset(token)


def _foreign(error: BaseException) -> ForeignError:
    try:
        text = str(error)
    except Exception:  # any `__str__` may be broken; pickling must not fail because of it
        text = ""
    return ForeignError(f"{type(error).__module__}.{type(error).__qualname__}", _IN_URLS.sub("", text))


def _links(error: Any) -> tuple[Any, ...]:
    """Return what an exception is chained to: its cause, or its context if a traceback would show that."""
    cause = error.__cause__
    context = None if cause is not None or error.__suppress_context__ else error.__context__
    return portable(cause), portable(context), error.__suppress_context__


def _linked(error: E, cause: BaseException | None, context: BaseException | None, suppress_context: bool) -> E:
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = suppress_context  # last: setting `__cause__` sets it to True
    return error


def _blank(kind: type[E], args: tuple[Any, ...]) -> E:
    # Without `__init__`: its keyword-only arguments are not in `args`, but in the state that the caller restores.
    error: E = kind.__new__(kind, *args)
    error.args = args
    return error


def _restored(
    kind: type[AsyncRunsError], args: tuple[Any, ...], state: dict[str, Any], links: tuple[Any, ...]
) -> AsyncRunsError:
    error = _blank(kind, args)
    error.__dict__.update(state)
    return _linked(error, *links)


def _deep(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return value if isinstance(value, BaseException) else copy.deepcopy(value, memo)
    except Exception:  # a value that cannot be copied, such as a lock, is shared with the copy, as exceptions are
        return value


def pickled_fields(value: Any) -> tuple[Any, ...]:
    """Return the result of `__reduce__` for a struct whose fields may hold exceptions; private ones are left out."""
    fields = {name: portable(getattr(value, name)) for name in value.__struct_fields__ if not name.startswith("_")}
    return _rebuilt, (type(value), fields)


def _rebuilt(kind: type[Any], fields: dict[str, Any]) -> Any:
    return kind(**fields)


class ConfigurationError(AsyncRunsError):
    """A client or a toolset is configured in a way that cannot work; nothing was sent."""


class JournalError(AsyncRunsError):
    """A journal could not be written or read; what was to be done after that was not done."""


class NotOwnerError(JournalError):
    """Another process owns the watch now, and goes on with it; this one must not.

    Attributes:
        watch: The key of the watch in its journal; "" if that is not known.
    """

    watch: str = ""


class InvalidRequestError(AsyncRunsError, ValueError):
    """An argument is invalid, or the call is not possible now, as before a watch is entered; it sent nothing."""


class InvalidWebhookSignatureError(AsyncRunsError, ValueError):
    """A webhook is not signed with the secret, or its signature is older than 300 s or as much ahead of our clock."""


class ToolError(AsyncRunsError):
    """Raise it in a tool to report to the model what went wrong: its text becomes the call's output."""


class FailedCall(Protocol):
    """A tool call that failed; in practice a `Call`, which this module cannot import."""

    @property
    def id(self) -> str:
        """The server's id of the call."""
        ...

    @property
    def name(self) -> str:
        """The name of the function."""
        ...

    @property
    def arguments(self) -> str:
        """The arguments as the model wrote them: JSON text, possibly malformed."""
        ...


class CallNotAnsweredError(AsyncRunsError):
    """A tool call failed, and the toolset's policy leaves it to the caller: `Toolset.call` has no output for it.

    Attributes:
        call: The call. The reason for the failure is the `__cause__`.
    """

    def __init__(self, message: str, *, call: FailedCall) -> None:
        super().__init__(message)
        self.call: FailedCall = call


def with_sentence(message: str, text: str) -> str:
    """Return a message with one more sentence, or a remark in parentheses, and a full stop before a sentence."""
    stop = "." if text[:1].isalpha() and not message.endswith((".", "!", "?")) else ""
    return f"{message}{stop} {text}"


class APIError(AsyncRunsError):
    """A request or a stream failed.

    Attributes:
        message: What happened, and what to do next.
        method: The HTTP method, or "".
        path: The requested path, without the query, or "".
        code, type, param: As in the server's error object; None if it has none.
        body: The raw body of the response; b"" if no response came.
        request_id: Identifies the request to the server's operators, or "".
    """

    code: str | None = None
    type: str | None = None
    param: str | None = None
    body: bytes = b""
    request_id: str = ""

    def __init__(self, message: str, *, method: str = "", path: str = "") -> None:
        super().__init__(message)
        self.message: str = message
        self.method = method
        self.path = path

    def _classify(self, *, code: str | None, type: str | None, param: str | None) -> Self:
        """Set the fields of the server's error object, and return the error."""
        self.code, self.type, self.param = code, type, param
        return self

    def _extend(self, text: str) -> Self:  # not `add_note`: notes are not in `str(error)`, which is what gets logged
        """Add a sentence to the message, and return the error.

        Args:
            text: The sentence. If it quotes a server, the caller has escaped control characters (`wire.shown_text`).
        """
        self.message = with_sentence(self.message, text)
        Exception.__init__(self, self.message)  # which sets `args`
        return self


class APIConnectionError(APIError):
    """No response came, or the response or stream broke off.

    Attributes:
        sent: Whether the request may have reached the server. If False (the connection was refused, the host is
            unknown, an upload broke off), it is safe to send it again; if True, a POST may have had its effect.
        passes: Whether the trouble may pass with time. False if a setting must be changed, such as the host, the
            scheme or the trusted certificates; the message says which, and the request is not repeated.
    """

    def __init__(self, message: str, *, sent: bool, passes: bool = True, method: str = "", path: str = "") -> None:
        super().__init__(message, method=method, path=path)
        self.sent = sent
        self.passes = passes


class APITimeoutError(APIConnectionError):
    """No response came within the request's timeout. The server may still act on the request."""


class APIResponseValidationError(APIError):
    """A response came with a good status, but its body is not one of this API.

    Proxies answer 200 with HTML, an empty body or truncated JSON. `status`, `request_id` and `body` are kept; the
    message holds the first bytes of the body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: bytes,
        request_id: str = "",
        method: str = "",
        path: str = "",
    ) -> None:
        super().__init__(message, method=method, path=path)
        self.status = status
        self.body = body
        self.request_id = request_id

    @property
    def status_code(self) -> int:
        """The HTTP status, under its name in the official client."""
        return self.status


class EventTooLargeError(APIResponseValidationError):
    """An event of a stream exceeds the size limit, such as a line without end. The run goes on at the server."""


class APIStatusError(APIError):
    """The server answered with a status of 300 or above.

    Attributes:
        status: The HTTP status (also as `status_code`).
        detail: The server's own message, or the first characters of the body if it has none.
        headers: The response's headers, by names in lower case.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        detail: str = "",
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        request_id: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        method: str = "",
        path: str = "",
    ) -> None:
        super().__init__(message, method=method, path=path)
        self.status = status
        self.detail = detail
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.body = body
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in (headers or {}).items()}

    @property
    def status_code(self) -> int:
        """The HTTP status, under its name in the official client."""
        return self.status


class BadRequestError(APIStatusError):
    """400."""


class ThreadBusyError(BadRequestError):
    """A run is active on the thread, so it accepts no message and no other run. 400 at most servers; see `status`.

    Attributes:
        active_run_id: The id of the run that holds the thread, as the server names it.
        thread_id: The id of the thread.
    """

    def __init__(self, message: str, *, active_run_id: str, thread_id: str, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.active_run_id = active_run_id
        self.thread_id = thread_id


class AuthenticationError(APIStatusError):
    """401: the credential was refused."""


class PermissionDeniedError(APIStatusError):
    """403."""


class NotFoundError(APIStatusError):
    """404."""


class ConflictError(APIStatusError):
    """409."""


class UnprocessableEntityError(APIStatusError):
    """422."""


class RateLimitError(APIStatusError):
    """429."""


class InternalServerError(APIStatusError):
    """500 and above."""


_BY_STATUS: Final[Mapping[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int) -> type[APIStatusError]:
    """Return the exception class for an HTTP status."""
    return _BY_STATUS.get(status, InternalServerError if status >= 500 else APIStatusError)


class RunError(AsyncRunsError):
    """The run did not complete, or its watch gave up. `outcome` holds everything that is known."""

    def __init__(self, message: str, outcome: Any) -> None:
        super().__init__(message)
        self.outcome = outcome


class RunFailedError(RunError):
    """The run failed; the server's reason is in the message and in `outcome.error`."""


class RunCancelledError(RunError):
    """The run was cancelled."""


class RunExpiredError(RunError):
    """The run expired at the server, usually because tool outputs came too late."""


class RunIncompleteError(RunError):
    """The run ended before its text was complete, for instance at a token limit."""


class RunNeedsCallerError(RunError):
    """The run waits for outputs: `outcome.calls` have none yet, `outcome.outputs` are ready; see `outcome.reason`."""


class WatchGaveUpError(RunError):
    """The watch gave up before the run ended; `outcome.reason` says why. The run may go on at the server."""


class RunGoneError(WatchGaveUpError):
    """The run existed, and now the server has no such run: it was deleted, or purged."""


class BatchGroupError(AsyncRunsError):
    """Not every batch of a group could be created; the message says which run, and what to do. The cause says why.

    Attributes:
        group: The `BatchGroup`: what was created runs, and `client.watch(group)` creates the rest.
    """

    def __init__(self, message: str, group: Any) -> None:
        super().__init__(message)
        self.group = group


class InvalidOutputError(AsyncRunsError):
    """The run is completed, but its text is not a value of the output type; the message says where and why.

    Attributes:
        ref: The `RunRef` of the run.
        text: The whole text that was read; "" if the run wrote none. The error of msgspec or pydantic is the
            `__cause__`.
    """

    def __init__(self, message: str, *, ref: Any, text: str) -> None:
        super().__init__(message)
        self.ref = ref
        self.text = text


class RefusalError(AsyncRunsError):
    """The run is completed, but the model refused to answer.

    Attributes:
        ref: The `RunRef` of the run.
        refusal: What the model wrote instead of an answer.
    """

    def __init__(self, message: str, *, ref: Any, refusal: str) -> None:
        super().__init__(message)
        self.ref = ref
        self.refusal = refusal
