"""The transport under `aioresponses`, which many users of aiohttp test with, and the options it passes to aiohttp.

aioresponses 0.7.9, its newest release, does not pass an argument that `ClientResponse` of aiohttp 3.14 requires.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from yarl import URL

from asyncruns import APITimeoutError, BearerAuth, Client

OVER = ("aiohttp",)

BASE = "https://host.example/v1"


class Response(aiohttp.ClientResponse):
    """Supplies an argument that aioresponses lacks. None would fail, since its `output_size` is read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **options})


async def test_a_request_is_made_of_the_base_url_the_path_and_the_signature() -> None:
    with aioresponses() as server:
        server.get(f"{BASE}/threads/thread_1", payload={"id": "thread_1"}, response_class=Response)
        async with Client(BASE, auth=BearerAuth("sk-test")) as client:
            assert (await client.threads.retrieve("thread_1")).id == "thread_1"
        ((method, url),) = server.requests
        assert (method, url) == ("GET", URL(f"{BASE}/threads/thread_1"))


async def test_exceptions_of_aiohttp_become_exceptions_of_this_package() -> None:
    with aioresponses() as server:
        server.post(f"{BASE}/threads", exception=TimeoutError())
        async with Client(BASE) as client:
            with pytest.raises(APITimeoutError, match="may have acted"):
                await client.threads.create()


@pytest.mark.parametrize(
    ("options", "handed"),
    [
        ({}, {"allow_redirects": False}),
        ({"ssl": False}, {"ssl": False}),
        ({"proxy": "http://proxy.example:3128"}, {"proxy": "http://proxy.example:3128"}),
    ],
)
async def test_options_are_passed_to_aiohttp(options: dict[str, Any], handed: dict[str, Any]) -> None:
    with aioresponses() as server:
        server.post(f"{BASE}/threads", payload={"id": "thread_1"}, response_class=Response)
        async with Client(BASE, **options) as client:
            await client.threads.create()
        ((call,),) = server.requests.values()
        assert {name: call.kwargs[name] for name in handed} == handed
        assert {"ssl", "proxy"} & call.kwargs.keys() == {"ssl", "proxy"} & options.keys()
