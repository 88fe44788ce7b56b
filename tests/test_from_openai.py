"""A client with the settings of an official one, and refs of the official clients' objects."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import openai
import pytest
from azure.ai.agents.models import ThreadRun as AzureRun
from openai.types.beta.threads import Run as OfficialRun
from openai.types.responses import Response as OfficialResponse

import asyncruns
from asyncruns import Client, ConfigurationError, Fleet, InvalidRequestError, RunRef, RunWatcher
from asyncruns.testing import Emulator
from asyncruns.transport.base import HTTPTransport

pytestmark = pytest.mark.filterwarnings("ignore:(The Assistants API is )?deprecated:DeprecationWarning")

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
OF_OPENAI = ("API_KEY", "ADMIN_KEY", "BASE_URL", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS", "API_VERSION")
AZURE: dict[str, Any] = {"azure_endpoint": "https://resource.openai.azure.com", "api_version": "2024-05-01-preview"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *(f"OPENAI_{name}" for name in OF_OPENAI)):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def a_key() -> str:
    return "sk-from-a-function"


async def sent_headers(emulator: Emulator, **options: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers that an official client sends to read a thread, and those of a client like it."""
    async with openai.AsyncOpenAI(base_url=emulator.base_url, **options) as theirs:
        thread = await theirs.beta.threads.create()
        await theirs.beta.threads.retrieve(thread.id)
    async with Client.from_openai(theirs) as client:
        await client.threads.retrieve(thread.id)
    official, ours = emulator.requests[-2:]
    return ({name.lower(): value for name, value in request.headers.items()} for request in (official, ours))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "sk-1"},
        {"api_key": a_key},
        {"api_key": "sk-1", "organization": "org-1", "project": "proj-1"},
        {"api_key": "sk-1", "default_headers": {"X-Own": "1", "User-Agent": "mine/1"}},
        {"api_key": "sk-1", "default_headers": {"Authorization": "Basic abc"}},
        {"api_key": "sk-1", "default_headers": {"x-portkey-api-key": "pk"}},
    ],
    ids=lambda options: "+".join(options),
)
async def test_the_same_credentials_and_headers_are_sent_as_by_the_official_client(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    official, ours = await sent_headers(emulator, **options)
    for name in ("authorization", "openai-organization", "openai-project", "openai-beta", "x-own", "x-portkey-api-key"):
        assert ours.get(name) == official.get(name), name
    assert (ours["user-agent"] == "mine/1") is (official["user-agent"] == "mine/1")
    assert not any(name.startswith("x-stainless") for name in ours)


def transport_of(client: Client) -> HTTPTransport:
    assert isinstance(client.transport, HTTPTransport)
    return client.transport


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ({}, 30.0),
        ({"timeout": 12.5}, 12.5),
        ({"timeout": None}, None),
        ({"timeout": openai.Timeout(20.0, connect=3.0)}, 20.0),
        ({"timeout": openai.Timeout(20.0, read=None)}, None),
    ],
    ids=str,
)
async def test_the_time_limit_is_that_of_a_read(timeout: dict[str, Any], seconds: float | None) -> None:
    theirs = openai.AsyncOpenAI(api_key="sk-1", max_retries=5, **timeout)
    client = Client.from_openai(theirs, proxy=None)
    assert client.base_url == "https://api.openai.com/v1"
    assert transport_of(client)._timeout_s == seconds
    assert transport_of(Client.from_openai(theirs, proxy=None, timeout=1.0))._timeout_s == 1.0
    await theirs.close()


async def test_options_take_precedence_and_headers_and_query_are_added() -> None:
    theirs = openai.AsyncOpenAI(
        api_key="sk-1", organization="org-1", default_headers={"X-A": "1", "X-B": "1"}, default_query={"a": [1, 2]}
    )
    client = Client.from_openai(
        theirs, organization="org-2", default_headers={"X-B": "2"}, default_query={"b": "3"}, http="httptools"
    )
    headers = transport_of(client)._own_headers
    assert (headers["OpenAI-Organization"], headers["X-A"], headers["X-B"]) == ("org-2", "1", "2")
    assert transport_of(client)._query == (("a[]", "1"), ("a[]", "2"), ("b", "3"))
    await theirs.close()


@pytest.mark.parametrize(
    ("options", "base_url", "headers"),
    [
        ({**AZURE, "api_key": "k"}, "https://resource.openai.azure.com/openai", {"api-key": "k"}),
        (
            {**AZURE, "api_key": "k", "azure_deployment": "d"},
            "https://resource.openai.azure.com/openai",
            {"api-key": "k"},
        ),
        (
            {**AZURE, "azure_ad_token": "t"},
            "https://resource.openai.azure.com/openai",
            {"Authorization": "Bearer t"},
        ),
        (
            {**AZURE, "azure_ad_token_provider": a_key},
            "https://resource.openai.azure.com/openai",
            {"Authorization": "Bearer sk-from-a-function"},
        ),
        (
            {"base_url": "https://gateway.example/openai/v1/", "api_version": "preview", "api_key": "k"},
            "https://gateway.example/openai/v1",
            {"api-key": "k"},
        ),
    ],
)
async def test_a_client_for_azure_keeps_its_url_version_and_credential(
    options: dict[str, Any], base_url: str, headers: dict[str, str]
) -> None:
    async with openai.AsyncAzureOpenAI(**options) as theirs:
        client = Client.from_openai(theirs)
    assert client.base_url == base_url
    transport = transport_of(client)
    assert transport._query == (("api-version", options["api_version"]),)
    assert (transport._auth.ready() or await transport._auth.refresh()) == headers


def test_a_synchronous_client_suffices() -> None:
    with openai.OpenAI(api_key="sk-1", base_url="https://host.example/v1") as theirs:
        client = Client.from_openai(theirs)
    assert client.base_url == "https://host.example/v1"
    assert transport_of(client)._auth.ready() == {"Authorization": "Bearer sk-1"}
    with openai.AzureOpenAI(**AZURE, azure_ad_token_provider=lambda: "t") as azure:
        assert Client.from_openai(azure).base_url == "https://resource.openai.azure.com/openai"


def test_the_proxy_of_the_environment_is_used_as_by_the_official_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with openai.OpenAI(api_key="sk-1") as theirs:
        assert transport_of(Client.from_openai(theirs))._proxy is not None
        assert transport_of(Client.from_openai(theirs, proxy=None))._proxy is None


def test_an_http_client_is_refused_unless_the_caller_says_how_to_connect() -> None:
    with openai.OpenAI(api_key="sk-1", http_client=openai.DefaultHttpxClient()) as theirs:
        with pytest.raises(ConfigurationError, match=r"http_client=.*proxy=None connects directly"):
            Client.from_openai(theirs)
        assert Client.from_openai(theirs, proxy=None).base_url == "https://api.openai.com/v1"


def test_a_credential_that_cannot_be_taken_over_is_refused_without_being_shown() -> None:
    with (
        openai.OpenAI(admin_api_key="sk-hidden") as theirs,
        pytest.raises(ConfigurationError, match=r"an admin key.*Use Client\(base_url, api_key=\.\.\.\)") as caught,
    ):
        Client.from_openai(theirs)
    assert "hidden" not in str(caught.value)


def test_a_key_function_of_a_client_for_azure_is_refused() -> None:
    with (
        openai.AzureOpenAI(**AZURE, api_key=lambda: "sk-hidden") as theirs,
        pytest.raises(ConfigurationError, match="with Azure a function as api_key="),
    ):
        Client.from_openai(theirs)


class OpenAI:
    """Has the name of an official client, and is none."""


@pytest.mark.parametrize(
    "wrong",
    [None, "sk-hidden", openai.AsyncOpenAI, openai, OpenAI(), Client("http://127.0.0.1:9/v1")],
    ids=lambda wrong: type(wrong).__name__,
)
def test_another_object_is_refused_with_what_to_pass(wrong: object) -> None:
    with pytest.raises(
        ConfigurationError, match="takes a client of openai: an AsyncOpenAI or AsyncAzureOpenAI"
    ) as caught:
        Client.from_openai(wrong)
    assert "hidden" not in str(caught.value)


def test_the_server_and_the_key_are_not_given_too() -> None:
    wrong: Any = {"api_key": "sk-hidden"}
    with (
        openai.OpenAI(api_key="x") as theirs,
        pytest.raises(ConfigurationError, match=r"from_openai\(\) takes.*with api_key=, use Client\("),
    ):
        Client.from_openai(theirs, **wrong)


def test_openai_is_not_imported() -> None:
    code = "import sys, asyncruns.client.official; assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_objects_of_the_official_client_are_watched_over_both_wires(emulator: Emulator) -> None:
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="sk-1") as theirs:
        assistant = await theirs.beta.assistants.create(model="m")
        run = await theirs.beta.threads.create_and_run(assistant_id=assistant.id)
        response = await theirs.responses.create(model="m", input="Hi", background=True)
        assert (type(run), type(response)) == (OfficialRun, OfficialResponse)
        async with Client.from_openai(theirs) as client:
            for each, ids in ((run, (run.thread_id, run.id)), (response, (response.id,))):
                assert (await client.watch(each)).ref.ids == ids
                assert (await client.watch(each.to_dict())).status == "completed"
                async with Fleet(client) as fleet:
                    fleet.watch(each)
                    assert [outcome.status async for outcome in fleet] == ["completed"]
                async with RunWatcher(client, each) as watcher:
                    assert (await watcher.wait()).ref == RunRef.of(each)


FIELDS = {"id": "run_1", "thread_id": "thread_1", "object": "thread.run", "status": "queued"}
REF = RunRef("thread.run", ("thread_1", "run_1"))
RESPONSE = {"id": "resp_1", "object": "response", "status": "queued"}


@pytest.mark.parametrize(
    ("run", "ref"),
    [
        (OfficialRun.construct(_fields_set=None, **FIELDS), REF),
        (OfficialResponse.construct(_fields_set=None, **RESPONSE), RunRef("response", ("resp_1",))),
        (AzureRun(FIELDS), REF),
        (FIELDS, REF),
        (RESPONSE, RunRef("response", ("resp_1",))),
        (asyncruns.wire.Run(id="run_1", thread_id="thread_1", status="queued"), REF),
        (asyncruns.wire.ModelResponse(id="resp_1", status="queued"), RunRef("response", ("resp_1",))),
        (REF, REF),
        (RunRef("runs", ["thread_1", "run_1"]), REF),  # type: ignore[arg-type]
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_the_ref_of_any_run_is_known(run: object, ref: RunRef) -> None:
    assert RunRef.of(run) == ref
    assert RunRef.of(ref) is ref


async def test_outcomes_watches_and_streams_have_a_ref(emulator: Emulator) -> None:
    async with Client(emulator.base_url) as client:
        assistant = await client.assistants.create(model="m")
        outcome = await client.run(assistant_id=assistant.id, message="Hi")
        assert RunRef.of(outcome) == RunRef.of(outcome.ref.to_dict()) == outcome.ref
        async with Fleet(client) as fleet:
            assert RunRef.of(fleet.watch(outcome.ref)) == outcome.ref
        response = await client.responses.create(model="m", input="Hi", stream=True, background=True)
        run = await client.threads.create_and_run(assistant_id=assistant.id, stream=True)
        for stream, kind in ((response, "response"), (run, "thread.run")):
            assert stream.ref is None
            with pytest.raises(InvalidRequestError, match="names no run: it was not created, or not yet"):
                RunRef.of(stream)
            async for _ in stream:
                if stream.ref is not None:
                    break
            assert RunRef.of(stream) == stream.ref
            assert stream.ref is not None
            assert stream.ref.dialect == kind
            await stream.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("run_1", "identified together with its thread"),
        ("resp_1", r"RunRef\('response', \('resp_1',\)\)"),
        (None, "got None"),
        ({}, "got dict without the `id`"),
        (5, "got int"),
        (asyncruns.wire.Thread(id="thread_1"), "a thread has many runs"),
        (RunRef("response", "resp_1"), "are a string; pass a tuple"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_run_is_refused_with_words(wrong: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        RunRef.of(wrong)
