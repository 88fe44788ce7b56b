"""Arguments of the official client's constructor that mean the same here."""

from __future__ import annotations

from typing import Any

import openai
import pytest

import asyncruns
from asyncruns import APITimeoutError, AuthenticationError, BearerAuth, Client, ConfigurationError
from asyncruns.testing import Emulator, Fault


async def test_a_key_is_sent_as_a_bearer_token() -> None:
    async def token() -> str:
        return "sk-test"

    async with Emulator(api_key="sk-test") as emulator:
        for key in ("sk-test", token):
            async with Client(base_url=emulator.base_url, api_key=key) as client:
                assert (await client.threads.create()).id
        async with Client(base_url=emulator.base_url, api_key="sk-other") as client:
            with pytest.raises(AuthenticationError) as caught:
                await client.threads.create()
        assert "sk-other" not in repr(client) + repr(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": "sk-hidden", "auth": BearerAuth("sk-hidden")}, "either api_key"),
        ({"api_key": ""}, "non-empty"),
        ({"api_key": 5}, "string"),
        ({"timeout": 5, "request_timeout": 5}, "two names of one option"),
        ({"timeout": None, "request_timeout": None}, "two names of one option"),
        ({"timeout": "5"}, "seconds"),
        ({"timeout": True}, "seconds"),
        pytest.param({"timeout": object()}, "seconds", id="timeout: an object"),
        ({"timeout": 0}, "more than 0"),
        ({"organization": "a\nb"}, "OpenAI-Organization"),
        ({"project": 5}, "OpenAI-Project"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_without_showing_a_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Client("http://127.0.0.1:9/v1", **options)
    assert "hidden" not in str(caught.value)


async def test_organization_and_project_become_headers_and_may_be_overridden_by_headers(emulator: Emulator) -> None:
    more = {"openai-project": "mine", "x-more": "1"}
    async with Client(emulator.base_url, organization="org-1", project="proj-1", default_headers=more) as client:
        await client.threads.create()
    headers = {name.lower(): value for name, value in emulator.requests[-1].headers.items()}
    assert (headers["openai-organization"], headers["openai-project"], headers["x-more"]) == ("org-1", "mine", "1")


@pytest.mark.parametrize("name", ["timeout", "request_timeout"])
async def test_both_names_of_the_timeout_limit_one_request(emulator: Emulator, name: str) -> None:
    emulator.inject(Fault(on="create_thread", delay_after=60.0))
    options: dict[str, Any] = {name: 1.5}
    async with Client(emulator.base_url, **options) as client:
        with pytest.raises(APITimeoutError):
            await client.threads.create()


async def test_a_timeout_of_none_waits_without_limit(emulator: Emulator) -> None:
    emulator.inject(Fault(on="create_thread", delay_after=3_600.0))
    async with Client(emulator.base_url, timeout=None) as client:
        assert (await client.threads.create()).id


# `type`, not `isinstance`: that would evaluate the lazy proxies among the values, and so import the whole client.
ERRORS = [
    name
    for name, value in list(vars(openai).items())
    if issubclass(type(value), type) and issubclass(value, openai.OpenAIError) and name in openai.__all__
]
# Errors of workload identities, chat completions, audio and web sockets.
NOT_OURS = {
    "ContentFilterFinishReasonError",
    "LengthFinishReasonError",
    "OAuthError",
    "SubjectTokenProviderError",
    "WebSocketConnectionClosedError",
    "WebSocketQueueFullError",
}


def test_the_errors_of_the_official_client_exist_here_in_the_same_hierarchy() -> None:
    names = sorted(set(ERRORS) - NOT_OURS)
    assert len(names) == 14
    for name in names:
        ours, theirs = getattr(asyncruns, name), getattr(openai, name)
        for other in names:
            expected = issubclass(theirs, getattr(openai, other))
            assert issubclass(ours, getattr(asyncruns, other)) is expected, (name, other)


async def test_an_error_has_the_attributes_of_the_official_clients_errors(emulator: Emulator) -> None:
    emulator.inject(Fault(on="create_thread", drop=True), Fault(on="create_thread", damage="html"))
    async with Client(emulator.base_url, max_retries=0) as client:
        with pytest.raises(asyncruns.NotFoundError) as missing:
            await client.threads.retrieve("thread_x")
        with pytest.raises(asyncruns.APIConnectionError) as dropped:
            await client.threads.create()
        with pytest.raises(asyncruns.APIResponseValidationError) as spoiled:
            await client.threads.create()
    error: asyncruns.APIError = missing.value
    assert (missing.value.status_code, error.code, error.param) == (404, None, None)
    assert (error.type, bool(error.request_id), b"thread_x" in error.body) == ("invalid_request_error", True, True)
    assert missing.value.headers["content-type"].startswith("application/json")
    error = dropped.value
    assert (error.code, error.type, error.param, error.body, error.request_id) == (None, None, None, b"", "")
    assert spoiled.value.status_code == spoiled.value.status == 200
