"""How faults change answers: statuses, headers and bodies, as a client receives them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from asyncruns.testing import Emulator, Fault, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]


async def fetch(emulator: Emulator, path: str = "/assistants", method: str = "GET") -> tuple[int, Any, bytes]:
    url = emulator.base_url + path
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, response.headers, await response.read()


async def begin(emulator: Emulator, ask: Ask) -> str:
    emulator.script(Scenario(queued=5, working=5), assistant_id="asst_1")
    _, run = await ask("POST", "/threads/runs", {"assistant_id": "asst_1"})
    return f"/threads/{run['thread_id']}/runs/{run['id']}"


@pytest.mark.parametrize(
    ("fault", "message", "kind", "code"),
    [
        (Fault(status=401), "Incorrect API key", "invalid_request_error", "invalid_api_key"),
        (Fault(status=404), "No object found", "invalid_request_error", None),
        (Fault(status=418), "The request was answered with status 418.", "invalid_request_error", None),
        (Fault(status=429), "Rate limit reached", "requests", "rate_limit_exceeded"),
        (
            Fault(status=429, code="insufficient_quota"),
            "You exceeded your current quota",
            "insufficient_quota",
            "insufficient_quota",
        ),
        (Fault(status=500), "The server had an error while processing your request", "server_error", None),
        (Fault(status=502, message="Upstream is gone"), "Upstream is gone", "server_error", None),
        (Fault(status=503), "overloaded", "server_error", None),
        (Fault(status=400, message="No.", code="odd"), "No.", "invalid_request_error", "odd"),
    ],
)
async def test_an_error_status_has_a_body_in_the_servers_format(
    emulator: Emulator, fault: Fault, message: str, kind: str, code: str | None
) -> None:
    emulator.inject(fault)
    status, headers, body = await fetch(emulator)
    error = json.loads(body)["error"]
    assert (status, headers["Content-Type"]) == (fault.status, "application/json")
    assert headers["x-request-id"].startswith("req_")
    assert error == {"message": error["message"], "type": kind, "param": None, "code": code}
    assert error["message"].startswith(message) or message in error["message"]


@pytest.mark.parametrize(("status", "title"), [(502, b"502 Bad Gateway"), (504, b"504 Gateway Timeout")])
async def test_a_gateways_error_is_a_page(emulator: Emulator, status: int, title: bytes) -> None:
    emulator.inject(Fault(status=status))
    got, headers, body = await fetch(emulator)
    assert (got, headers["Content-Type"], headers["Server"]) == (status, "text/html", "nginx")
    assert title in body


async def test_headers_are_added_and_replaced_whatever_their_case(emulator: Emulator) -> None:
    emulator.inject(Fault(headers={"retry-after": "2", "date": "Thu, 01 Jan 1970 00:00:00 GMT"}))
    status, headers, body = await fetch(emulator)
    assert (status, headers["Retry-After"]) == (200, "2")
    assert headers.getall("Date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]
    assert json.loads(body)["object"] == "list"


@pytest.mark.parametrize(
    ("body", "sent"),
    [(b"\xff\x00", b"\xff\x00"), ("caf\u00e9", "caf\u00e9".encode()), ({"detail": "x"}, b'{"detail":"x"}')],
)
@pytest.mark.parametrize("status", [None, 200, 409, 500])
async def test_a_body_is_sent_as_it_is(emulator: Emulator, body: Any, sent: bytes, status: int | None) -> None:
    emulator.inject(Fault(status=status, body=body))
    got, _, received = await fetch(emulator)
    assert (got, received) == (status or 200, sent)


async def test_a_good_answer_may_have_another_good_status(emulator: Emulator) -> None:
    emulator.inject(Fault(on="create_thread", status=202))
    status, _, body = await fetch(emulator, "/threads", "POST")
    assert (status, json.loads(body)["object"]) == (202, "thread")
    assert emulator.requests[0].acted


async def test_a_proxys_page_comes_with_200(emulator: Emulator) -> None:
    emulator.inject(Fault(damage="html"))
    status, headers, body = await fetch(emulator)
    assert (status, headers["Content-Type"], body[:6]) == (200, "text/html", b"<html>")
    assert not emulator.requests[0].acted


async def test_an_empty_body_comes_with_200(emulator: Emulator) -> None:
    emulator.inject(Fault(damage="empty"))
    status, headers, body = await fetch(emulator)
    assert (status, headers["Content-Length"], body) == (200, "0", b"")


async def test_half_a_body_has_the_right_length(emulator: Emulator) -> None:
    _, _, whole = await fetch(emulator)
    emulator.inject(Fault(damage="half"))
    status, headers, body = await fetch(emulator)
    assert (status, int(headers["Content-Length"])) == (200, len(whole) // 2)
    assert body == whole[: len(whole) // 2]
    assert emulator.requests[-1].acted


@pytest.mark.parametrize("status", [None, 500])
async def test_a_cut_body_is_shorter_than_its_content_length(emulator: Emulator, status: int | None) -> None:
    emulator.inject(Fault(damage="cut", status=status))
    async with aiohttp.ClientSession() as session, session.get(f"{emulator.base_url}/assistants") as response:
        assert response.status == (status or 200)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert (await fetch(emulator))[0] == 200


async def test_an_answer_is_repeated_to_the_byte(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask)
    emulator.inject(Fault(on="poll", damage="repeat", times=2))
    answers = []
    for _ in range(4):
        _, headers, body = await fetch(emulator, path)
        answers.append((body, dict(headers)))
        await asyncio.sleep(4)
    assert answers[0] == answers[1] == answers[2]
    assert [json.loads(body)["status"] for body, _ in answers] == ["queued"] * 3 + ["completed"]
    assert [seen.acted for seen in emulator.requests[1:]] == [True, False, False, True]


async def test_only_an_identical_request_is_answered_again(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(on="create_thread", damage="repeat", times=None))
    bodies: list[Any] = [{"metadata": {"n": str(n)}} for n in range(2)]
    first, second, again = [(await ask("POST", "/threads", body))[1] for body in (*bodies, bodies[0])]
    assert first["id"] == again["id"] != second["id"]


async def test_a_good_body_may_be_rewritten(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask)
    emulator.inject(
        Fault(on="poll", rewrite=lambda body: {**body, "status": "paused"}),
        Fault(on="poll", rewrite=lambda body: body.update(required_action={}, expires_at=None)),
        Fault(on="poll", rewrite=lambda body: body.pop("status") and None),
        Fault(on="poll", rewrite=lambda body: [body["id"]]),
    )
    _, plain = await ask("GET", "/assistants/asst_1")
    bodies = [(await ask("GET", path))[1] for _ in range(5)]
    assert bodies[0] == {**bodies[4], "status": "paused"}
    assert bodies[1] == {**bodies[4], "required_action": {}, "expires_at": None}
    assert "status" not in bodies[2]
    assert bodies[3] == [bodies[4]["id"]]
    assert bodies[4]["status"] == "queued"
    assert (await ask("GET", "/assistants/asst_1"))[1] == plain


async def test_an_error_is_not_rewritten(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(rewrite=lambda body: {}))
    status, body = await ask("GET", "/threads/thread_none")
    assert (status, body["error"]["message"]) == (404, "No thread found with id 'thread_none'.")


@pytest.mark.parametrize("skew", [-3600.0, 90.0])
async def test_the_servers_clock_may_be_wrong(skew: float) -> None:
    async with Emulator(clock_skew=skew) as emulator:
        _, headers, body = await fetch(emulator, "/threads", "POST")
        date = parsedate_to_datetime(headers["Date"]).timestamp()
        assert date == json.loads(body)["created_at"]
        assert abs(date - time.time() - skew) < 30


def test_an_invalid_clock_skew_is_refused() -> None:
    with pytest.raises(ValueError, match="clock_skew is inf; give a finite"):
        Emulator(clock_skew=float("inf"))
