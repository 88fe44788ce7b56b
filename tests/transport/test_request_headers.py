"""The headers and the query of every request."""

from __future__ import annotations

from typing import Any

import pytest
from recording_server import RecordingServer, Seen

from asyncruns import ApiKeyAuth, Auth, BearerAuth, Client, ConfigurationError, PortkeyAuth


async def sent(auth: Auth | None = None, **options: Any) -> Seen:
    """Return the request that a client with these options sends."""
    async with RecordingServer() as server:
        async with Client(server.base_url, auth=auth, **options) as client:
            await client.threads.retrieve("thread_1")
        (seen,) = server.seen
        return seen


async def test_version_2_is_requested_by_default() -> None:
    assert (await sent()).header("OpenAI-Beta") == "assistants=v2"
    assert (await sent(version="v1")).header("OpenAI-Beta") == "assistants=v1"
    assert (await sent(version=None)).header("OpenAI-Beta") is None


async def test_the_version_is_sent_to_paths_that_have_versions() -> None:
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth("sk-test")) as client:
        await client.responses.retrieve("resp_1")
        await client.assistants.list()
        await client.responses.cancel("resp_1")
        await client.threads.create()
        await client.responses.retrieve("resp_1", extra_headers={"OpenAI-Beta": "responses=v7"})
    named = [None, "assistants=v2", None, "assistants=v2", "responses=v7"]
    assert [seen.header("OpenAI-Beta") for seen in server.seen] == named
    assert {seen.header("Authorization") for seen in server.seen} == {"Bearer sk-test"}


async def test_a_constant_header_is_sent_with_every_request() -> None:
    constant = {"OpenAI-Beta": "all=v1"}
    async with RecordingServer() as server, Client(server.base_url, default_headers=constant) as client:
        await client.responses.retrieve("resp_1")
        await client.threads.retrieve("thread_1")
    assert [seen.header("OpenAI-Beta") for seen in server.seen] == ["all=v1"] * 2


async def test_without_a_key_json_is_requested_and_nothing_is_signed() -> None:
    seen = await sent()
    assert seen.header("Accept") == "application/json"
    assert seen.header("Authorization") is None
    assert seen.header("Cookie") is None


async def test_a_bearer_key_is_sent_in_authorization() -> None:
    assert (await sent(BearerAuth("sk-test"))).header("Authorization") == "Bearer sk-test"


async def test_an_api_key_is_sent_in_azures_header_or_in_any_other() -> None:
    seen = await sent(ApiKeyAuth("k-1"))
    assert (seen.header("api-key"), seen.header("Authorization")) == ("k-1", None)
    assert (await sent(ApiKeyAuth("k-1", header="astra-api-token"))).header("astra-api-token") == "k-1"


async def test_constant_headers_replace_ours_in_any_case_and_never_the_signature() -> None:
    constant = {"openai-beta": "assistants=v7", "ACCEPT": "text/json", "authorization": "Bearer other", "x-more": "1"}
    seen = await sent(BearerAuth("sk-test"), default_headers=constant)
    assert seen.header("OpenAI-Beta") == "assistants=v7"
    assert seen.header("Accept") == "text/json"
    assert seen.header("Authorization") == "Bearer sk-test"
    assert seen.header("x-more") == "1"


async def test_the_constant_query_comes_before_the_requests_own() -> None:
    async with RecordingServer() as server:
        query = {"api-version": "2025-05-01", "q": "a&b c"}
        async with Client(server.base_url, default_query=query) as client:
            await client.threads.runs.list("thread_1", limit=1)
            await client.threads.create()
    assert server.targets == [
        "/v1/threads/thread_1/runs?api-version=2025-05-01&q=a%26b+c&limit=1",
        "/v1/threads?api-version=2025-05-01&q=a%26b+c",
    ]


@pytest.mark.parametrize(
    ("suffix", "target"),
    [
        ("", "/threads/thread_1"),
        ("/", "/threads/thread_1"),
        ("/api/projects/P/", "/api/projects/P/threads/thread_1"),
        ("/a%2Fb", "/a%2Fb/threads/thread_1"),
        ("/ö", "/%C3%B6/threads/thread_1"),
    ],
)
async def test_the_base_url_may_have_any_path(suffix: str, target: str) -> None:
    async with RecordingServer() as server, Client(server.origin + suffix) as client:
        await client.threads.retrieve("thread_1")
    assert server.targets == [target]


# https://portkey.ai/docs/api-reference/inference-api/headers


async def test_portkey_signs_with_the_pair_of_its_api_description() -> None:
    seen = await sent(PortkeyAuth("pk-1", virtual_key="vk-1"))
    portkey = [line for line in seen.head.split("\r\n") if "portkey" in line]
    assert portkey == ["x-portkey-api-key: pk-1", "x-portkey-virtual-key: vk-1"]
    assert seen.header("Authorization") is None


async def test_portkey_signs_with_a_config() -> None:
    assert (await sent(PortkeyAuth("pk-1", config="pc-1"))).header("x-portkey-config") == "pc-1"
    seen = await sent(PortkeyAuth("pk-1", config={"retry": {"attempts": 3}, "provider": "ö"}))
    assert seen.header("x-portkey-config") == '{"retry":{"attempts":3},"provider":"\\u00f6"}'


async def test_portkey_signs_for_a_provider_at_a_host_with_its_own_key() -> None:
    auth = PortkeyAuth(
        "pk-1",
        provider="openai",
        bearer="sk-1",
        custom_host="https://host.example/v1",
        trace_id="trace-1",
        metadata={"_user": "日本", "n": 1},
    )
    seen = await sent(auth)
    assert seen.header("x-portkey-api-key") == "pk-1"
    assert seen.header("x-portkey-provider") == "openai"
    assert seen.header("Authorization") == "Bearer sk-1"
    assert seen.header("x-portkey-custom-host") == "https://host.example/v1"
    assert seen.header("x-portkey-trace-id") == "trace-1"
    assert seen.header("x-portkey-metadata") == '{"_user":"\\u65e5\\u672c","n":1}'  # headers are ASCII
    assert seen.header("x-portkey-virtual-key") is None


def test_portkey_requires_a_virtual_key_a_config_or_a_provider() -> None:
    with pytest.raises(ConfigurationError, match="one of virtual_key, config and provider"):
        PortkeyAuth("pk-1")
    with pytest.raises(ConfigurationError, match="api_key"):
        PortkeyAuth("", virtual_key="vk-1")
    with pytest.raises(ConfigurationError, match="JSON"):
        PortkeyAuth("pk-1", virtual_key="vk-1", metadata={"a": object()})


@pytest.mark.parametrize("key", ["sk-hidden\n", "sk-hid\r\nX-Evil: 1", "sk-hidden\x00", "sk-hidden\x7f"])
def test_a_key_with_a_line_break_is_refused_without_being_shown(key: str) -> None:
    for make in (BearerAuth, ApiKeyAuth, lambda key: PortkeyAuth("pk-1", virtual_key=key)):
        with pytest.raises(ConfigurationError, match="control character") as caught:
            make(key)
        assert "hid" not in str(caught.value)


def test_a_key_outside_of_latin_1_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="Latin-1") as caught:
        BearerAuth("sk-hidden-ключ")
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  ", None, 5, b"sk-hidden"])
def test_a_key_must_be_a_non_empty_string(key: Any) -> None:
    for make in (BearerAuth, ApiKeyAuth, lambda key: PortkeyAuth(key, virtual_key="vk-1")):
        with pytest.raises(ConfigurationError) as caught:
            make(key)
        assert "hid" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\r\nEvil", "ü", None])
def test_a_header_with_an_invalid_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="header"):
        ApiKeyAuth("k-1", header=name)
    with pytest.raises(ConfigurationError, match="header"):
        Client("http://127.0.0.1:9/v1", default_headers={name: "1"})


def test_a_constant_header_must_be_a_string_without_line_breaks() -> None:
    for value in ("a\nb", 5, None):
        wrong: Any = {"x-more": value}
        with pytest.raises(ConfigurationError, match="x-more"):
            Client("http://127.0.0.1:9/v1", default_headers=wrong)
