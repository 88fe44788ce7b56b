"""The client itself: its base URL, its key, the options that it refuses, and its main methods."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from asyncruns import APIResponseValidationError, BearerAuth, Client, ConfigurationError, NoAuth, RunRef, Toolset
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources.base import Server
from asyncruns.resources.messages import Messages
from asyncruns.testing import Emulator

VALUES: dict[str, str] = {
    "ASYNCRUNS_BASE_URL": "https://ours.example/v1",
    "ASYNCRUNS_API_KEY": "sk-ours-hidden",
    "OPENAI_BASE_URL": "https://theirs.example/v1",
    "OPENAI_API_KEY": "sk-theirs-hidden",
}
NAMES = tuple(VALUES)


def set_only(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], values: dict[str, str] = VALUES) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, values[name])


def signature(client: Client) -> str | None:
    auth = getattr(client.transport, "_auth", None)
    if isinstance(auth, NoAuth):
        return None
    assert isinstance(auth, BearerAuth)
    (key,) = auth.secrets()
    return key


COMBINATIONS = [each for size in range(5) for each in itertools.combinations(NAMES, size)]


@pytest.mark.parametrize("names", COMBINATIONS, ids=lambda names: "+".join(names) or "none")
def test_a_key_of_the_environment_only_goes_to_the_host_it_was_set_for(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch, names)
    expected: tuple[str, str | None]
    if "ASYNCRUNS_BASE_URL" in names:
        expected = "https://ours.example/v1", "sk-ours-hidden" if "ASYNCRUNS_API_KEY" in names else None
    elif "OPENAI_API_KEY" in names:
        is_default = "OPENAI_BASE_URL" not in names
        expected = "https://api.openai.com/v1" if is_default else "https://theirs.example/v1", "sk-theirs-hidden"
    else:
        with pytest.raises(ConfigurationError) as caught:
            Client.from_env()
        message = str(caught.value)
        for name in NAMES:
            assert f"{name} is {'set' if name in names else 'not set'}" in message
        assert "hidden" not in message
        assert "api.openai.com no longer serves threads" in message
        assert "ASYNCRUNS_API_KEY if the server needs a key" in message
        return
    client = Client.from_env(version="v1")
    assert (client.base_url, signature(client)) == expected


@pytest.mark.parametrize("name", ["api_key", "auth", "base_url"])
def test_what_the_environment_says_is_not_given_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch, NAMES)
    options: Any = {name: "sk-hidden"}
    with pytest.raises(
        ConfigurationError, match=rf"from the environment; with {name}=, use Client\(base_url"
    ) as caught:
        Client.from_env(**options)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_url_is_not_set(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch, NAMES, {**VALUES, "ASYNCRUNS_BASE_URL": empty, "OPENAI_BASE_URL": empty})
    client = Client.from_env()
    assert (client.base_url, signature(client)) == ("https://api.openai.com/v1", "sk-theirs-hidden")


def test_a_client_of_openai_is_made_for_responses_and_says_that_threads_are_retired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_only(monkeypatch, ("OPENAI_API_KEY",))
    client = Client.from_env()
    refused = Response(404, {}, b"{}")
    asked = Request("GET", "/threads/thread_1")
    assert "client.responses" in str(client.dialect.refusal(asked, refused).cause)
    assert "client.responses" not in str(client.responses.alone.dialect.refusal(asked, refused).cause)


@pytest.mark.parametrize("key", ["sk-hidden\n", "   "])
def test_a_malformed_key_from_the_environment_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch, NAMES[:2], {**VALUES, "ASYNCRUNS_API_KEY": key})
    with pytest.raises(ConfigurationError) as caught:
        Client.from_env()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("base_url", [None, ""])
def test_without_a_base_url_the_error_names_the_settings(base_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch, NAMES)  # only `from_env` reads them
    with pytest.raises(ConfigurationError) as caught:
        Client(base_url)
    for part in ("base_url=", "ASYNCRUNS_BASE_URL", "from_env", "api.openai.com", "2026-08-26"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "host.example/v1",
        "sk-hidden",
        "user:hidden@host.example/v1",
        "ftp://host.example",
        "https://",
        "https:///v1",
        "https://user:hidden@host.example/v1",
        "https://hidden@host.example/v1",
        "https://host.example/v1?key=hidden",
        "https://host.example/v1#hidden",
        "https://host.example/v1 ",
        " https://host.example/v1",
        "https://host.example/\nv1",
        "https://host.example/a b",
        "https://host.example\\@hidden.example/v1",
        "https://host.example:99999/v1",
        "https://host.example:port/v1",
        "https://host..example/v1",
        f"https://{'a' * 64}.example/v1",
        "https://[::1/v1",
        b"https://host.example/v1",
        5,
    ],
    ids=str,
)
def test_an_invalid_base_url_is_refused_without_showing_a_secret(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        Client(base_url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://host.example", "https://host.example"),
        ("https://host.example/", "https://host.example"),
        ("HTTPS://HOST.example/v1//", "https://host.example/v1"),
        ("http://127.0.0.1:8080/api/v1/", "http://127.0.0.1:8080/api/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("https://exämple.example/ö", "https://xn--exmple-cua.example/%C3%B6"),
        ("https://res.services.ai.azure.com/api/projects/P", "https://res.services.ai.azure.com/api/projects/P"),
    ],
)
def test_a_base_url_is_normalized(given: str, used: str) -> None:
    assert Client(given).base_url == used
    assert repr(Client(given)) == f"<Client {used}>"


@pytest.mark.parametrize("auth", ["sk-hidden", b"sk-hidden", object(), BearerAuth])
def test_a_bare_key_is_refused_as_auth(auth: Any) -> None:
    with pytest.raises(ConfigurationError, match="BearerAuth") as caught:
        Client("https://host.example/v1", auth=auth)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("max_retries", [-1, 1.5, True, "2", None])
def test_an_invalid_number_of_retries_is_refused(max_retries: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_retries must be 0 or a larger whole number; got "):
        Client("https://host.example/v1", max_retries=max_retries)


@pytest.mark.parametrize("version", [2, "2", "v3", "", True])
def test_an_invalid_version_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError, match='version must be "v2", "v1", or None'):
        Client("https://host.example/v1", version=version)


async def test_leaving_the_client_closes_it_and_propagates_an_exception() -> None:
    client = Client("http://127.0.0.1:9/v1")
    with pytest.raises(KeyError, match="mine"):
        async with client as entered:
            assert entered is client
            raise KeyError("mine")
    with pytest.raises(ConfigurationError, match="closed"):
        await client.threads.create()


async def test_a_client_works_with_the_emulator(emulator: Emulator) -> None:
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        assistant = await client.assistants.create(model="m", name="A")
        thread = await client.threads.create(metadata={"a": "b"})
        message = await client.threads.messages.create(thread.id, content="Hi")
        assert (await client.assistants.retrieve(assistant.id)).name == "A"
        assert (await client.threads.retrieve(thread.id)).metadata == {"a": "b"}
        assert [found.id async for found in client.threads.messages.list(thread.id)] == [message.id]
        assert (await client.threads.update(thread.id, metadata={"a": "c"})).metadata == {"a": "c"}
        assert (await client.threads.delete(thread.id)).deleted
        assert (await client.assistants.delete(assistant.id)).deleted


async def test_run_creates_a_thread_a_message_and_a_run_and_answers_the_calls(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    tools = Toolset()
    cities: list[str] = []

    @tools.tool
    async def get_weather(city: str) -> str:
        cities.append(city)
        return "22°"

    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        knowing = await client.assistants.create(model="m", tools=tools.definitions())
        outcome = await client.run(assistant_id=knowing.id, message="Weather?", tools=tools)
        assert outcome.status == "completed"
        assert len(cities) == 1
        assert await outcome.text()
        assert caplog.messages == []
        # The model never calls tools that the run does not have, so without the warning nothing would show the mistake.
        ignorant = await client.assistants.create(model="m")
        thread_id = outcome.unwrap().thread_id
        outcome = await client.run(assistant_id=ignorant.id, message="And now?", thread_id=thread_id, tools=tools)
        assert outcome.status == "completed"
        assert outcome.unwrap().thread_id == thread_id
        (warning,) = caplog.messages
        assert "does not know the tools get_weather" in warning
        run = outcome.unwrap()
        assert (await client.threads.runs.watch(run.id, thread_id=thread_id)).status == "completed"
        assert (await client.watch(thread_id=thread_id, run_id=run.id)).status == "completed"


class Listed(Transport):
    """Returns the same messages for every request, whatever run it is about."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        authors = [("user", None), ("assistant", "run_1"), ("assistant", "run_2"), ("assistant", None)]
        data = [{"id": f"msg_{n}", "role": role, "run_id": run_id} for n, (role, run_id) in enumerate(authors)]
        return Response(200, {}, msgspec.json.encode({"data": data}))

    async def aclose(self) -> None:
        pass


async def test_an_answer_has_only_the_runs_messages_even_if_the_server_lists_all() -> None:
    transport = Listed()
    client = Client("https://host.example/v1")
    client.threads.messages = Messages(Server(transport))
    found = await client.answer(RunRef("thread.run", ("thread_1", "run_1")))
    assert [message.id for message in found] == ["msg_1", "msg_3"]
    query = {"limit": "100", "order": "asc", "run_id": "run_1"}
    # The server sends no `has_more`, so there is a second request.
    assert [dict(request.query) for request in transport.requests] == [query, {**query, "after": "msg_3"}]


async def test_listing_the_messages_of_a_run_stops_after_100_pages() -> None:
    class Endless(Transport):
        requests = 0

        async def send(self, request: Request) -> Response:
            self.requests += 1
            data = [{"id": f"msg_{self.requests}", "role": "assistant", "run_id": "run_1"}]
            return Response(200, {}, msgspec.json.encode({"data": data, "has_more": True}))

        async def aclose(self) -> None:
            pass

    transport = Endless()
    with pytest.raises(APIResponseValidationError, match="more than 100 pages"):
        await Client(transport=transport).answer(RunRef("thread.run", ("thread_1", "run_1")))
    assert transport.requests == 100
