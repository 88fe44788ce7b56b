"""Clients of particular servers, and clients with the settings of the environment or of an official client.

No key may go to another host than the one that it was set for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, cast
from urllib.parse import urlsplit

from asyncruns.client.anthropic import ANTHROPIC_VERSION, anthropic_server
from asyncruns.client.environment import server_of_environment, with_proxy_of_environment
from asyncruns.client.official import taken_over
from asyncruns.client.options import ApiKey, ClientOptions
from asyncruns.errors import ConfigurationError
from asyncruns.transport.auth import (
    AZURE_SCOPE,
    ApiKeyAuth,
    Auth,
    BearerAuth,
    NoAuth,
    PortkeyAuth,
    TokenCredential,
    TokenProvider,
)
from asyncruns.transport.urls import check_base_url

C = TypeVar("C", bound="KnownServers")

AZURE_OPENAI_DOMAIN: Final = ".openai.azure.com"
AZURE_OPENAI_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
PORTKEY_BASE_URL: Final = "https://api.portkey.ai/v1"


class KnownServers:
    """The functions that make a client with other arguments than its own."""

    if TYPE_CHECKING:

        def __init__(
            self,
            base_url: str | None = None,
            *,
            auth: Auth | None = None,
            api_key: ApiKey | None = None,
            **options: Unpack[ClientOptions],
        ) -> None: ...

    @classmethod
    def azure(
        cls: type[C],
        endpoint: str,
        *,
        api_version: str,
        credential: TokenCredential | TokenProvider | None = None,
        api_key: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> C:
        """Create a client of Azure AI Foundry Agents (classic), or of Azure OpenAI.

        Args:
            endpoint: `https://RESOURCE.services.ai.azure.com/api/projects/PROJECT`, or
                `https://RESOURCE.openai.azure.com`, to which `/openai` is appended.
            api_version: Required by the server: "v1" or "2025-05-01" for Foundry, "2024-05-01-preview" for Azure
                OpenAI.
            credential: A credential of azure-identity, or a function that returns a token, async or not. Tokens are
                renewed before they expire.
            api_key: A key, instead of a credential; sent as the header `api-key`.
            **options: The other options of `Client`. `version` is "v2" for Azure OpenAI by default, and None for
                Foundry.

        Raises:
            ConfigurationError: Neither or both of `credential` and `api_key` are given, or `api_version` is empty, or
                an option is unusable.
        """
        if (credential is None) is (api_key is None):
            raise ConfigurationError("Azure needs either credential= or api_key=")
        if not api_version:
            raise ConfigurationError('Azure needs an api_version=, such as "v1"')
        endpoint = check_base_url(endpoint)
        is_openai = (urlsplit(endpoint).hostname or "").endswith(AZURE_OPENAI_DOMAIN)
        if is_openai and not urlsplit(endpoint).path:
            endpoint += "/openai"
        auth: Auth = NoAuth()
        if credential is not None:
            auth = BearerAuth(credential, scope=AZURE_OPENAI_SCOPE if is_openai else AZURE_SCOPE)
        elif api_key is not None:
            auth = ApiKeyAuth(api_key)
        given = dict(options)
        given.setdefault("version", "v2" if is_openai else None)
        given["default_query"] = {"api-version": api_version, **(options.get("default_query") or {})}
        return cls(endpoint, auth=auth, **cast("ClientOptions", given))

    @classmethod
    def anthropic(
        cls: type[C],
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> C:
        """Create a client of Anthropic's API, or of a server that serves it, for `client.message_batches`.

        Args:
            api_key: The key, sent as the header `x-api-key`; by default that of the environment variable
                ANTHROPIC_API_KEY, which is not sent to a `base_url` that is given here.
            base_url: The URL of the server; `/v1` is appended, unless it ends with a version. By default the
                environment variable ANTHROPIC_BASE_URL, or https://api.anthropic.com/v1.
            **options: The other options of `Client`. `version` is the value of the header `anthropic-version`, by
                default "2023-06-01"; None sends none.

        Raises:
            ConfigurationError: There is no key, or an option is unusable.
        """
        url, key = anthropic_server(base_url, api_key)
        given: ClientOptions = {**options, "version": None}
        if (version := options.get("version", ANTHROPIC_VERSION)) is not None:
            given["default_headers"] = {"anthropic-version": version, **(options.get("default_headers") or {})}
        return cls(url, auth=ApiKeyAuth(key, header="x-api-key"), **given)

    @classmethod
    def portkey(
        cls: type[C],
        api_key: str,
        *,
        virtual_key: str | None = None,
        config: str | Mapping[str, Any] | None = None,
        provider: str | None = None,
        bearer: str | None = None,
        custom_host: str | None = None,
        trace_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        base_url: str = PORTKEY_BASE_URL,
        **options: Unpack[ClientOptions],
    ) -> C:
        """Create a client of the Portkey gateway; `PortkeyAuth` describes the other parameters.

        Args:
            base_url: The URL of the gateway; by default the public one.
            **options: The other options of `Client`.

        Raises:
            ConfigurationError: An option is unusable.
        """
        auth = PortkeyAuth(
            api_key,
            virtual_key=virtual_key,
            config=config,
            provider=provider,
            bearer=bearer,
            custom_host=custom_host,
            trace_id=trace_id,
            metadata=metadata,
        )
        return cls(base_url, auth=auth, **options)

    @classmethod
    def from_env(cls: type[C], **options: Unpack[ClientOptions]) -> C:
        """Create a client from environment variables.

        Reads `ASYNCRUNS_BASE_URL` with `ASYNCRUNS_API_KEY`, which is optional: without it no credential is sent. If
        there is no such URL, reads `OPENAI_API_KEY` with `OPENAI_BASE_URL`, by default https://api.openai.com/v1, which
        serves responses but no threads. The pairs are never mixed: a key is only sent to the host that it was set for.

        The proxy is read from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case, except
        for servers on this machine. `proxy=` takes precedence, and None turns the proxy off; a `session` has its own
        setting. `.netrc` is not read, unless `trust_env` is true.

        Args:
            **options: The options of `Client`, except `base_url`, `auth` and `api_key`.

        Raises:
            ConfigurationError: The environment names no server (the message says what is missing), or an empty
                `ASYNCRUNS_API_KEY`, or a proxy of another kind than HTTP; or `base_url`, `auth` or `api_key` is given.
        """
        _check_names_no_server(options, "from_env() reads the base URL and the key from the environment")
        base_url, key = server_of_environment()
        return cls(base_url, api_key=key, **with_proxy_of_environment(base_url, options))

    @classmethod
    def from_openai(cls: type[C], client: object, **options: Unpack[ClientOptions]) -> C:
        """Create a client with the settings of an official one.

        Takes over its base URL, key, organization, project, headers, query, `max_retries` and `timeout`. A key or
        Azure token that comes from a function is renewed, as described at `BearerAuth`. A `Timeout` of httpx becomes a
        limit for one request as a whole: its `read`. The official default of 600 s is not taken over, but replaced by
        ours of 30 s.

        Connections are not shared, and neither are the settings of an `http_client`: proxies, certificates, transports,
        hooks. If the official client has one, say how to connect, with `proxy`, `trust_env`, `ssl` or `session`;
        `proxy=None` connects directly. Otherwise the proxy of the environment is used, as by httpx.

        What is changed in the official client afterwards has no effect here.

        Args:
            client: An `AsyncOpenAI` or `AsyncAzureOpenAI`, or a synchronous one. It is neither used nor closed.
            **options: Options of `Client`, which take precedence. `default_headers` and `default_query` are added.

        Raises:
            ConfigurationError: It is another object, or its credential can't be taken over (a provider, a workload
                identity), or it has an `http_client` and nothing says how to connect, or an option is unusable.
        """
        _check_names_no_server(options, "from_openai() takes the base URL and the key of the official client")
        base_url, auth, taken = taken_over(client, options)
        return cls(base_url, auth=auth, **taken)


def _check_names_no_server(options: ClientOptions, why: str) -> None:
    """Check that the options don't name the server or the key, which come from elsewhere."""
    if given := [f"{name}=" for name in ("base_url", "auth", "api_key") if name in options]:
        raise ConfigurationError(f"Client.{why}; with {' and '.join(given)}, use Client(base_url, api_key=...)")
