"""The ways to sign requests. A credential must never appear in a repr, a log or an error."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol

import anyio

from asyncruns.errors import APIConnectionError, ConfigurationError
from asyncruns.http import as_text
from asyncruns.user_code import Raised, UserTask

AZURE_SCOPE: Final = "https://ai.azure.com/.default"
# How long before its expiry a token is refreshed; a fifth of its lifetime if that is shorter. A token that is valid for
# an hour is refreshed after 55 minutes, one that is valid for 10 minutes after 8.
REFRESH_LEAD_S: Final = 300.0
TOKEN_HOLD_S: Final = 60.0  # how long a token without an expiry is used before the provider is called again
REFRESH_PAUSE_S: Final = 10.0  # after a refresh that failed while the old token is still valid

# Matches the names of headers, query parameters and settings that hold a credential.
SECRET_NAME: Final = re.compile(r"auth|cookie|key|passw|secret|signature|token|^sig$", re.I)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # https://www.rfc-editor.org/rfc/rfc9110#name-tokens

Headers = Mapping[str, str]


class Auth(ABC):
    """Signs requests: supplies the headers for that."""

    @abstractmethod
    def ready(self) -> Headers | None:
        """Return the headers without waiting, or None if `refresh` must be called first.

        The same object is returned until the headers change: `refresh` and the transports compare by identity.
        """

    async def refresh(self, rejected: Headers | None = None) -> Headers | None:
        """Fetch and return new headers, or return None if there are no others.

        Safe to cancel.

        Args:
            rejected: The headers that the server refused. If they have been replaced since, the current ones are
                returned and nothing is fetched.

        Raises:
            APIConnectionError: No token could be fetched. Nothing was sent to the server.
        """
        headers = self.ready()
        return None if headers is rejected else headers

    @abstractmethod
    def secrets(self) -> tuple[str, ...]:
        """Return the texts that must never be shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


class _ConstantAuth(Auth):
    def __init__(self, headers: Headers, secrets: tuple[str, ...]) -> None:
        self._headers = checked_headers(headers)
        self._secrets = secrets

    def ready(self) -> Headers:
        return self._headers

    def secrets(self) -> tuple[str, ...]:
        return self._secrets


class NoAuth(_ConstantAuth):
    """Sends requests unsigned."""

    def __init__(self) -> None:
        super().__init__({}, ())


class ApiKeyAuth(_ConstantAuth):
    """Sends a key in a header of its own; by default in `api-key`, as Azure OpenAI expects it."""

    def __init__(self, key: str, *, header: str = "api-key") -> None:
        _require_text("key", key)
        super().__init__({header: key}, (key,))


class AccessToken(Protocol):
    """A token as azure-identity returns it."""

    @property
    def token(self) -> str:
        """The token itself."""
        ...

    @property
    def expires_on(self) -> float:
        """When it expires, in seconds since the epoch; compared with this machine's wall clock."""
        ...


class TokenCredential(Protocol):
    """A credential such as those of azure-identity. `get_token` may be a coroutine function or block."""

    def get_token(self, *scopes: str) -> Any:
        """Return an `AccessToken`, or an awaitable of one."""
        ...


ProvidedToken = str | AccessToken
TokenProvider = Callable[[], ProvidedToken | Awaitable[ProvidedToken]]
"""A function that returns a token, or an awaitable of one. Unless it is a coroutine function, it runs in a thread."""


class BearerAuth(Auth):
    """Sends `Authorization: Bearer ...`.

    Args:
        token: A key; or a function without parameters that returns a token (a string, or an object with `token` and
            `expires_on`), async or not; or a credential with `get_token`, such as those of azure-identity. Functions
            that are not async may block: they are called in a thread.
        scope: Passed to `get_token` of a credential; by default the scope of Azure AI Foundry.

    A token that comes from a function or a credential is refreshed before it expires, and when the server answers 401
    or 403; requests that need a new token at the same time share one refresh. A string without an expiry is used for
    60 s: functions that return one usually cache and renew it themselves.

    Raises:
        ConfigurationError: `token` is something else; the message describes it.
    """

    def __init__(self, token: str | TokenProvider | TokenCredential, *, scope: str = AZURE_SCOPE) -> None:
        self._headers: Headers | None = None
        self._tokens: tuple[str, ...] = ()
        self._fetch: Callable[[], Awaitable[Any]] | None = None
        self._refresh_at = math.inf
        self._expires_at = math.inf
        self._lock: anyio.Lock | None = None
        self._failures = 0
        self._failure: Exception | None = None
        key = as_text(token)
        if isinstance(key, str):
            self._accept(key)
        elif not inspect.isclass(token) and (get_token := getattr(token, "get_token", None)) is not None:
            self._fetch = partial(_called, get_token, scope)
        else:
            self._fetch = partial(_called, _checked_provider(token))

    def ready(self) -> Headers | None:
        if self._fetch is None or asyncio.get_running_loop().time() < self._refresh_at:
            return self._headers
        return None

    async def refresh(self, rejected: Headers | None = None) -> Headers | None:
        if self._fetch is None:
            return None
        if self._lock is None:
            self._lock = anyio.Lock()
        failures = self._failures  # shows later whether a refresh failed while this one waited for the lock
        async with self._lock:
            headers = self.ready()
            if headers is not None and headers is not rejected:
                return headers  # another request has refreshed it
            if self._failure is not None and self._failures != failures:
                raise _no_token(self._failure) from self._failure  # another request has tried, and failed
            loop = asyncio.get_running_loop()
            try:
                self._keep(await _fetched(self._fetch), loop.time())
            except Exception as error:
                if rejected is not None or loop.time() >= self._expires_at or self._headers is None:
                    self._failures, self._failure = self._failures + 1, error
                    raise _no_token(error) from error
                # The old token is still valid: use it, and try again after a pause.
                self._refresh_at = loop.time() + REFRESH_PAUSE_S
            return self._headers

    def _keep(self, found: Any, now: float) -> None:
        """Store a token.

        Its expiry is converted from the wall clock to the loop's clock, which does not jump.
        """
        if isinstance(found, str):
            self._accept(found)
            self._refresh_at, self._expires_at = now + TOKEN_HOLD_S, math.inf
            return
        try:
            text, expires_on = found.token, float(found.expires_on)
        except (AttributeError, TypeError, ValueError):
            kind = type(found).__name__
            raise ConfigurationError(
                f"it returned a {kind}; it must return a string, or an object with token and expires_on"
            ) from None
        lifetime = expires_on - time.time()
        self._accept(text)
        self._expires_at = now + lifetime
        self._refresh_at = self._expires_at - min(REFRESH_LEAD_S, max(lifetime, 0.0) / 5)

    def _accept(self, token: str) -> None:
        _require_text("token", token)
        if token[:7].lower() == "bearer ":
            raise ConfigurationError('The token begins with "Bearer ", which is added automatically: pass only the key')
        headers = {"Authorization": f"Bearer {token}"}
        check_header("Authorization", headers["Authorization"])
        self._headers = headers
        # The previous token stays secret, too: responses to requests that were signed with it may still arrive.
        self._tokens = (token, *self._tokens[:1])

    def secrets(self) -> tuple[str, ...]:
        return self._tokens


def _no_token(error: Exception) -> APIConnectionError:
    # The text of a foreign error may contain a credential; our own does not.
    is_ours = isinstance(error, ConfigurationError)
    why = str(error) if is_ours else type(error).__name__
    # A wrong type or an empty token is a mistake in the program, which waiting does not cure.
    return APIConnectionError(f"No token could be fetched ({why}); nothing was sent", sent=False, passes=not is_ours)


async def _fetched(fetch: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a token provider returns. One that ignores its cancellation is abandoned."""

    async def work() -> Any:
        return await fetch()

    found = await UserTask(work(), "The token provider").result()
    if isinstance(found, Raised):
        raise found.error
    return found


def _checked_provider(token: object) -> Callable[[], Any]:
    """Return a function that can be called without arguments.

    Raises:
        ConfigurationError: `token` is not such a function; the message describes it.
    """
    wanted = "token must be a string, a plain or async function or a credential with get_token"
    if inspect.iscoroutine(token):
        token.close()  # prevents the warning that it was never awaited
        raise ConfigurationError(f"{wanted}; this is a coroutine: pass the function itself, without calling it")
    if inspect.isclass(token):
        raise ConfigurationError(f"{wanted}; this is the class {token.__name__}: pass an instance")
    if not callable(token):
        raise ConfigurationError(f"{wanted}, not a {type(token).__name__}")
    try:
        inspect.signature(token).bind()
    except TypeError:
        raise ConfigurationError(f"{wanted}; this function has required parameters: pass one without") from None
    except ValueError:
        pass  # a function written in C, without a signature
    return token


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that returns a token, in a thread unless it is async."""
    if _is_async(function):
        return await function(*arguments)
    import anyio.to_thread  # loaded only when it is needed

    found = await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
    return await found if inspect.isawaitable(found) else found


def _is_async(function: object) -> bool:
    """Return whether a call only creates a coroutine: `async def`, a `partial` of one, or an async `__call__`."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class PortkeyAuth(_ConstantAuth):
    """Signs requests to the Portkey gateway: https://portkey.ai/docs/api-reference/inference-api/headers

    Args:
        api_key: The key of the gateway itself.
        virtual_key: The name of a stored provider key.
        config: The id of a gateway config, or the config itself.
        provider: The name of a provider; its key is passed as `bearer`.
        bearer: The key of the provider.
        custom_host: The base URL of the provider.
        trace_id: Identifies the request in the logs of the gateway.
        metadata: Sent as JSON text.

    Raises:
        ConfigurationError: None of `virtual_key`, `config` and `provider` is given.
    """

    def __init__(
        self,
        api_key: str,
        *,
        virtual_key: str | None = None,
        config: str | Mapping[str, Any] | None = None,
        provider: str | None = None,
        bearer: str | None = None,
        custom_host: str | None = None,
        trace_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        _require_text("api_key", api_key)
        if not (virtual_key or config or provider):
            raise ConfigurationError("Portkey needs one of virtual_key, config and provider in addition to api_key")
        headers = {
            "x-portkey-api-key": api_key,
            "x-portkey-virtual-key": virtual_key,
            "x-portkey-config": config if config is None or isinstance(config, str) else _header_json(config),
            "x-portkey-provider": provider,
            "Authorization": None if bearer is None else f"Bearer {bearer}",
            "x-portkey-custom-host": custom_host,
            "x-portkey-trace-id": trace_id,
            "x-portkey-metadata": None if metadata is None else _header_json(metadata),
        }
        secrets = tuple(secret for secret in (api_key, virtual_key, bearer, *_secrets_in(config)) if secret)
        super().__init__({name: value for name, value in headers.items() if value is not None}, secrets)


def _header_json(value: Mapping[str, Any]) -> str:
    """Return JSON text for a header: one line of ASCII."""
    try:
        return json.dumps(dict(value), separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A config or metadata can't be written as JSON: {error}") from error


def _secrets_in(config: object) -> Iterator[str]:
    """Yield the keys in a gateway config, at any depth."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if isinstance(value, str) and SECRET_NAME.search(str(name)):
                yield value
            else:
                yield from _secrets_in(value)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from _secrets_in(item)


def checked_headers(headers: Headers) -> dict[str, str]:
    """Return headers as they are sent: enum members, UUIDs and similar values as text.

    Raises:
        ConfigurationError: One of them can't be sent.
    """
    texts: dict[str, Any] = {name: as_text(value) for name, value in headers.items()}
    for name, value in texts.items():
        check_header(name, value)
    return texts


def check_header(name: object, value: object) -> None:
    """Check that a header can be sent as it is.

    Raises:
        ConfigurationError: It can't. The message does not show the value, which may be a credential.
    """
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise ConfigurationError("The name of a header is not valid: use only letters, digits and hyphens")
    if not isinstance(value, str):
        raise ConfigurationError(f"The value for the header {name} must be a string, not a {type(value).__name__}")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ConfigurationError(
            f"The value for the header {name} contains a line break or another control character; was it read "
            "from a file without stripping?"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError(f"The value for the header {name} contains characters outside of Latin-1") from None


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        is_empty = isinstance(value, str)
        why = ": it is empty; is the environment variable that it comes from set?" if is_empty else ""
        raise ConfigurationError(f"{name} must be a non-empty string{why}")
