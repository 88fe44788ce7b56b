"""What can be taken over from a client of openai. That library is never imported: its client is read by attributes.

A few of them have no public name; `tests/test_from_openai.py` holds them against the installed version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from asyncruns.client.environment import with_proxy_of_environment
from asyncruns.client.options import ClientOptions
from asyncruns.errors import ConfigurationError
from asyncruns.transport.auth import ApiKeyAuth, Auth, BearerAuth, NoAuth
from asyncruns.transport.urls import check_base_url

_CLIENTS: Final = ("AsyncOpenAI", "OpenAI")  # also the base classes of those for Azure
_AZURE: Final = ("AsyncAzureOpenAI", "AzureOpenAI")
_HTTP_CLIENTS: Final = ("AsyncHttpxClientWrapper", "SyncHttpxClientWrapper")  # those that it makes for itself
_NO_KEY: Final = ("", "<missing API key>")
# Its default: ten minutes of silence, too long for a poll that hangs, and not what a user has chosen.
_DEFAULT_SILENCE_S: Final = 600
_DEPLOYMENT: Final = re.compile(r"/deployments/[^/]+$")  # in the path, for chat and embeddings; not for threads
_OWN_HEADERS: Final = re.compile(r"(accept|content-type|openai-organization|openai-project|x-stainless-.*)$", re.I)
_WAYS: Final = ("proxy", "trust_env", "ssl", "session")


def taken_over(theirs: Any, options: ClientOptions) -> tuple[str, Auth, ClientOptions]:
    """Return the base URL, the auth and the options for a client like one of openai.

    Args:
        theirs: A client of openai.
        options: The caller's options, which take precedence.

    Raises:
        ConfigurationError: It is no such client, or a part of it can't be taken over; the message says what to do.
    """
    names = [kind.__name__ for kind in type(theirs).__mro__ if kind.__module__.partition(".")[0] == "openai"]
    if not any(name in _CLIENTS for name in names):
        if any(kind.__module__.partition(".")[0] == "anthropic" for kind in type(theirs).__mro__):
            raise ConfigurationError(
                f"Client.from_openai takes a client of openai, not the {type(theirs).__name__} of anthropic: use "
                "Client.anthropic(api_key=..., base_url=...), which has message_batches"
            )
        what = f"the class {theirs.__name__}" if isinstance(theirs, type) else f"a {type(theirs).__name__}"
        raise ConfigurationError(
            f"Client.from_openai takes a client of openai: an AsyncOpenAI or AsyncAzureOpenAI; got {what}. Without "
            "one, use Client(base_url, api_key=...)"
        )
    if type(theirs._client).__name__ not in _HTTP_CLIENTS and not any(name in options for name in _WAYS):
        raise ConfigurationError(
            "This client of openai was given an http_client=, whose proxy, certificates and transport can't be taken "
            f"over. Say how to connect, with {', '.join(f'{name}=' for name in _WAYS)}; proxy=None connects directly"
        )
    base_url = str(theirs.base_url).rstrip("/")
    is_azure = any(name in _AZURE for name in names)
    if is_azure:
        base_url = _DEPLOYMENT.sub("", base_url)
    given: ClientOptions = {
        "organization": theirs.organization,
        "project": theirs.project,
        "max_retries": theirs.max_retries,
        "webhook_secret": getattr(theirs, "webhook_secret", None) or None,  # clients of 1.x may not have it
        **options,
    }
    headers = _headers_of(theirs)
    given["default_headers"] = {**headers, **(options.get("default_headers") or {})}
    given["default_query"] = {**theirs.default_query, **(options.get("default_query") or {})}
    seconds = getattr(theirs.timeout, "read", theirs.timeout)  # a number, None, or a Timeout of httpx
    if "timeout" not in options and "request_timeout" not in options and seconds != _DEFAULT_SILENCE_S:
        given["request_timeout"] = seconds
    return base_url, _auth_of(theirs, is_azure=is_azure), with_proxy_of_environment(check_base_url(base_url), given)


def _headers_of(theirs: Any) -> dict[str, str]:
    """Return the headers that the user of a client gave it."""
    return {
        name: value
        for name, value in theirs._custom_headers.items()  # `default_headers` has credentials, in some versions
        if isinstance(value, str)  # otherwise it is a mark that leaves the header out
        and not _OWN_HEADERS.match(name)
    }


def _auth_of(theirs: Any, *, is_azure: bool) -> Auth:
    """Return what signs requests as that client does.

    Raises:
        ConfigurationError: That is not known; the message does not show a credential.
    """
    given: Mapping[str, object] = theirs._custom_headers
    if any(name.lower() == "authorization" for name in given):
        return NoAuth()  # a header of the user's own takes precedence, and may also turn the credential off
    has_function = theirs._api_key_provider is not None
    if is_azure:
        token = theirs._azure_ad_token or theirs._azure_ad_token_provider
        if token is not None:
            return BearerAuth(token)
        if not has_function:
            if any(name.lower() == "api-key" for name in given):
                return NoAuth()
            return ApiKeyAuth("" if theirs.api_key in _NO_KEY else theirs.api_key)
    elif has_function:
        return BearerAuth(theirs._api_key_provider)
    elif theirs.api_key not in _NO_KEY and theirs.workload_identity is None:
        return BearerAuth(theirs.api_key)
    raise ConfigurationError(
        "How this client of openai signs its requests can't be taken over: it has no api_key= or "
        "azure_ad_token_provider=, but a provider, a workload identity, an admin key, or with Azure a function as "
        "api_key=. Use Client(base_url, api_key=...), where the key may be a function that returns a token"
    )
