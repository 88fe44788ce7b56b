"""`Client.azure` and `Client.portkey`: their base URLs, and the options that they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns import ApiKeyAuth, Auth, BearerAuth, Client, ConfigurationError, PortkeyAuth
from asyncruns.client.options import ClientOptions


class Credential:
    def get_token(self, *scopes: str) -> Any: ...


def auth_of(client: Client) -> Auth:
    found = getattr(client.transport, "_auth", None)
    assert isinstance(found, Auth)
    return found


@pytest.mark.parametrize(
    ("endpoint", "used"),
    [
        ("https://res.services.ai.azure.com/api/projects/P", "https://res.services.ai.azure.com/api/projects/P"),
        ("https://res.services.ai.azure.com/api/projects/P//", "https://res.services.ai.azure.com/api/projects/P"),
        ("HTTPS://RES.services.AI.azure.com/api/projects/P/", "https://res.services.ai.azure.com/api/projects/P"),
        (
            "https://eastus.api.azureml.ms/agents/v1.0/subscriptions/s/resourceGroups/g",
            "https://eastus.api.azureml.ms/agents/v1.0/subscriptions/s/resourceGroups/g",
        ),
        ("https://res.openai.azure.com", "https://res.openai.azure.com/openai"),
        ("https://res.openai.azure.com///", "https://res.openai.azure.com/openai"),
        ("https://RES.OpenAI.Azure.com/", "https://res.openai.azure.com/openai"),
        ("https://res.openai.azure.com:443/", "https://res.openai.azure.com/openai"),
        ("https://res.openai.azure.com/openai", "https://res.openai.azure.com/openai"),
        ("https://res.openai.azure.com/openai/", "https://res.openai.azure.com/openai"),
        ("https://gateway.example/azure/openai", "https://gateway.example/azure/openai"),
        ("https://res.openai.azure.com.evil.example/", "https://res.openai.azure.com.evil.example"),
        ("https://openai.azure.com.example", "https://openai.azure.com.example"),
    ],
)
def test_an_azure_openai_endpoint_gets_its_path(endpoint: str, used: str) -> None:
    client = Client.azure(endpoint, api_version="v1", api_key="k")
    assert client.base_url == used
    assert isinstance(auth_of(client), ApiKeyAuth)
    assert isinstance(auth_of(Client.azure(endpoint, api_version="v1", credential=Credential())), BearerAuth)


def test_azure_needs_one_credential_and_not_two() -> None:
    endpoint = "https://res.services.ai.azure.com/api/projects/P"
    wrong: list[dict[str, Any]] = [
        {},
        {"credential": None, "api_key": None},
        {"credential": Credential(), "api_key": "sk-hidden"},
    ]
    for given in wrong:
        with pytest.raises(ConfigurationError, match="either credential= or api_key=") as caught:
            Client.azure(endpoint, api_version="v1", **given)
        assert "hidden" not in str(caught.value)
    wrong = [{"api_key": ""}, {"api_key": "sk-hidden\n"}, {"credential": 5}]
    for given in wrong:
        with pytest.raises(ConfigurationError) as caught:
            Client.azure(endpoint, api_version="v1", **given)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("version", ["", None])
def test_azure_needs_an_api_version(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_version"):
        Client.azure("https://res.services.ai.azure.com", api_version=version, api_key="k")


@pytest.mark.parametrize("endpoint", ["", "res.openai.azure.com", "sk-hidden", None, "https://u:hidden@res.example"])
def test_an_endpoint_of_azure_must_be_a_url(endpoint: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client.azure(endpoint, api_version="v1", api_key="k")
    assert "hidden" not in str(caught.value)


def test_portkey_has_a_default_base_url() -> None:
    client = Client.portkey("pk", config="pc")
    assert client.base_url == "https://api.portkey.ai/v1"
    assert isinstance(auth_of(client), PortkeyAuth)
    assert (
        Client.portkey("pk", config="pc", base_url="http://127.0.0.1:8787/v1/").base_url == "http://127.0.0.1:8787/v1"
    )


def test_portkey_needs_a_key_and_a_route() -> None:
    with pytest.raises(ConfigurationError, match="one of virtual_key, config and provider"):
        Client.portkey("pk-hidden")
    for key in ("", None, "pk-hidden\n"):
        wrong: Any = key
        with pytest.raises(ConfigurationError) as caught:
            Client.portkey(wrong, virtual_key="vk")
        assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="base URL"):
        Client.portkey("pk", virtual_key="vk", base_url="")


@pytest.mark.parametrize(
    "options",
    [
        {"default_query": None, "default_headers": None},
        {"request_timeout": None, "max_retries": 0, "validate": False, "trust_env": False, "ssl": False},
        {"version": "v1", "proxy": None, "session": None},
        {"timeout": 5.0, "organization": "org-1", "project": None},
    ],
    ids=repr,
)
def test_every_option_of_a_client_may_be_given(options: ClientOptions) -> None:
    Client.azure("https://res.openai.azure.com", api_version="v1", api_key="k", **options)
    Client.portkey("pk", config="pc", **options)


def test_an_option_that_does_not_exist_is_refused() -> None:
    wrong: Any = {"http_client": None}
    with pytest.raises(TypeError, match="http_client"):
        Client.azure("https://res.openai.azure.com", api_version="v1", api_key="k", **wrong)
    with pytest.raises(TypeError, match="http_client"):
        Client.portkey("pk", config="pc", **wrong)


def test_no_client_shows_its_key() -> None:
    for client in (
        Client.azure("https://res.openai.azure.com", api_version="v1", api_key="sk-hidden"),
        Client.portkey("pk-hidden", config={"api_key": "sk-hidden"}, bearer="sk-hidden"),
    ):
        assert "hidden" not in f"{client!r} {client.transport!r}"
