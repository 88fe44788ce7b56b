"""`asyncruns doctor` at servers with prepared problems: what is wrong, what to set, and that it changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from asyncruns.cli.check_report import CheckReport, CheckResult, Health
from asyncruns.cli.checks import check_wires
from asyncruns.cli.doctor import examine
from asyncruns.cli.doctor_settings import other_urls
from asyncruns.cli.options import make_parser
from asyncruns.cli.probes import LIST_OF_RESPONSES, RESPONSES, THREADS, ProbeAnswer, ProbeVerdict, verdict_on
from asyncruns.dialects.errors import has_no_path, wants_another_version
from asyncruns.http import Response
from asyncruns.testing import Emulator, Fault, Scenario

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
EVIL = "a\x1b[31mred\x9b2J\u202egnp\r\x07[red]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
DEPRECATED = {
    "error": {
        "message": "The v1 Assistants API has been deprecated. Try the v2 Assistants API instead by setting the header "
        "'OpenAI-Beta: assistants=v2'.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_beta",
    }
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("ASYNCRUNS_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str]:
    """Serve with a handler, and yield the URL without a path."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def no_such(request: web.BaseRequest) -> web.Response:
    """Answer as a server that has this path, but no such object."""
    if request.path.endswith("0" * 24):
        return web.json_response({"error": {"message": f"No thread found with id '{request.path[-31:]}'."}}, status=404)
    return web.json_response({"object": "list", "data": [], "has_more": False})


async def doctor(url: str, *arguments: str) -> tuple[int, dict[str, CheckResult]]:
    options = make_parser().parse_args(["doctor", "--base-url", url, *arguments])
    report = CheckReport(as_json=options.json)
    code = await examine(options, report)
    return code, {result.check: result for result in report.all}


def wrong(found: dict[str, CheckResult]) -> set[str]:
    return {name for name, result in found.items() if result.state is Health.WRONG}


async def test_a_server_that_is_well_is_0_and_is_only_read(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = await doctor(emulator.base_url)
    assert code == 0
    assert {name for name, result in found.items() if result.state is Health.OK} >= {
        "base URL", "key", "version", "threads", "assistants", "responses", "batches", "message batches", "files",
        "latency",
    }  # fmt: skip
    assert {request.method for request in emulator.requests} == {"GET"}
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "nothing is wrong"
    assert err == ""


async def test_a_missing_v1_is_found(emulator: Emulator) -> None:
    code, found = await doctor(emulator.base_url.removesuffix("/v1"))
    assert code == 1
    assert found["base URL"].to_set == f"set --base-url to {emulator.base_url}"


async def test_a_version_too_much_is_found(emulator: Emulator) -> None:
    _, found = await doctor(emulator.base_url + "/v1")
    assert found["base URL"].facts["better"] == emulator.base_url


def test_the_other_urls_are_at_the_same_host() -> None:
    assert list(other_urls("http://h/x")) == ["http://h/x/v1"]
    assert list(other_urls("http://h/v1")) == ["http://h/v1", "http://h"]
    assert list(other_urls("http://h/v1/v1/")) == ["http://h/v1", "http://h/v1/v1", "http://h/v1"]


async def test_where_nothing_of_the_api_is_that_is_said() -> None:
    async def nothing(request: web.BaseRequest) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=404)

    async with serving(nothing) as url:
        code, found = await doctor(f"{url}/v1")
    assert code == 1
    assert wrong(found) == {"base URL"}
    assert "with or without /v1" in found["base URL"].text


async def test_a_wrong_key_is_found_and_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator(api_key="right") as emulator:
        code, found = await doctor(emulator.base_url, "--api-key", "wrong-hidden-key")
    assert code == 1
    assert wrong(found) == {"key"}
    assert "--api-key is refused, 401" in found["key"].text
    assert "hidden" not in "".join(capsys.readouterr())


async def test_a_key_of_the_environment_for_another_url_is_not_sent_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", "https://other.example/v1")
    monkeypatch.setenv("ASYNCRUNS_API_KEY", "right")
    async with Emulator(api_key="right") as emulator:
        _, found = await doctor(emulator.base_url)
        assert not any("Authorization" in request.headers for request in emulator.requests)
    assert "the key of the environment is for https://other.example/v1" in found["key"].text
    assert found["key"].to_set.startswith("set --api-key")


async def test_a_key_that_belongs_into_another_header_is_found() -> None:
    async def azure(request: web.BaseRequest) -> web.Response:
        if request.headers.get("api-key") != "right":
            return web.json_response({"error": {"code": "401", "message": "Access denied"}}, status=401)
        return no_such(request)

    async with serving(azure) as url:
        code, found = await doctor(f"{url}/v1", "--api-key", "right")
        assert code == 1
        assert found["key"].to_set == "add --auth-header api-key"
        code, found = await doctor(f"{url}/v1", "--api-key", "right", "--auth-header", "api-key")
    assert (code, found["key"].state) == (0, Health.OK)


@pytest.mark.parametrize(
    ("arguments", "to_set"),
    [
        (("--version", "v1"), "add --version v2; in Python: Client(version='v2')"),
        (("--version", "none"), "add --version v2;"),
        (("--header", "openai-beta=assistants=v1"), "in place of --header OpenAI-Beta=assistants=v1"),
    ],
)
async def test_a_wrong_version_is_found(arguments: tuple[str, ...], to_set: str) -> None:
    async def of_version(request: web.BaseRequest) -> web.Response:
        is_versioned = request.path.startswith(("/v1/threads", "/v1/assistants"))
        if is_versioned and request.headers.get("OpenAI-Beta") != "assistants=v2":
            return web.json_response(DEPRECATED, status=400)
        return no_such(request)

    async with serving(of_version) as url:
        code, found = await doctor(f"{url}/v1", *arguments)
        assert code == 1
        assert wrong(found) == {"version"}
        assert to_set in found["version"].to_set
        assert (await doctor(f"{url}/v1"))[0] == 0


async def test_a_missing_api_version_of_azure_is_found() -> None:
    async def azure(request: web.BaseRequest) -> web.Response:
        if "api-version" not in request.query:
            error = {"code": "BadRequest", "message": "Missing required query parameter: api-version"}
            return web.json_response({"error": error}, status=400)
        return no_such(request)

    async with serving(azure) as url:
        code, found = await doctor(url)
        assert code == 1
        assert found["version"].to_set.startswith("add --query api-version=v1")
        assert (await doctor(url, "--query", "api-version=v1"))[0] == 0


@pytest.mark.real_time
@pytest.mark.parametrize(("skew", "words"), [(-600, "ahead of the server's"), (600, "behind the server's")])
async def test_a_clock_that_is_off_is_found(skew: float, words: str) -> None:
    async with Emulator(clock_skew=skew) as emulator:
        code, found = await doctor(emulator.base_url)
    assert code == 1
    assert wrong(found) == {"clock"}
    assert words in found["clock"].text
    assert abs(found["clock"].facts["offset"] + skew) < 5


async def test_a_page_of_a_proxy_is_no_answer_of_the_api() -> None:
    async def page(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"<html><title>Sign in {EVIL}</title></html>", content_type="text/html")

    async with serving(page) as url:
        code, found = await doctor(f"{url}/v1")
    assert code == 1
    assert "what is not of the API" in found["base URL"].text
    assert "Sign in" in found["base URL"].text


async def test_a_redirect_is_shown_and_the_key_stays_at_its_host() -> None:
    elsewhere: list[web.BaseRequest] = []

    async def other(request: web.BaseRequest) -> web.Response:
        elsewhere.append(request)
        return no_such(request)

    async with serving(other) as target:

        async def redirect(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{target}/api{request.path}?key=hidden"})

        async with serving(redirect) as url:
            code, found = await doctor(f"{url}/v1", "--api-key", "right")
    assert code == 1
    assert found["base URL"].to_set == f"set --base-url to {target}/api/v1, if that is the server"
    assert elsewhere == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_trouble_of_the_whole_server_is_one_line(emulator: Emulator, status: int) -> None:
    emulator.inject(Fault(status=status, times=None, headers={"Retry-After": "7"}))
    code, found = await doctor(emulator.base_url)
    assert code == 1
    assert wrong(found) == {"all requests"}
    assert ("wait 7 s" in found["all requests"].to_set) is (status == 429)


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        code, found = await doctor(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "--timeout", "3")
    assert code == 1
    assert "does not answer within 3 s" in found["server"].text


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_server_and_tls_at_a_plain_port_are_told_apart(emulator: Emulator, scheme: str) -> None:
    url = "http://127.0.0.1:1/v1" if scheme == "http" else emulator.base_url.replace("http:", "https:")
    code, found = await doctor(url)
    assert code == 1
    assert list(found) == ["server"]
    expected = "check the host, the port" if scheme == "http" else "write http:// in --base-url"
    assert expected in found["server"].to_set


async def test_limits_that_are_nearly_reached_are_noted(emulator: Emulator) -> None:
    headers = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-limit-requests": "500"}
    emulator.inject(Fault(headers={**headers, "x-ratelimit-reset-requests": "6m0s"}, times=None))
    code, found = await doctor(emulator.base_url)
    assert code == 0
    assert found["limits"].text == "3 of 500 requests are left, all again in 6 min"
    assert found["limits"].state is Health.NOTE


async def test_a_try_says_so_before_and_leaves_nothing(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = await doctor(emulator.base_url, "--try")
    assert code == 0
    assert {"create", "metadata", "list", "cancel", "delete"} <= set(found)
    assert "--try creates an assistant of gpt-4o-mini, a thread and a run" in capsys.readouterr().err
    created = [request for request in emulator.requests if request.method == "POST"]
    deleted = [request for request in emulator.requests if request.method == "DELETE"]
    assert len(created) == 4  # the assistant, the thread, the run, its cancel
    assert len(deleted) == 2


async def test_a_try_that_is_interrupted_deletes_what_it_created() -> None:
    async with Emulator(Scenario(end="never", cancelling=1000)) as emulator:
        task = asyncio.create_task(doctor(emulator.base_url, "--try"))
        while not any(request.path.endswith("/cancel") for request in emulator.requests):
            await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len([request for request in emulator.requests if request.method == "DELETE"]) == 2


async def test_a_try_that_is_refused_is_wrong_and_leaves_nothing(emulator: Emulator) -> None:
    emulator.inject(Fault(on="create_run", status=400, message="no such model"))
    code, found = await doctor(emulator.base_url, "--try")
    assert code == 1
    assert "no such model" in found["try"].text
    assert len([request for request in emulator.requests if request.method == "DELETE"]) == 2


async def test_a_server_without_threads_is_tried_with_a_response(emulator: Emulator) -> None:
    gone = {"detail": "Not Found"}
    emulator.inject(Fault(on="thread", status=404, body=gone, times=None))
    code, found = await doctor(emulator.base_url, "--try", "--model", "m")
    assert code == 0
    assert found["threads"].state is Health.NOTE
    assert found["create"].text.startswith("the response resp_")
    assert emulator.requests[-1].method == "DELETE"


async def test_json_has_one_object_per_check_and_nothing_else(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await doctor(emulator.base_url.removesuffix("/v1"), "--json"))[0] == 1
    first, *_ = found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["check"] == "base URL"
    assert first["state"] == "wrong"
    assert first["better"] == emulator.base_url
    assert all(set(each) >= {"check", "state", "text", "to_set"} for each in found)


@pytest.mark.parametrize("status", [200, 307, 400, 401, 404, 429, 500])
async def test_nothing_of_a_hostile_server_reaches_the_terminal_raw(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def hostile(request: web.BaseRequest) -> web.Response:
        error: dict[str, Any] = {"error": {"message": EVIL + "0" * 24, "code": EVIL}, "data": []}
        headers = {"Location": "http://x/\x9b2J", "Retry-After": "\x9b"}
        return web.json_response(error, status=status, headers=headers)

    async with serving(hostile) as url:
        for json_lines in ((), ("--json",)):
            await doctor(f"{url}/v1", *json_lines)
    assert not RAW.search("".join(capsys.readouterr()).replace("\n", ""))


def answer(status: int, body: Any) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"error": {"message": "No thread found with id 'thread_1'."}}, False),
        (404, {"error": {"message": "Thread 'thread_1' not found"}}, False),
        (404, {"error": {"message": "Invalid URL (GET /threads/thread_1)"}}, True),
        (404, {"detail": "Not Found"}, True),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, True),
        (404, b"<html>404</html>", True),
        (405, {"detail": "Method Not Allowed"}, True),
        (400, {"error": {"message": "Invalid URL"}}, False),
    ],
)
def test_a_404_is_about_a_path_or_about_an_object(status: int, body: Any, expected: bool) -> None:
    assert has_no_path(answer(status, body)) is expected


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "You must provide the 'OpenAI-Beta' header to access the Assistants API.", True),
        (400, "API version not supported", True),
        (404, "Missing required query parameter: api-version", True),
        (400, "Invalid 'limit': integer above maximum value.", False),
        (500, "OpenAI-Beta", False),
        (401, "Incorrect API key provided", False),
    ],
)
def test_a_refused_version_is_known_by_its_text(status: int, message: str, expected: bool) -> None:
    assert wants_another_version(answer(status, {"error": {"message": message}})) is expected


def test_a_host_that_has_retired_threads_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    gone = answer(410, {"error": {"message": "Gone"}})
    answers = [
        ProbeAnswer(probe=THREADS, verdict=verdict_on(THREADS, gone), seconds=0.1, response=gone),
        ProbeAnswer(probe=RESPONSES, verdict=ProbeVerdict.SERVED, seconds=0.1, response=answer(404, {})),
    ]
    check_wires(CheckReport(), answers, "api.openai.com")
    assert "no longer serves threads and runs" in capsys.readouterr().out


def test_verdicts() -> None:
    assert verdict_on(LIST_OF_RESPONSES, answer(200, {"data": []})) is ProbeVerdict.SERVED
    assert verdict_on(LIST_OF_RESPONSES, answer(200, {"ok": True})) is ProbeVerdict.PAGE
    assert verdict_on(THREADS, answer(403, b"<html><title>Blocked</title>")) is ProbeVerdict.PAGE
    assert verdict_on(THREADS, answer(403, {"error": {"message": "no"}})) is ProbeVerdict.KEY
    assert verdict_on(THREADS, answer(407, {})) is ProbeVerdict.PAGE


async def test_an_answer_that_is_nested_too_deeply_is_reported() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b'{"a":' * 100_000 + b"1" + b"}" * 100_000, content_type="application/json")

    async with serving(handler) as url:
        code, found = await doctor(f"{url}/v1")
    assert code == 1
    assert wrong(found) == {"base URL"}


async def test_a_key_that_a_page_quotes_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        said = f"<title>Hello {request.headers['authorization']}</title>"
        return web.Response(text=said, content_type="text/html")

    async with serving(handler) as url:
        code, found = await doctor(f"{url}/v1", "--api-key", "sk-very-secret-4711")
    assert code == 1
    assert '200 with what is not of the API: "Hello Bearer ***"' in found["base URL"].text
    assert "4711" not in "".join(capsys.readouterr())
