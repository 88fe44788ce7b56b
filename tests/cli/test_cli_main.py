"""The command line as a whole: usage, errors on one line, credentials and signals; partly in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncruns
from asyncruns import ConfigurationError
from asyncruns.cli import main
from asyncruns.cli.connect import connect
from asyncruns.cli.emulate import serve
from asyncruns.cli.options import make_parser
from asyncruns.cli.process import lone_error
from asyncruns.testing import Emulator, VirtualTimeLoop

ROOT = Path(asyncruns.__file__).parent.parent
NAMES = ("ASYNCRUNS_BASE_URL", "ASYNCRUNS_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY")
HERE, THERE = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def exit_code(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 2
    assert "emulate" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"asyncruns {asyncruns.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("watch",),
        ("watch", "t", "r", "x"),
        ("watch", "t", "--json", "r", "x"),
        ("watch", "t", "--unknown", "r"),
        ("watch", "t", "r", "--timeout", "-1"),
        ("watch", "t", "r", "--timeout", "nan"),
        ("watch", "t", "r", "--timeout", "soon"),
        ("watch", "t", "r", "--version", "v3"),
        ("demo", "--runs", "0"),
        ("emulate", "--port", "65536"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: asyncruns")


def test_wrong_usage_does_not_print_a_possible_credential(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("watch", "t", "r", "--header", "Authorization: Bearer hidden") == 2
    assert "hidden" not in capsys.readouterr().err


def test_the_help_of_watch_has_the_exit_codes_and_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("watch", "--help") == 0
    out = capsys.readouterr().out
    assert "exit codes:" in out
    assert "`ps`" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("watch", "t", "r"), "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY"),
        (("watch", "t", "r", "--api-key", "hidden"), "--api-key needs --base-url"),
        (("watch", "t", "r", "--base-url", "ftp://x"), "base_url must be an absolute URL"),
        (("watch", "..", "r", "--base-url", HERE), "thread_id '..'"),
        (("watch", "..", "--base-url", HERE), "'..' is not an id"),
        (("watch", "", "--base-url", HERE), "response_id must be"),
        (("watch", "x", "", "--base-url", HERE), "run_id must be"),
        (("watch", "batch_1", "--base-url", HERE), "batch_1 is a batch: asyncruns batch watch batch_1"),
        (("watch", "x"), "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY"),
        (("doctor",), "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY"),
        (("list",), "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY"),
        (("show", "thread_1", "--base-url", HERE), "thread_1 names no run: pass THREAD_ID/RUN_ID"),
        (("cancel", "resp_1"), "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY"),
        (("watch", "t", "r", "--base-url", HERE, "--header", "x=a\nb"), "control character"),
        (("demo", "--api-key", "hidden"), "--api-key needs --base-url"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_configuration_is_2_and_one_line(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("asyncruns: ")
    assert expected in err
    assert err.count("\n") == 1
    assert "hidden" not in err


def test_the_demo_on_a_server_that_is_not_there_is_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "run", on_virtual_time)
        assert exit_code("demo", "--base-url", HERE) == 1
    err = capsys.readouterr().err
    assert err.startswith("asyncruns: No answer to POST /assistants")
    assert err.count("\n") == 1


def on_virtual_time(work: object) -> object:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)  # type: ignore[arg-type]


def test_options_are_parsed() -> None:
    command_line = ("watch", "t", "r", "--query", "a=b=c", "--query", "d=", "--header", "x-y=z", "--timeout", "0.5")
    options = make_parser().parse_args(command_line)
    assert options.query == [("a", "b=c"), ("d", "")]
    assert options.header == [("x-y", "z")]
    assert (options.timeout, options.max_outage, options.version) == (0.5, 30.0, "v2")
    assert make_parser().parse_args(("emulate", "--port", "8080")).port == 8080


@pytest.mark.parametrize(
    ("command_line", "ids"),
    [
        (("resp_1",), ("resp_1", None)),
        (("--json", "resp_1"), ("resp_1", None)),
        (("resp_1", "--json", "--timeout", "5"), ("resp_1", None)),
        (("t", "r"), ("t", "r")),
        (("t", "--json", "r"), ("t", "r")),
        (("t", "--timeout", "5", "r", "--json"), ("t", "r")),
        (("--json", "t", "--timeout", "5", "r"), ("t", "r")),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_one_id_is_a_response_and_two_are_a_run(command_line: tuple[str, ...], ids: tuple[str, str | None]) -> None:
    options = make_parser().parse_args(("watch", *command_line))
    assert (options.id, options.run_id) == ids


def test_rich_is_for_the_table_only_and_help_needs_no_http() -> None:
    code = (
        "import sys, asyncruns.cli\n"
        "loaded = {'aiohttp', 'anyio', 'rich'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "import asyncruns.cli.demo, asyncruns.cli.doctor, asyncruns.cli.emulate, asyncruns.cli.watch\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_error_in_nested_groups_is_found() -> None:
    error = ValueError()
    assert lone_error(ExceptionGroup("", [ExceptionGroup("", [error])])) is error


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("asyncruns.cli.demo.main", broken)
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


# Where a key is sent


async def sent(emulator: Emulator, **options: object) -> dict[str, str]:
    async with connect(emulator.base_url, **{"api_key": None, **options}) as client:  # type: ignore[arg-type]
        thread = await client.threads.create()
    assert thread.id
    return dict(emulator.requests[-1].headers)


async def test_the_key_of_the_environment_is_sent_only_to_its_own_url(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", THERE)
    monkeypatch.setenv("ASYNCRUNS_API_KEY", "there")
    assert "authorization" not in await sent(emulator)
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", "here")
    assert "authorization" in await sent(emulator)
    assert "authorization" in await sent(emulator, api_key="another")


async def test_the_url_and_the_key_come_from_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
    async with connect(None, None) as client:
        await client.threads.create()
    assert "authorization" not in emulator.requests[-1].headers
    monkeypatch.setenv("ASYNCRUNS_API_KEY", "here")
    async with connect(None, None, auth_header="api-key") as client:
        await client.threads.create()
    assert "api-key" in emulator.requests[-1].headers
    assert "authorization" not in emulator.requests[-1].headers


async def test_headers_version_and_query_are_sent(emulator: Emulator) -> None:
    headers = await sent(
        emulator, api_key="here", headers={"x-team": "blue"}, default_query={"api-version": "v1"}, version=None
    )
    assert headers["x-team"] == "blue"
    assert "authorization" in headers
    assert "openai-beta" not in headers
    assert emulator.requests[-1].query == "api-version=v1"


def test_headers_named_like_credentials_are_secrets() -> None:
    client = connect(HERE, "a-key", headers={"x-portkey-api-key": "hidden", "x-team": "blue"})
    auth = client.transport._auth  # type: ignore[attr-defined]
    assert auth.secrets() == ("a-key", "hidden")
    assert "hidden" not in repr(auth)


def test_a_header_for_a_key_requires_a_key() -> None:
    with pytest.raises(ConfigurationError, match="there is no key"):
        connect(HERE, None, auth_header="api-key")


# Real processes


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.Popen(
        # Without `-X dev`: on a busy machine, asyncio's debug mode logs slow callbacks.
        [sys.executable, "-W", "error", "-m", "asyncruns", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in another process, and its URL."""
    process = start("emulate", "--api-key", "a-key")
    assert process.stdout is not None
    first, hint = process.stdout.readline(), process.stdout.readline()
    assert first.startswith("Serving on http://127.0.0.1:"), first
    assert "asyncruns demo --base-url" in hint
    assert "a-key" not in hint
    try:
        yield process, first.removeprefix("Serving on ").strip()
    finally:
        process.kill()
        process.communicate()


def test_emulate_and_watch_as_processes(server: tuple[subprocess.Popen[str], str]) -> None:
    emulator, url = server
    thread_id, run_id = asyncio.run(a_run_at(url))
    watch = start("watch", thread_id, run_id, "--base-url", url, "--api-key", "a-key")
    out, err = watch.communicate(timeout=20)
    assert (watch.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "You said: Hi"

    emulator.send_signal(signal.SIGTERM)
    _, err = emulator.communicate(timeout=10)
    assert (emulator.returncode, err) == (0, "")


async def a_run_at(url: str) -> tuple[str, str]:
    async with connect(url, "a-key") as client:
        assistant = await client.assistants.create(model="gpt-4o-mini")
        thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
        run = await client.threads.runs.create(thread.id, assistant_id=assistant.id)
        return thread.id, run.id


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_cleanly_and_the_server_with_0(
    server: tuple[subprocess.Popen[str], str], number: signal.Signals, code: int
) -> None:
    emulator, url = server
    demo = start("demo", "--runs", "3", "--base-url", url, "--api-key", "a-key")
    assert demo.stdout is not None
    assert "queued" in demo.stdout.readline()
    demo.send_signal(number)
    _, err = demo.communicate(timeout=10)
    assert demo.returncode == code
    assert err == "asyncruns: interrupted when 0 of 3 runs had ended; deleting what was created\n"

    emulator.send_signal(number)
    _, err = emulator.communicate(timeout=10)
    assert (emulator.returncode, err) == (0, "")


def test_a_reader_that_closes_the_pipe_causes_no_traceback() -> None:
    process = start("demo", "--plain")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=10) == 141
    assert err == ""


async def test_a_port_in_use_is_2_and_one_line(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    port = int(emulator.base_url.split(":")[2].split("/")[0])
    assert await serve(make_parser().parse_args(["emulate", "--port", str(port)])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"asyncruns: cannot listen on 127.0.0.1:{port}: Address already in use\n"


async def test_a_long_running_server_forgets_requests(capsys: pytest.CaptureFixture[str]) -> None:
    task = asyncio.ensure_future(serve(make_parser().parse_args(["emulate"])))
    await asyncio.sleep(200)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert capsys.readouterr().out.startswith("Serving on http://127.0.0.1:")


@pytest.mark.parametrize("secret", [None, "whsec_Z2l2ZW4gc2VjcmV0"])
async def test_the_secret_of_webhooks_is_printed_only_if_it_was_made(
    capsys: pytest.CaptureFixture[str], secret: str | None
) -> None:
    given = [] if secret is None else ["--webhook-secret", secret]
    task = asyncio.ensure_future(
        serve(make_parser().parse_args(["emulate", "--webhook-url", "http://127.0.0.1:1/hooks", *given]))
    )
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"Webhooks are signed: export OPENAI_WEBHOOK_SECRET={'...' if secret else 'whsec_'}")
    assert secret is None or secret not in line


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--webhook-url", "ftp://x"], "webhook_url must begin with http:// or https://"),
        (["--webhook-url", "http://x", "--webhook-secret", "whsec_$"], "webhook_secret must be 'whsec_' and base64"),
        (["--webhook-secret", "whsec_abcd"], "webhook_secret has no effect without webhook_url"),
    ],
)
async def test_unusable_options_of_webhooks_are_2_and_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert await serve(make_parser().parse_args(["emulate", *options])) == 2
    assert capsys.readouterr().err == f"asyncruns: {complaint}\n"
