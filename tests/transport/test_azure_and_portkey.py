"""`Client.azure` and `Client.portkey`: the exact requests that they send.

https://learn.microsoft.com/azure/ai-foundry/agents and https://portkey.ai/docs/api-reference/inference-api/headers
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import pytest
from aioresponses import aioresponses
from recording_server import RecordingServer, reply
from test_with_aioresponses import Response

from asyncruns import AuthenticationError, Client, NotFoundError, __version__

OVER = ("aiohttp",)

FOUNDRY: Final = "https://res.services.ai.azure.com/api/projects/P"
OPENAI: Final = "https://res.openai.azure.com"
OURS: Final = {"Accept": "application/json", "User-Agent": f"asyncruns/{__version__}"}
V2: Final = {"OpenAI-Beta": "assistants=v2"}
JSON: Final = {"Content-Type": "application/json"}

Operation = Callable[[Client], Awaitable[object]]


class Credential:
    """Like the async credentials of azure-identity."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str) -> Any:
        self.scopes += scopes
        return SimpleNamespace(token=f"token-{len(self.scopes)}", expires_on=time.time() + 3600)


async def sent(client: Client, operation: Operation, method: str, url: str) -> tuple[dict[str, str], bytes | None]:
    """Check that an operation sends exactly this request, and return its headers and body."""
    with aioresponses() as server:
        server.add(url, method, payload={"id": "x_1", "status": "queued", "data": []}, response_class=Response)
        async with client:
            await operation(client)
        (((found_method, found_url), (call,)),) = server.requests.items()
        assert (found_method, str(found_url)) == (method, url)
        return dict(call.kwargs["headers"]), call.kwargs["data"]


# Operations at Foundry and their requests: each query has the version, also in addition to other parameters.
OPERATIONS: Mapping[str, tuple[Operation, str, str, bytes | None]] = {
    "GET": (lambda c: c.threads.retrieve("thread_1"), "GET", "/threads/thread_1?api-version=v1", None),
    "GET with a query": (lambda c: c.threads.list(limit=5), "GET", "/threads?api-version=v1&limit=5", None),
    "GET with a list": (
        lambda c: c.threads.runs.steps.list("run_1", thread_id="thread_1", include=["x"]),
        "GET",
        "/threads/thread_1/runs/run_1/steps?api-version=v1&include%5B%5D=x",
        None,
    ),
    "POST": (
        lambda c: c.threads.runs.create("thread_1", assistant_id="asst_1"),
        "POST",
        "/threads/thread_1/runs?api-version=v1",
        b'{"assistant_id":"asst_1"}',
    ),
    "POST with a query": (
        lambda c: c.threads.runs.create("thread_1", assistant_id="asst_1", include=["x"]),
        "POST",
        "/threads/thread_1/runs?api-version=v1&include%5B%5D=x",
        b'{"assistant_id":"asst_1"}',
    ),
    "POST without a body": (
        lambda c: c.threads.runs.cancel("run_1", thread_id="thread_1"),
        "POST",
        "/threads/thread_1/runs/run_1/cancel?api-version=v1",
        None,
    ),
    "DELETE": (lambda c: c.assistants.delete("asst_1"), "DELETE", "/assistants/asst_1?api-version=v1", None),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_request_to_foundry_with_a_credential(name: str) -> None:
    operation, method, target, body = OPERATIONS[name]
    credential = Credential()
    client = Client.azure(FOUNDRY, api_version="v1", credential=credential)
    headers, data = await sent(client, operation, method, FOUNDRY + target)
    assert headers == {**OURS, "Authorization": "Bearer token-1", **(JSON if body is not None else {})}
    assert data == body
    assert credential.scopes == ["https://ai.azure.com/.default"]


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_request_to_azure_openai_with_a_key(name: str) -> None:
    operation, method, target, body = OPERATIONS[name]
    client = Client.azure(OPENAI, api_version="v1", api_key="k-1")
    headers, data = await sent(client, operation, method, f"{OPENAI}/openai{target}")
    assert headers == {**OURS, **V2, "api-key": "k-1", **(JSON if body is not None else {})}
    assert data == body


async def test_azure_openai_with_a_credential_has_a_scope_of_its_own() -> None:
    credential = Credential()
    client = Client.azure(OPENAI, api_version="2024-05-01-preview", credential=credential)
    url = f"{OPENAI}/openai/threads/thread_1?api-version=2024-05-01-preview"
    headers, _ = await sent(client, OPERATIONS["GET"][0], "GET", url)
    assert headers == {**OURS, **V2, "Authorization": "Bearer token-1"}
    assert credential.scopes == ["https://cognitiveservices.azure.com/.default"]


async def test_foundry_with_a_key_or_with_a_token_function() -> None:
    async def token() -> str:
        return "token-f"

    url = f"{FOUNDRY}/threads/thread_1?api-version=2025-05-01"
    client = Client.azure(FOUNDRY, api_version="2025-05-01", api_key="k-1")
    assert (await sent(client, OPERATIONS["GET"][0], "GET", url))[0] == {**OURS, "api-key": "k-1"}
    client = Client.azure(FOUNDRY, api_version="2025-05-01", credential=token)
    assert (await sent(client, OPERATIONS["GET"][0], "GET", url))[0] == {**OURS, "Authorization": "Bearer token-f"}


async def test_options_of_the_client_apply_to_azure_too() -> None:
    client = Client.azure(
        FOUNDRY,
        api_version="v1",
        api_key="k-1",
        version="v2",
        default_headers={"x-ms-client-request-id": "7"},
        default_query={"trace": "1"},
    )
    url = f"{FOUNDRY}/threads/thread_1?api-version=v1&trace=1"
    headers, _ = await sent(client, OPERATIONS["GET"][0], "GET", url)
    assert headers == {**OURS, **V2, "api-key": "k-1", "x-ms-client-request-id": "7"}


async def test_a_single_call_may_use_another_api_version() -> None:
    client = Client.azure(FOUNDRY, api_version="v1", api_key="k-1")
    url = f"{FOUNDRY}/threads/thread_1?api-version=2025-05-15-preview"
    extra = {"api-version": "2025-05-15-preview"}
    await sent(client, lambda c: c.threads.retrieve("thread_1", extra_query=extra), "GET", url)


PORTKEY: Final = "https://api.portkey.ai/v1"


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_request_to_portkey_with_a_virtual_key(name: str) -> None:
    operation, method, target, body = OPERATIONS[name]
    url = PORTKEY + target.replace("api-version=v1&", "").replace("?api-version=v1", "")
    headers, data = await sent(Client.portkey("pk-1", virtual_key="vk-1"), operation, method, url)
    signature = {"x-portkey-api-key": "pk-1", "x-portkey-virtual-key": "vk-1"}
    assert headers == {**OURS, **V2, **signature, **(JSON if body is not None else {})}
    assert data == body


async def test_a_request_to_portkey_with_all_options() -> None:
    client = Client.portkey(
        "pk-1",
        config={"retry": {"attempts": 3}},
        provider="openai",
        bearer="sk-1",
        custom_host="https://host.example/v1",
        trace_id="trace-1",
        metadata={"_user": "u-1"},
        base_url="https://gateway.example/v1/",
        version=None,
        default_query={"x": "1"},
    )
    headers, _ = await sent(client, OPERATIONS["GET"][0], "GET", "https://gateway.example/v1/threads/thread_1?x=1")
    assert headers == {
        **OURS,
        "Authorization": "Bearer sk-1",
        "x-portkey-api-key": "pk-1",
        "x-portkey-config": '{"retry":{"attempts":3}}',
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": "https://host.example/v1",
        "x-portkey-trace-id": "trace-1",
        "x-portkey-metadata": '{"_user":"u-1"}',
    }


async def test_the_request_id_of_portkey_and_of_azure_is_found() -> None:
    for header in ("x_portkey_request_id", "x_ms_request_id", "apim_request_id"):
        async with (
            RecordingServer(reply(404, {}, **{header: "req_1"})) as server,
            Client.portkey("pk-1", config="pc-1", base_url=server.base_url) as client,
        ):
            with pytest.raises(NotFoundError, match=r"request id req_1") as caught:
                await client.threads.retrieve("thread_1")
            assert caught.value.request_id == "req_1"


async def test_a_token_that_foundry_refuses_is_refreshed_once() -> None:
    credential = Credential()
    async with (
        RecordingServer(reply(401, {})) as server,
        Client.azure(server.origin, api_version="v1", credential=credential) as client,
    ):
        with pytest.raises(AuthenticationError):
            await client.threads.create()
    assert [seen.header("Authorization") for seen in server.seen] == ["Bearer token-1", "Bearer token-2"]
    assert set(server.targets) == {"/threads?api-version=v1"}
