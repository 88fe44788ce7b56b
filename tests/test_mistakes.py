"""Common first mistakes: the error comes at once, names the mistake, and says what to write."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
import openai
import pytest
from azure.ai.agents.models import ThreadRun as AzureRun
from openai.types.beta.threads import Run as OfficialRun
from openai.types.responses import Response as OfficialResponse

from asyncruns import (
    APIResponseValidationError,
    APIStatusError,
    BearerAuth,
    Client,
    ConfigurationError,
    Fleet,
    InvalidRequestError,
    NotFoundError,
    RunRef,
    RunWatcher,
    Toolset,
)
from asyncruns.abc import Transport
from asyncruns.cli import main
from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.testing import Emulator
from asyncruns.transport.auth import ApiKeyAuth
from asyncruns.wire import Thread


class Completing(Transport):
    """Returns any run, and any response, as completed."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request.path)
        body = {"id": request.path.rpartition("/")[2], "status": "completed", "thread_id": "thread_1", "output": []}
        return Response(200, {}, msgspec.json.encode(body))

    async def aclose(self) -> None:
        pass


@pytest.fixture
def transport() -> Completing:
    return Completing()


@pytest.fixture
def client(transport: Completing) -> Client:
    return Client(transport=transport)


async def by_client(client: Client, run: Any) -> Any:
    return await client.watch(run)


async def by_watcher(client: Client, run: Any) -> Any:
    async with RunWatcher(client, run) as watcher:
        return await watcher.wait()


async def by_fleet(client: Client, run: Any) -> Any:
    async with Fleet(client, on_exit="leave") as fleet:
        return await fleet.watch(run)


async def by_many(client: Client, run: Any) -> Any:
    async with Fleet(client) as fleet:
        await fleet.add_many([run])
        return await anext(aiter(fleet))


WAYS: Final = [by_client, by_watcher, by_fleet, by_many]
EVERY_WAY: Final = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
Way = Callable[[Client, Any], Any]


@EVERY_WAY
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_1", r"""thread_id="thread_\.\.\.", run_id='run_1'$"""),
        ("thread_1", r'client\.watch\(thread_id="thread_\.\.\.", run_id="run_\.\.\."\)$'),
        ("resp_1", r"client\.responses\.watch\('resp_1'\)"),
        ("", "got str ''"),
        ("abc", r"client\.watch\(thread_id=.*RunRef\('response', \(id,\)\)"),
    ],
)
async def test_a_string_is_refused_as_a_run(
    client: Client, transport: Completing, way: Way, text: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await way(client, text)
    assert transport.requests == []


@EVERY_WAY
async def test_none_is_refused_as_a_run(client: Client, transport: Completing, way: Way) -> None:
    with pytest.raises(InvalidRequestError, match=r"Expected.*got None: does the function"):
        await way(client, None)
    assert transport.requests == []


@EVERY_WAY
async def test_a_coroutine_that_was_not_awaited_is_named_and_closed(client: Client, way: Way) -> None:
    coroutine = client.threads.runs.retrieve("run_1", thread_id="thread_1")
    with pytest.raises(InvalidRequestError, match=r"retrieve\(\) was not awaited: write run = await \.\.\.retrieve\("):
        await way(client, coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    del coroutine
    gc.collect()  # a warning that it was never awaited would be an error here


@EVERY_WAY
async def test_a_future_or_a_list_must_be_awaited(client: Client, way: Way) -> None:
    future = asyncio.get_running_loop().create_future()
    for awaitable in (future, client.threads.runs.list("thread_1")):
        with pytest.raises(InvalidRequestError, match="must be awaited"):
            await way(client, awaitable)


@EVERY_WAY
@pytest.mark.parametrize("run", [5, {}, {"id": 5, "object": "response"}, {"id": "x"}, object(), ["run_1"]])
async def test_other_objects_are_refused_as_runs(client: Client, transport: Completing, way: Way, run: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"got {type(run).__name__}"):
        await way(client, run)
    assert transport.requests == []


FIELDS: Final = {"id": "run_1", "thread_id": "thread_1", "object": "thread.run", "status": "queued"}
OFFICIAL: Final = OfficialRun.construct(_fields_set=None, **FIELDS)


@EVERY_WAY
@pytest.mark.parametrize(
    "run",
    [
        OFFICIAL,
        AzureRun(FIELDS),
        FIELDS,
        {"id": "run_1", "thread_id": "thread_1"},
        OFFICIAL.to_dict(),
        AzureRun(FIELDS).as_dict(),
    ],
    ids=["openai", "azure", "dict", "dict of ids", "dict of openai", "dict of azure"],
)
async def test_a_run_of_another_client_is_identified_by_its_ids(
    client: Client, transport: Completing, way: Way, run: Any
) -> None:
    outcome = await way(client, run)
    assert (outcome.status, outcome.ref.ids) == ("completed", ("thread_1", "run_1"))
    assert transport.requests == ["/threads/thread_1/runs/run_1"]


@EVERY_WAY
@pytest.mark.parametrize(
    "response",
    [
        OfficialResponse.construct(id="resp_1", object="response", status="queued"),
        {"id": "resp_1", "object": "response"},
    ],
    ids=["openai", "dict"],
)
async def test_a_response_of_another_client_is_identified_by_its_id(
    client: Client, transport: Completing, way: Way, response: Any
) -> None:
    outcome = await way(client, response)
    assert (outcome.status, outcome.ref.ids) == ("completed", ("resp_1",))
    assert transport.requests == ["/responses/resp_1"]
    outcome = await by_watcher(client.responses.continued(), response)  # type: ignore[arg-type]
    assert outcome.ref.ids == ("resp_1",)


@EVERY_WAY
@pytest.mark.parametrize("word", ["thread.run", "thread_run", "threads", "runs", "assistants", "response", "responses"])
async def test_a_ref_accepts_every_name_of_its_dialect(client: Client, way: Way, word: str) -> None:
    is_response = word.startswith("response")
    outcome = await way(client, RunRef(word, ("resp_1",) if is_response else ("thread_1", "run_1")))
    assert outcome.ref.dialect == ("response" if is_response else "thread.run")


@EVERY_WAY
async def test_the_ids_of_a_ref_may_be_a_list(client: Client, way: Way) -> None:
    outcome = await way(client, RunRef("thread.run", ["thread_1", "run_1"]))  # type: ignore[arg-type]
    assert outcome.ref == RunRef("thread.run", ("thread_1", "run_1"))


@EVERY_WAY
@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (RunRef("thread.run", ("run_1", "thread_1")), "swapped"),
        (RunRef("thread.run", ("run_1",)), r"RunRef\('thread.run', \(thread_id, run_id\)\)"),
        (RunRef("response", "resp_1"), r"pass a tuple, as in RunRef\('response', \('resp_1',\)\)"),  # type: ignore[arg-type]
        (RunRef("langgraph", ("a", "b")), "langgraph"),
    ],
)
async def test_an_invalid_ref_is_refused_with_the_right_form(
    client: Client, way: Way, ref: RunRef, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await way(client, ref)


async def test_an_outcome_and_a_thread_are_refused_with_what_to_pass_instead(client: Client) -> None:
    outcome = await client.watch(thread_id="thread_1", run_id="run_1")
    for way in WAYS:
        with pytest.raises(InvalidRequestError, match="got Completed: pass its ref"):
            await way(client, outcome)
        with pytest.raises(InvalidRequestError, match="got Thread: a thread has many runs"):
            await way(client, Thread(id="thread_1"))


def test_a_key_with_the_word_bearer_is_refused() -> None:
    for key in ("Bearer sk-hidden", "bearer sk-hidden"):
        with pytest.raises(ConfigurationError, match="pass only the key") as raised:
            Client("https://host.example/v1", api_key=key)
        assert "hidden" not in str(raised.value)


async def test_swapped_ids_are_refused(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="swapped: thread_id is 'run_1'"):
        await client.watch(thread_id="run_1", run_id="thread_1")
    with pytest.raises(InvalidRequestError, match="swapped"):
        RunWatcher(client, thread_id="run_1", run_id="thread_1")
    async with Fleet(client) as fleet:
        with pytest.raises(InvalidRequestError, match="swapped"):
            fleet.watch(thread_id="run_1", run_id="thread_1")


async def test_the_id_of_a_run_is_refused_for_a_response(client: Client) -> None:
    for text in ("run_1", "thread_1"):
        with pytest.raises(InvalidRequestError, match="thread_id="):
            await client.responses.watch(text)


async def test_an_argument_that_is_no_iterable_of_runs_is_refused(client: Client) -> None:
    async with Fleet(client) as fleet:
        for runs in ("run_1", b"run_1", {"id": "run_1"}, 5, RunRef("response", ("resp_1",))):
            with pytest.raises(InvalidRequestError, match=r"add_many takes an iterable of runs; got"):
                await fleet.add_many(runs)  # type: ignore[arg-type]


def test_another_librarys_client_is_refused() -> None:
    for theirs in (openai.OpenAI(api_key="x"), openai.AsyncOpenAI(api_key="x"), "https://host.example/v1", None):
        name = type(theirs).__name__
        with pytest.raises(InvalidRequestError, match=rf"client of asyncruns first; got {name}.*asyncruns\.Client\("):
            RunWatcher(theirs, thread_id="thread_1", run_id="run_1")  # type: ignore[call-overload]
        with pytest.raises(InvalidRequestError, match=rf"client of asyncruns first; got {name}.*asyncruns\.Client\("):
            Fleet(theirs)  # type: ignore[arg-type]


def test_a_client_of_ones_own_that_lacks_something_is_refused_with_what_it_lacks(client: Client) -> None:
    class JobClient:
        transport = client.transport

    lacking: Any = JobClient()
    for make in (Fleet, lambda given: RunWatcher(given, thread_id="thread_1", run_id="run_1")):
        with pytest.raises(InvalidRequestError, match=r"^JobClient lacks dialect and answer: a client has"):
            make(lacking)


@pytest.mark.parametrize("key", ["", " ", "\n", "\t "], ids=repr)
def test_an_empty_key_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (
        lambda: Client("https://host.example/v1", api_key=key),
        lambda: BearerAuth(key),
        lambda: ApiKeyAuth(key),
    ):
        with pytest.raises(ConfigurationError, match=r"non-empty string.*environment variable"):
            make()
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", "https://host.example/v1")
    monkeypatch.setenv("ASYNCRUNS_API_KEY", key)
    with pytest.raises(ConfigurationError, match="ASYNCRUNS_API_KEY is empty"):
        Client.from_env()


async def test_for_without_async_is_explained(client: Client, emulator: Emulator) -> None:
    things: list[Any] = [
        client.threads.runs.list("thread_1"),
        RunWatcher(client, thread_id="thread_1", run_id="run_1"),
        Fleet(client),
    ]
    async with Fleet(client) as fleet, Client(emulator.base_url) as real:
        things.append(fleet.watch(thread_id="thread_1", run_id="run_1"))
        stream = await real.responses.create(model="gpt-test", input="Hi", stream=True)
        things.append(stream)
        for thing in things:
            with pytest.raises(TypeError, match="`async for` instead of `for`"):
                list(thing)
        await stream.close()


def test_with_without_async_is_explained(client: Client) -> None:
    things: list[Any] = [
        client,
        Emulator(),
        Fleet(client),
        RunWatcher(client, thread_id="thread_1", run_id="run_1"),
        client.threads.runs.stream(thread_id="thread_1", assistant_id="asst_1"),
    ]
    for thing in things:
        with pytest.raises(TypeError, match="`async with` instead of `with`"), thing:
            pass


def test_a_list_that_was_not_awaited_is_explained(client: Client) -> None:
    listed: Any = client.threads.runs.list("thread_1")
    with pytest.raises(AttributeError, match=r"no 'data': await it first, or iterate with `async for`"):
        _ = listed.data
    with pytest.raises(AttributeError, match=r"no 'other'$"):
        _ = listed.other


async def test_a_misspelt_option_is_refused_with_a_suggestion(client: Client) -> None:
    ids: Any = {"thread_id": "thread_1", "run_id": "run_1"}
    async with Fleet(client) as fleet:
        with pytest.raises(InvalidRequestError, match="did you mean 'timeout'"):
            fleet.watch(**ids, timout=5)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="did you mean 'on_status'"):
        Fleet(client, on_statuss=print)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'instructions'"):
        await client.threads.runs.create("thread_1", assistant_id="asst_1", instruction="x")  # type: ignore[call-overload]


async def test_a_parameter_of_the_run_is_not_taken_for_an_option(client: Client, transport: Completing) -> None:
    assistant: Any = {"assistant_id": "asst_1", "message": "Hi"}
    model: Any = {"model": "gpt-test", "message": "Hi"}
    run: Any = client.run
    for given, name in ((assistant, "instructions"), (assistant, "tool_choice"), (model, "instructions")):
        right = rf"client\.run has no option '{name}'; it is a parameter.*pass parameters=\{{\"{name}\": \.\.\.\}}\."
        with pytest.raises(InvalidRequestError, match=right):
            await run(**given, **{name: "x"})
    with pytest.raises(InvalidRequestError, match=r'pass parameters=\{"model": \.\.\.\}'):
        await client.run(**assistant, model="gpt-test")
    assert transport.requests == []


async def test_an_option_of_the_fleet_is_known_as_such(client: Client) -> None:
    wrong: Any = {"request_per_second": 5}
    with pytest.raises(InvalidRequestError, match=r"This fleet has .*'requests_per_second'\? Its options are requests"):
        Fleet(client, **wrong)
    wrong = {"on_outcom": print}
    with pytest.raises(InvalidRequestError, match="did you mean 'on_outcome'"):
        Fleet(client, **wrong)
    wrong = {"on_outcome": [print]}
    with pytest.raises(InvalidRequestError, match="on_outcome must be a function of the outcome; got list"):
        Fleet(client, **wrong)
    ids: Any = {"thread_id": "thread_1", "run_id": "run_1"}
    async with Fleet(client) as fleet:
        watch: Any = fleet.watch
        for name in ("on_exit", "requests_per_second"):
            with pytest.raises(InvalidRequestError, match=f"no option '{name}'; that is an option of the fleet"):
                watch(**ids, **{name: "x"})


def get_weather(city: str) -> str:
    """Weather of a city."""
    return city


async def test_tools_that_are_no_definitions_are_refused_with_what_to_pass(client: Client) -> None:
    wrong: Any
    for wrong, made in ((Toolset([get_weather]), "tools"), ([get_weather], r"Toolset\(\[get_weather\]\)")):
        right = rf'takes definitions: pass {made}\.definitions\(\), .*{made}\.definitions\(wire="responses"\)$'
        with pytest.raises(InvalidRequestError, match=right):
            await client.assistants.create(model="gpt-test", tools=wrong)
        with pytest.raises(InvalidRequestError, match=right):
            await client.responses.create(model="gpt-test", tools=wrong)


async def test_definitions_for_the_other_api_are_named_as_such(emulator: Emulator) -> None:
    tools = Toolset([get_weather])
    async with Client(emulator.base_url) as client:
        with pytest.raises(APIStatusError, match=r'for threads: pass tools\.definitions\(wire="responses"\)\.$'):
            await client.responses.create(model="gpt-test", input="Hi", tools=tools.definitions())
        with pytest.raises(APIStatusError, match=r"definitions for responses: pass tools\.definitions\(\)\.$"):
            await client.assistants.create(model="gpt-test", tools=tools.definitions(wire="responses"))
        nameless = {"type": "function", "function": {"description": "x"}}
        with pytest.raises(APIStatusError) as caught:
            await client.assistants.create(model="gpt-test", tools=[nameless])
    assert "definitions for" not in str(caught.value)


def test_definitions_accept_every_name_of_a_wire() -> None:
    tools = Toolset({"f": lambda: None})
    for word in ("threads", "thread.run", "thread_run", "runs", "assistants"):
        assert tools.definitions(wire=word) == tools.definitions()  # type: ignore[arg-type]
    for word in ("responses", "response"):
        assert tools.definitions(wire=word) == tools.definitions(wire="responses")  # type: ignore[arg-type]
    for wrong in ("chat", "", None, 5):
        with pytest.raises(ConfigurationError, match='wire must be "threads" or "responses"'):
            tools.definitions(wire=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [("thread_1",), ("run_1",)])
def test_a_single_id_that_is_no_response_is_refused_on_the_command_line(
    ids: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", *ids, "--base-url", "http://127.0.0.1:9/v1"]) == 2
    assert "asyncruns watch THREAD_ID RUN_ID" in capsys.readouterr().err


@pytest.mark.parametrize("session", ["http", object(), aiohttp.ClientSession], ids=["text", "object", "class"])
def test_an_object_that_is_no_session_is_refused(session: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"session must be an aiohttp\.ClientSession"):
        Client("https://host.example/v1", session=session)


# Base URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("host.example/v1", "lacks http:// or https://"),
        ("localhost:8000/v1", "lacks http:// or https://"),
        ("127.0.0.1:8000", "lacks http:// or https://"),
        ("https://host.example/v1/responses", "ends with the endpoint /responses"),
        ("https://host.example/v1/threads/", "ends with the endpoint /threads"),
        ("https://host.example/v1/threads/thread_1/runs", "ends with the endpoint /threads/thread_1/runs"),
        ("https://host.example/openai/v1/chat/completions", "ends with the endpoint /chat/completions"),
    ],
)
def test_an_invalid_base_url_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Client(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/v1",
        "https://host.example/v1/",
        "https://host.example",
        "https://host.example/responses/v1",
        "https://host.example/v1/threads/v2",
        "https://gateway.example/v1/assistants/openai",
        "https://gateway.example/v1/responses/proxy",
        "https://host.services.ai.azure.com/api/projects/responses",
    ],
)
def test_a_plausible_base_url_is_accepted(url: str) -> None:
    assert Client(url).base_url == url.rstrip("/")


def test_a_key_in_place_of_the_url_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Client("sk-hidden")
    assert "sk-hidden" not in str(raised.value)
    assert "lacks" not in str(raised.value)


GET: Final = Request("GET", "/threads/thread_1/runs/run_1")
NO_PATHS: Final = [
    (404, b"<html>Not Found</html>"),
    (404, b'{"detail":"Not Found"}'),
    (404, b""),
    (405, b'{"detail":"Method Not Allowed"}'),
    (404, b"Cannot GET /threads/thread_1/runs/run_1"),
    (404, b'{"error":{"message":"Unknown request URL"}}'),
]


@pytest.mark.parametrize("dialect", [ThreadRunDialect(), ResponsesDialect()], ids=["threads", "responses"])
@pytest.mark.parametrize(("status", "body"), NO_PATHS)
def test_a_404_below_a_base_url_without_a_version_suggests_v1(dialect: Any, status: int, body: bytes) -> None:
    response = Response(status, {}, body, base_url="https://host.example/api")
    cause = dialect.refusal(GET, response).cause
    assert 'try base_url="https://host.example/api/v1"' in str(cause)


def test_a_404_of_a_server_that_knows_the_path_suggests_nothing() -> None:
    body = b'{"error":{"message":"No run found with id run_1."}}'
    for url, answer in (
        ("https://host.example/api", body),
        ("https://host.example/v1", b""),
        ("https://x.services.ai.azure.com/api/projects/p", b""),
        ("", b""),
    ):
        cause = ThreadRunDialect().refusal(GET, Response(404, {}, answer, base_url=url)).cause
        assert "try base_url" not in str(cause)
        assert "Check the id" in str(cause)


async def test_an_emulator_without_v1_in_its_url_suggests_v1(emulator: Emulator) -> None:
    url = emulator.base_url.removesuffix("/v1")
    async with Client(url) as client:
        with pytest.raises(NotFoundError, match=rf'try base_url="{url}/v1"'):
            await client.threads.create()
        with pytest.raises(NotFoundError, match=rf'try base_url="{url}/v1"'):
            await client.responses.retrieve("resp_1")


def test_a_web_page_instead_of_json_suggests_v1() -> None:
    response = Response(200, {"content-type": "text/html"}, b"<html>", base_url="https://host.example")
    with pytest.raises(APIResponseValidationError, match=r'try base_url="https://host\.example/v1"'):
        ThreadRunDialect().read(GET, response)
