"""`Client.anthropic`: where its key goes, and the headers that it sends."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns import Client, ConfigurationError
from asyncruns.client.anthropic import ANTHROPIC_API_URL
from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.http import Request

KEY = "sk-ant-hidden"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def headers_of(client: Client) -> dict[str, str]:
    transport: Any = client.transport
    sent = transport._headers(Request("GET", "/messages/batches"), transport._auth.ready())
    return {name.lower(): value for name, value in sent.items()}


def test_the_key_and_the_version_are_headers() -> None:
    client = Client.anthropic(KEY)
    assert client.base_url == ANTHROPIC_API_URL
    headers = headers_of(client)
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in headers
    assert KEY not in repr(client)
    assert KEY not in repr(client.transport)


@pytest.mark.parametrize(
    ("base_url", "used"),
    [
        ("https://gateway.example", "https://gateway.example/v1"),
        ("https://gateway.example/", "https://gateway.example/v1"),
        ("https://gateway.example/anthropic/v1", "https://gateway.example/anthropic/v1"),
    ],
)
def test_a_base_url_without_a_path_gets_the_version(base_url: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client.anthropic(KEY, base_url=base_url).base_url == used
    monkeypatch.setenv("ANTHROPIC_BASE_URL", base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert Client.anthropic().base_url == used


def test_a_key_of_the_environment_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert headers_of(Client.anthropic())["x-api-key"] == KEY
    with pytest.raises(ConfigurationError, match="needs api_key=, or the environment variable") as caught:
        Client.anthropic(base_url="https://other.example")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_there_is_no_client(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        Client.anthropic(key)
    monkeypatch.setenv("ANTHROPIC_API_KEY", " ")
    with pytest.raises(ConfigurationError, match="key"):
        Client.anthropic()


def test_the_options_of_a_client_count() -> None:
    given = {"X-Team": "a", "anthropic-version": "2024-01-01"}
    headers = headers_of(Client.anthropic(KEY, default_headers=given))
    assert (headers["x-team"], headers["anthropic-version"]) == ("a", "2024-01-01")
    assert headers_of(Client.anthropic(KEY, version="2025-02-02"))["anthropic-version"] == "2025-02-02"
    assert "anthropic-version" not in headers_of(Client.anthropic(KEY, version=None))
    assert isinstance(Client.anthropic(KEY, http="httptools").message_batches.alone.dialect, MessageBatchDialect)
