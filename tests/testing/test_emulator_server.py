"""The emulator as a server: resources and lists, headers, recorded requests, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from asyncruns.testing import Emulator, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]


async def test_assistants_are_created_changed_and_deleted(ask: Ask) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    _, made = await ask("POST", "/assistants", {"model": "gpt-4o", "name": "A", "tools": [tool]})
    path = f"/assistants/{made['id']}"
    assert made["id"].startswith("asst_")
    assert set(made) == {
        *("id", "object", "created_at", "name", "description", "model", "instructions", "tools", "top_p"),
        *("temperature", "tool_resources", "metadata", "response_format"),
    }
    assert (await ask("GET", path))[1] == made
    _, changed = await ask("POST", path, {"name": "B", "metadata": {"x": "y"}, "tools": []})
    assert changed == {**made, "name": "B", "metadata": {"x": "y"}, "tools": []}
    assert (await ask("DELETE", path))[1] == {"id": made["id"], "object": "assistant.deleted", "deleted": True}
    assert (await ask("GET", path))[0] == 404


async def test_threads_and_messages_are_created_changed_and_deleted(ask: Ask) -> None:
    part = {"type": "text", "text": "Hi"}
    _, thread = await ask(
        "POST", "/threads", {"messages": [{"role": "user", "content": [part]}], "metadata": {"a": "b"}}
    )
    path = f"/threads/{thread['id']}"
    assert set(thread) == {"id", "object", "created_at", "metadata", "tool_resources"}
    assert (await ask("GET", path))[1] == thread
    assert (await ask("POST", path, {"metadata": {}, "tool_resources": {"x": {}}}))[1]["tool_resources"] == {"x": {}}

    (message,) = (await ask("GET", f"{path}/messages"))[1]["data"]
    assert message["content"] == [{"type": "text", "text": {"value": "Hi", "annotations": []}}]
    assert set(message) == {
        *("id", "object", "created_at", "assistant_id", "thread_id", "run_id", "role", "content", "attachments"),
        "metadata",
    }
    _, changed = await ask("POST", f"{path}/messages/{message['id']}", {"metadata": {"m": "1"}})
    assert changed == {**message, "metadata": {"m": "1"}}
    _, deleted = await ask("DELETE", f"{path}/messages/{message['id']}")
    assert deleted == {"id": message["id"], "object": "thread.message.deleted", "deleted": True}
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert (await ask("GET", f"{path}/messages"))[1] == empty
    assert (await ask("DELETE", path))[1]["object"] == "thread.deleted"
    assert (await ask("GET", path))[0] == 404


async def test_lists_are_paged_in_both_directions(ask: Ask) -> None:
    messages = [{"role": "user", "content": str(i)} for i in range(25)]
    _, thread = await ask("POST", "/threads", {"messages": messages})

    async def texts(**query: str) -> tuple[list[int], dict[str, Any]]:
        _, listed = await ask("GET", f"/threads/{thread['id']}/messages", **query)
        return [int(message["content"][0]["text"]["value"]) for message in listed["data"]], listed

    newest, first = await texts()
    assert newest == list(range(24, 4, -1))
    assert (first["first_id"], first["last_id"]) == (first["data"][0]["id"], first["data"][-1]["id"])
    assert first["has_more"] is True
    rest, second = await texts(after=first["last_id"])
    assert (rest, second["has_more"]) == ([4, 3, 2, 1, 0], False)
    back, third = await texts(before=second["first_id"], limit="2")
    assert (back, third["has_more"]) == ([6, 5], True)
    assert (await texts(order="asc", limit="3"))[0] == [0, 1, 2]
    assert len((await texts(limit="100"))[0]) == 25


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "0"}, "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead."),
        (
            {"limit": "101"},
            "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
        ),
        ({"limit": "x"}, "Invalid type for 'limit': expected an integer, but got a string instead."),
        ({"order": "up"}, "Invalid value: 'up'. Supported values are: 'asc' and 'desc'."),
    ],
)
async def test_invalid_parameters_of_a_page_are_refused(ask: Ask, query: dict[str, str], message: str) -> None:
    status, answer = await ask("GET", "/assistants", **query)
    assert (status, answer["error"]["message"]) == (400, message)


async def test_runs_of_a_thread_are_listed(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(), assistant_id="asst_1")
    _, thread = await ask("POST", "/threads", {})
    path = f"/threads/{thread['id']}/runs"
    ids = []
    for _ in range(3):
        ids.append((await ask("POST", path, {"assistant_id": "asst_1"}))[1]["id"])
        await asyncio.sleep(1)
    _, listed = await ask("GET", path)
    assert [(run["id"], run["status"]) for run in listed["data"]] == [(id, "completed") for id in reversed(ids)]


async def test_time_in_headers_and_bodies_is_virtual(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as session:
        dates, created = [], []
        for _ in range(2):
            async with session.post(f"{emulator.base_url}/threads") as response:
                dates.append(parsedate_to_datetime(response.headers["Date"]).timestamp())
                created.append((await response.json())["created_at"])
            await asyncio.sleep(600)
    assert dates == created
    assert dates[1] - dates[0] == 600
    assert abs(dates[0] - time.time()) < 60


async def test_every_answer_has_the_servers_headers(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as session:
        ids = set()
        for path in ("/threads", "/nothing"):
            async with session.post(emulator.base_url + path) as response:
                assert response.headers["Content-Type"] == "application/json"
                assert response.headers["openai-version"] == "2020-10-01"
                assert int(response.headers["openai-processing-ms"]) > 0
                ids.add(response.headers["x-request-id"])
                assert "openai-poll-after-ms" not in response.headers
    assert len(ids) == 2
    assert all(id.startswith("req_") for id in ids)


async def test_a_poll_hint_is_sent_while_a_run_has_not_ended() -> None:
    async with Emulator(Scenario(), poll_after_ms=250) as emulator, aiohttp.ClientSession() as session:
        emulator.script(Scenario(), assistant_id="asst_1")
        async with session.post(f"{emulator.base_url}/threads/runs", json={"assistant_id": "asst_1"}) as response:
            run = await response.json()
            assert "openai-poll-after-ms" not in response.headers
        url = f"{emulator.base_url}/threads/{run['thread_id']}/runs/{run['id']}"
        hints = []
        for _ in range(2):
            async with session.get(url) as response:
                hints.append(response.headers.get("openai-poll-after-ms"))
            await asyncio.sleep(1)
    assert hints == ["250", None]


async def test_requests_are_recorded_without_credentials(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer secret", "X-Thing": "1"}) as session:
        async with session.get(f"{emulator.base_url}/assistants/a%2Fb?limit=3&x=%20"):
            pass
        async with session.post(f"{emulator.base_url}/threads", data=b"{}"):
            pass
    first, second = emulator.requests
    assert (first.method, first.path, first.query, first.body) == ("GET", "/v1/assistants/a%2Fb", "limit=3&x=%20", b"")
    assert (first.at, first.status, second.status) == (loop.time(), 404, 200)
    assert (second.body, second.headers["x-thing"]) == (b"{}", "1")
    assert "secret" not in repr(emulator.requests)


async def test_ids_are_unique_and_the_same_in_every_emulator(emulator: Emulator, ask: Ask) -> None:
    ids = [(await ask("POST", "/threads", {}))[1]["id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(id) == len("thread_") + 24 for id in ids)
    async with Emulator() as other, aiohttp.request("POST", f"{other.base_url}/threads") as response:
        assert (await response.json())["id"] == ids[0]


async def test_its_repr_shows_where_it_listens_and_its_counts(emulator: Emulator, ask: Ask) -> None:
    await ask("POST", "/threads", {})
    assert repr(emulator) == f"<Emulator {emulator.base_url} runs=0 responses=0 batches=0 requests=1>"
    assert repr(Emulator()) == "<Emulator stopped runs=0 responses=0 batches=0 requests=0>"


async def test_it_may_be_left_from_another_task() -> None:
    emulator = Emulator()
    await asyncio.create_task(emulator.__aenter__())
    assert emulator.base_url.startswith("http://127.0.0.1:")
    await asyncio.create_task(emulator.__aexit__(None, None, None))


async def test_it_may_be_left_through_a_generator_that_is_closed_early() -> None:
    async def ports() -> AsyncIterator[str]:
        async with Emulator() as emulator:
            yield emulator.base_url
            yield "never"

    async for url in ports():
        assert url.endswith("/v1")
        break


async def test_an_error_in_the_body_propagates_unchanged() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Emulator():
            raise ValueError("mine")


async def test_its_state_outlives_a_restart() -> None:
    emulator = Emulator()
    async with aiohttp.ClientSession() as session:
        async with emulator:
            async with session.post(f"{emulator.base_url}/threads") as response:
                thread = await response.json()
            with pytest.raises(RuntimeError, match="already started"):
                await emulator.start()
        await emulator.stop()
        with pytest.raises(RuntimeError, match="not started"):
            _ = emulator.base_url
        async with emulator, session.get(f"{emulator.base_url}/threads/{thread['id']}") as response:
            assert await response.json() == thread


async def test_a_port_that_is_in_use_is_an_error(emulator: Emulator) -> None:
    port = int(emulator.base_url.split(":")[2].split("/")[0])
    other = Emulator(port=port)
    with pytest.raises(OSError, match="address"):
        await other.start()
    await other.stop()


@pytest.mark.real_time
async def test_it_stops_quickly_while_connections_are_open() -> None:
    emulator = Emulator()
    await emulator.start()
    port = int(emulator.base_url.split(":")[2].split("/")[0])
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{emulator.base_url}/threads") as response:
            await response.read()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/threads HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf of it")
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await emulator.stop()
        assert time.perf_counter() - began < 1
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_two_hundred_runs_are_watched_in_little_time(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(queued=1, working=9), assistant_id="asst_1")

    async def watch() -> int:
        _, run = await ask("POST", "/threads/runs", {"assistant_id": "asst_1"})
        polls = 0
        while run["status"] != "completed":
            await asyncio.sleep(2)
            _, run = await ask("GET", f"/threads/{run['thread_id']}/runs/{run['id']}")
            polls += 1
        return polls

    assert await asyncio.gather(*(watch() for _ in range(200))) == [5] * 200


@pytest.mark.parametrize("depth", [101, 900, 5_000, 50_000])
@pytest.mark.parametrize("path", ["/threads", "/assistants", "/responses"])
async def test_json_that_is_nested_too_deeply_is_refused(emulator: Emulator, path: str, depth: int) -> None:
    raw = b'{"model":"m","input":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    async with aiohttp.ClientSession() as session:
        for data in (raw, b"[" * depth + b"]" * depth, b"[" * depth):
            async with session.post(emulator.base_url + path, data=data) as response:
                assert response.status == 400
                assert "could not parse the JSON body" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    ("host", "api_key", "warns"),
    [
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("", None, True),
        ("0.0.0.0", "key", False),
        ("127.0.0.1", None, False),
        ("127.0.0.2", None, False),
        ("::1", None, False),
    ],
)
async def test_an_emulator_that_other_machines_reach_without_a_key_logs_a_warning(
    host: str, api_key: str | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Emulator(host=host, api_key=api_key):
        pass
    assert ["without a key" in message for message in caplog.messages] == [True] * warns


@pytest.mark.parametrize(("size", "status"), [(900_000, 400), (1_200_000, 413)])
async def test_idle_connections_do_not_keep_refused_bodies(emulator: Emulator, size: int, status: int) -> None:
    body = b'{"metadata": "' + b"x" * size
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                session = await stack.enter_async_context(aiohttp.ClientSession())
                async with session.post(f"{emulator.base_url}/threads", data=io.BytesIO(body)) as response:
                    assert response.status == status
                    assert "message" in (await response.json())["error"]
            emulator.requests.clear()
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 3 * size
