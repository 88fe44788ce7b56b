"""How requests are signed. A credential never shows in a repr, a log or an error."""

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
REFRESH_LEAD_S: Final = 300.0  # before the expiry, or a fifth of the lifetime where that is shorter
TOKEN_HOLD_S: Final = 60.0  # for a token whose lifetime nobody tells
REFRESH_PAUSE_S: Final = 10.0  # between tries while the old token still holds

# What a header, a query parameter or a setting is called when it holds a credential.
SECRET_NAME: Final = re.compile(r"auth|cookie|key|passw|secret|signature|token|^sig$", re.I)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # https://www.rfc-editor.org/rfc/rfc9110#name-tokens

Headers = Mapping[str, str]


class Auth(ABC):
    """Gives the headers that sign a request."""

    @abstractmethod
    def ready(self) -> Headers | None:
        """Give the headers without waiting, the same object while they are the same; None: call `refresh` first."""

    async def refresh(self, rejected: Headers | None = None) -> Headers | None:
        """Fetch new headers; None when there are no others to be had.

        Safe to cancel.

        Args:
            rejected: The headers that the server refused. Who comes with older ones gets those of the last refresh.

        Raises:
            APIConnectionError: The credential gave no token. Nothing was sent to the server.
        """
        headers = self.ready()
        return None if headers is rejected else headers

    @abstractmethod
    def secrets(self) -> tuple[str, ...]:
        """Give the texts that must never be shown."""

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
    """Sign nothing."""

    def __init__(self) -> None:
        super().__init__({}, ())


class ApiKeyAuth(_ConstantAuth):
    """Send a key in a header of its own, `api-key` as Azure OpenAI wants it by default."""

    def __init__(self, key: str, *, header: str = "api-key") -> None:
        _require_text("key", key)
        super().__init__({header: key}, (key,))


class AccessToken(Protocol):
    """A token as azure-identity gives it; `expires_on` is in seconds of the epoch, by our wall clock."""

    @property
    def token(self) -> str:
        """The token itself."""
        ...

    @property
    def expires_on(self) -> float:
        """When it expires."""
        ...


class TokenCredential(Protocol):
    """A credential of azure-identity or alike; `get_token` may be a coroutine function or a blocking one."""

    def get_token(self, *scopes: str) -> Any:
        """Give an `AccessToken`, or an awaitable of one."""
        ...


ProvidedToken = str | AccessToken
TokenProvider = Callable[[], ProvidedToken | Awaitable[ProvidedToken]]
"""A function that returns a token, or an awaitable of one. One that is no coroutine function is called in a thread."""


class BearerAuth(Auth):
    """Send `Authorization: Bearer ...`.

    Args:
        token: A key; or a function without parameters that returns a token (text, or an object with `token` and
            `expires_on`), async or not; or a credential with `get_token`, such as those of azure-identity. What is not
            async may block: it is called in a thread.
        scope: What a credential is asked for; the scope of Azure AI Foundry by default.

    A token that can be refreshed is, before it expires and once for all who wait; and once more when the server answers
    401 or 403. A text without an expiry is held for 60 s: providers that give one keep and renew it themselves.

    Raises:
        ConfigurationError: The token is none of these; the message says what it is.
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
        failures = self._failures
        async with self._lock:
            headers = self.ready()
            if headers is not None and headers is not rejected:
                return headers  # another waiter was here before
            if self._failure is not None and self._failures != failures:
                raise _no_token(self._failure) from self._failure  # likewise, and in vain
            loop = asyncio.get_running_loop()
            try:
                self._keep(await _fetched(self._fetch), loop.time())
            except Exception as error:
                if rejected is not None or loop.time() >= self._expires_at or self._headers is None:
                    self._failures, self._failure = self._failures + 1, error
                    raise _no_token(error) from error
                self._refresh_at = loop.time() + REFRESH_PAUSE_S
            return self._headers

    def _keep(self, found: Any, now: float) -> None:
        """Keep a token, its lifetime counted on the loop's clock from here."""
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
            raise ConfigurationError('The token begins with "Bearer ", which is put before it: give the key alone')
        headers = {"Authorization": f"Bearer {token}"}
        check_header("Authorization", headers["Authorization"])
        self._headers = headers
        # The one before, too: requests that were signed with it may still be answered.
        self._tokens = (token, *self._tokens[:1])

    def secrets(self) -> tuple[str, ...]:
        return self._tokens


def _no_token(error: Exception) -> APIConnectionError:
    # Another's error may hold a credential, ours does not.
    is_ours = isinstance(error, ConfigurationError)
    why = str(error) if is_ours else type(error).__name__
    return APIConnectionError(f"The credential gave no token ({why}); nothing was sent", sent=False, passes=not is_ours)


async def _fetched(fetch: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a provider of tokens gives; one that ignores its cancellation is abandoned."""

    async def work() -> Any:
        return await fetch()

    found = await UserTask(work(), "The provider of tokens").result()
    if isinstance(found, Raised):
        raise found.error
    return found


def _checked_provider(token: object) -> Callable[[], Any]:
    """Return a function that can be called without arguments.

    Raises:
        ConfigurationError: It is none; the message says what it is.
    """
    wanted = "token must be a string, a plain or async function or a credential with get_token"
    if inspect.iscoroutine(token):
        token.close()  # else its end is a warning that it was never awaited
        raise ConfigurationError(f"{wanted}; this is a coroutine: give the function itself, without calling it")
    if inspect.isclass(token):
        raise ConfigurationError(f"{wanted}; this is the class {token.__name__}: make an instance of it")
    if not callable(token):
        raise ConfigurationError(f"{wanted}, not a {type(token).__name__}")
    try:
        inspect.signature(token).bind()
    except TypeError:
        raise ConfigurationError(f"{wanted}; this function has parameters: give one that takes none") from None
    except ValueError:
        pass  # one of C without a signature
    return token


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what returns a token, in a thread if it may block."""
    if _is_async(function):
        return await function(*arguments)
    import anyio.to_thread  # loaded when something that blocks needs it

    found = await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
    return await found if inspect.isawaitable(found) else found


def _is_async(function: object) -> bool:
    """Tell whether calling something only makes a coroutine: a function, a `partial` of one, an object called so."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class PortkeyAuth(_ConstantAuth):
    """Sign for the Portkey gateway: https://portkey.ai/docs/api-reference/inference-api/headers

    Args:
        api_key: The gateway's own key.
        virtual_key: The name of a stored provider key.
        config: The id of a gateway config, or the config itself.
        provider: A provider's name; its key goes into `bearer`.
        bearer: The provider's own key.
        custom_host: Where the provider is.
        trace_id: Names the exchange in the gateway's logs.
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
            raise ConfigurationError("Portkey needs one of virtual_key, config and provider beside the api_key")
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
    """Give JSON text for a header: one line of ASCII."""
    try:
        return json.dumps(dict(value), separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A config or metadata can't be written as JSON: {error}") from error


def _secrets_in(config: object) -> Iterator[str]:
    """Find the keys within a gateway config."""
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
    """Return headers as they are sent: enum members, UUIDs and the like as text.

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
        ConfigurationError: It can't; the message does not show the value, which may be a credential.
    """
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise ConfigurationError("A header's name must be of letters, digits and hyphens")
    if not isinstance(value, str):
        raise ConfigurationError(f"The value for the header {name} must be a string, not a {type(value).__name__}")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ConfigurationError(
            f"The value for the header {name} has a line break or another control character in it; was it read from "
            "a file without stripping?"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError(f"The value for the header {name} has characters outside of Latin-1") from None


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        is_empty = isinstance(value, str)
        why = ": it is empty; is the environment variable set that it comes from?" if is_empty else ""
        raise ConfigurationError(f"{name} must be a non-empty string{why}")
