"""Calling tools: there is an output, whatever the model or a tool does wrong."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, assert_type

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toolcalls import Hook, a_call, error_of, output_of

from asyncruns.errors import ConfigurationError, ToolError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import Toolset
from asyncruns.tools import worker_threads as threads


class Weather(msgspec.Struct):
    city: str
    degrees: float


async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> Weather:
    """Return the weather
    in a city.

    More text, which the model does not read.
    """
    return Weather(city, 20.0 if unit == "c" else 68.0)


def add(a: int, b: int = 1) -> int:
    return a + b


# Registration


def test_tools_are_added_by_decorator_by_mapping_and_by_list() -> None:
    tools = Toolset()

    @tools.tool
    def one() -> None: ...

    @tools.tool(name="second")
    def two() -> None: ...

    assert tools.names == ("one", "second")
    assert Toolset({"x": add}).names == ("x",)
    assert Toolset([add, get_weather]).names == ("add", "get_weather")
    assert len(tools) == 2
    assert "second" in tools
    assert "two" not in tools


async def test_the_decorator_returns_the_function_with_its_type() -> None:
    tools = Toolset()
    assert tools.tool(add) is add
    assert tools.tool(name="other")(add) is add
    assert_type(tools.tool(name="third")(add)(1), int)
    assert_type(await tools.tool(get_weather)("Oslo", unit="f"), Weather)


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="already a tool named add"):
        Toolset([add, add])


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "x" * 65, "a\n"])
def test_a_name_that_the_api_refuses_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a tool"):
        Toolset({name: add})


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="name="):
        Toolset([lambda: 1])


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ([None], "The tool at position 0 must be a function or another callable; it is None."),
        ([add, 5], "The tool at position 1 must be a function or another callable; it is of the type int."),
        ({"a": 1}, "The tool 'a' must be a function or another callable; it is of the type int."),
        ({"a": None}, "The tool 'a' must be a function or another callable; it is None."),
        ({1: add}, "The name of a tool must be a string, not 1."),
        ("abc", "A toolset cannot be made from a value of the type str."),
        (b"abc", "A toolset cannot be made from a value of the type bytes."),
        (add, "A toolset cannot be made from a value of the type function."),
        (None, "A toolset cannot be made from a value of the type NoneType."),
        (Toolset(), "A toolset cannot be made from a value of the type Toolset."),
    ],
)
def test_a_value_that_is_not_a_function_is_refused(functions: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Toolset(functions)
    assert str(caught.value).startswith(expected)


def test_a_name_passed_to_the_decorator_by_position_is_refused() -> None:
    name: Any = "weather"
    with pytest.raises(ConfigurationError, match=r"A tool must be a function .* of the type str"):
        Toolset().tool(name)


class Lamp:
    def switch(self, on: bool) -> str:
        return f"{self.name()} {on}"

    @classmethod
    def name(cls) -> str:
        return cls.__name__

    @staticmethod
    def price(count: int) -> int:
        return 5 * count


def test_a_method_needs_its_object() -> None:
    tools = Toolset()
    with pytest.raises(ConfigurationError, match=r"The tool poll is a method without its object: .*'self'.*bound"):

        class Robot:
            @tools.tool
            def poll(self, where: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'cls'.*bound"):

        class Maker:
            @classmethod
            @tools.tool
            def make(cls, what: str) -> None: ...

    unbound: Any = vars(Lamp)["name"]
    with pytest.raises(ConfigurationError, match=r"of the type classmethod.*bound method"):
        tools.tool(unbound)
    assert tools.names == ()


async def test_bound_methods_can_be_tools() -> None:
    lamp = Lamp()
    tools = Toolset([lamp.switch, Lamp.name, Lamp.price])
    tools.tool(functools.partial(Lamp.switch, lamp), name="bound")
    tools.tool(functools.partial(Lamp.switch, self=lamp), name="named")
    assert await tools.call(a_call("switch", '{"on": true}')) == "Lamp True"
    assert await tools.call(a_call("name")) == "Lamp"
    assert await tools.call(a_call("price", '{"count": 2}')) == "10"
    assert await tools.call(a_call("bound", '{"on": false}')) == "Lamp False"
    assert await tools.call(a_call("named", '{"on": false}')) == "Lamp False"


@pytest.mark.parametrize("options", [{"timeout": "5"}, {"max_concurrency": [1]}, {"max_output": "many"}])
def test_a_value_that_is_not_a_number_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="more than 0"):
        Toolset(**options)


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    hook: Any = 5
    with pytest.raises(ConfigurationError, match="on_error must be a function"):
        Toolset(on_error=hook)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_concurrency": 0}, {"max_output": -1}])
def test_numbers_that_are_not_positive_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="more than 0"):
        Toolset(**options)
    with pytest.raises(ConfigurationError, match="timeout must be more than 0"):
        Toolset().tool(add, timeout=-1)


async def test_repr_shows_the_names_and_the_running_calls() -> None:
    seen: list[str] = []
    tools = Toolset([get_weather, add])

    @tools.tool
    async def poll() -> None:
        seen.append(repr(tools))

    assert repr(Toolset()) == "<Toolset empty; 0 running>"
    await tools.call(a_call("poll"))
    assert seen == ["<Toolset get_weather, add, poll; 1 running>"]
    assert repr(tools) == "<Toolset get_weather, add, poll; 0 running>"


def test_definitions_have_the_format_of_the_api() -> None:
    tools = Toolset([get_weather])
    assert tools.definitions() == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Return the weather in a city.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"], "default": "c"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        }
    ]
    tools.definitions()[0]["function"]["parameters"].clear()
    assert tools.definitions()[0]["function"]["parameters"]


def test_definitions_for_responses_are_flat_and_state_whether_they_are_strict() -> None:
    tools = Toolset([get_weather])
    tools.tool(add, description="Adds.", strict=True)
    loose, strict = tools.definitions(wire="responses")
    function = tools.definitions()[0]["function"]
    assert loose == {"type": "function", **function, "strict": False}
    assert list(loose) == ["type", "name", "description", "parameters", "strict"]
    assert strict == {"type": "function", **tools.definitions("threads")[1]["function"]}
    assert (strict["strict"], strict["parameters"]["required"]) == (True, ["a", "b"])
    loose["parameters"].clear()
    assert tools.definitions("responses")[0]["parameters"]


def test_definitions_for_another_api_are_refused() -> None:
    wrong: Any = "chat"
    with pytest.raises(ConfigurationError, match='wire must be "threads" or "responses"; got \'chat\''):
        Toolset().definitions(wrong)


def test_a_function_without_a_docstring_has_no_description() -> None:
    assert "description" not in Toolset([add]).definitions()[0]["function"]


def test_an_explicit_description_and_strict_are_in_the_definition() -> None:
    tools = Toolset()
    tools.tool(add, description="Adds.", strict=True)
    function = tools.definitions()[0]["function"]
    assert function["description"] == "Adds."
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["a", "b"]


# Good calls


async def test_the_results_of_async_and_sync_tools_are_the_outputs() -> None:
    tools = Toolset([get_weather, add])
    assert await tools.call(a_call("get_weather", '{"city": "Paris"}')) == '{"city":"Paris","degrees":20.0}'
    assert await tools.call(a_call("add", '{"a": 2, "b": 3}')) == "5"


@pytest.mark.parametrize("arguments", ["", "  \n", "null", " null ", "{}"])
async def test_no_arguments_come_in_many_forms(arguments: str) -> None:
    assert await output_of(lambda: "done", arguments) == "done"


async def test_an_async_tool_runs_in_the_loops_thread_with_the_context_of_the_caller() -> None:
    user = contextvars.ContextVar("user", default="nobody")

    async def who() -> str:
        return f"{user.get()} {threading.current_thread() is thread}"

    thread = threading.current_thread()
    user.set("me")
    assert await output_of(who) == "me True"


async def test_a_sync_tool_runs_in_a_thread_of_its_name_and_sees_context_variables() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("r1")
    assert await output_of(lambda: [threading.current_thread().name, request.get()]) == '["asyncruns-tool-f","r1"]'


async def test_an_awaitable_returned_by_a_sync_tool_is_awaited() -> None:
    assert await output_of(lambda: get_weather("Rome"), "") == '{"city":"Rome","degrees":20.0}'


# Mistakes of the model


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": 5}', "Expected `str`, got `int` - at `$.city`"),
        ("{}", "missing required field `city`"),
        ('{"city": "x", "town": 1}', "unknown field `town`"),
        ('{"city": "x", "unit": "k"}', "$.unit"),
        ("[1]", "Expected `object`, got `array`"),
        ('"x"', "Expected `object`, got `str`"),
        ('{"city": ', "truncated"),
        ("city=Paris", "malformed"),
        ('{"city": "\ud800"', "truncated"),
    ],
)
async def test_invalid_arguments_are_reported_to_the_model_only(arguments: str, expected: str) -> None:
    hook = Hook()
    tools = Toolset([get_weather], on_error=hook)
    message = error_of(await tools.call(a_call("get_weather", arguments)))
    assert message.startswith("Invalid arguments for get_weather: ")
    assert expected in message
    assert hook.errors == []


async def test_arguments_nested_too_deeply_are_reported_to_the_model() -> None:
    def f(x: Any) -> None: ...

    message = error_of(await output_of(f, '{"x": ' + "[" * 100_000))
    assert message.startswith("Invalid arguments for f: maximum recursion depth exceeded")


@pytest.mark.parametrize("name", ["weather", "multi_tool_use.parallel", "", "\ud800"])
async def test_a_call_of_an_unknown_tool_is_answered_with_the_names_that_exist(name: str) -> None:
    message = error_of(await Toolset([get_weather, add]).call(a_call(name)))
    assert message.startswith("There is no tool named ")
    assert message.endswith(". The tools are: get_weather, add.")
    assert "There are no tools." in error_of(await Toolset().call(a_call(name)))


async def test_a_huge_unknown_name_is_not_repeated_to_the_model() -> None:
    assert len(await Toolset().call(a_call("x" * 1_000_000))) < 200


@given(st.text(), st.text())
def test_any_text_as_arguments_gives_an_output(name: str, arguments: str) -> None:
    _check_that_there_is_an_output(name, arguments)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["city", "unit"]), inner),
)


@given(JSON)
def test_any_json_as_arguments_gives_an_output(value: object) -> None:
    _check_that_there_is_an_output("get_weather", json.dumps(value))


def _check_that_there_is_an_output(name: str, arguments: str) -> None:
    tools = Toolset([get_weather])

    async def both() -> list[str]:
        return [await tools.call(a_call(name, arguments)), await tools.call(a_call("get_weather", arguments))]

    for output in asyncio.run(both()):
        assert type(output) is str
        output.encode()


# Failures of tools


class Secret(BaseException):
    pass


def raiser(error: BaseException) -> tuple[Callable[[], Any], Callable[[], Any]]:
    async def in_the_loop() -> None:
        raise error

    def in_a_thread() -> None:
        raise error

    return in_the_loop, in_a_thread


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the password is hunter2"),
        TimeoutError(),
        SystemExit(3),
        asyncio.CancelledError(),
        Secret(),
        StopIteration(),
        BaseExceptionGroup("hunter2", [Secret()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", [0, 1], ids=["loop", "thread"])
async def test_an_exception_is_passed_to_the_hook_and_not_shown_to_the_model(
    error: BaseException, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook()
    output = await output_of(raiser(error)[where], on_error=hook, timeout=60)
    assert error_of(output) == "The tool f failed."
    [reported] = hook.errors
    chain: list[BaseException | None] = [
        reported,
        reported.__cause__,
        reported.__cause__ and reported.__cause__.__cause__,
    ]
    assert error in chain
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].exc_info


async def test_a_keyboard_interrupt_in_a_thread_is_a_failure() -> None:
    hook = Hook()
    assert error_of(await output_of(raiser(KeyboardInterrupt())[1], on_error=hook)) == "The tool f failed."
    assert isinstance(hook.errors[0].__cause__, KeyboardInterrupt)


@pytest.mark.parametrize("where", [0, 1], ids=["loop", "thread"])
async def test_the_text_of_a_tool_error_is_what_the_model_reads(where: int, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook()
    error = ToolError("No such city: \ud800x")
    caplog.set_level(logging.INFO)
    assert error_of(await output_of(raiser(error)[where], on_error=hook)) == "No such city: \ufffdx"
    assert hook.errors == [error]
    assert hook.calls == [a_call("f")]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncruns.tools", logging.INFO)
    assert record.getMessage() == "A ToolError at the call 'call_1' of f"
    assert vars(record)["tool_call_id"] == "call_1"
    assert error_of(await output_of(raiser(ToolError())[where])) == "The tool f failed."


async def test_a_hook_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def hook(call: Call, error: Exception) -> None:
        raise RuntimeError("the hook is broken")

    assert error_of(await output_of(raiser(ValueError())[0], on_error=hook)) == "The tool f failed."
    assert "on_error raised" in caplog.text


async def test_a_result_without_json_is_a_failure() -> None:
    hook = Hook()
    assert error_of(await output_of(lambda: iter([1]), on_error=hook)) == "The tool f failed."
    assert isinstance(hook.errors[0], TypeError)


class Broken(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")
        raise LookupError("hunter2")


def take(broken: Broken) -> None: ...


async def test_the_model_reads_the_error_of_an_arguments_check_but_not_a_bug_in_it() -> None:
    assert "x is negative - at `$.broken`" in error_of(await output_of(take, '{"broken": {"x": -1}}'))
    assert error_of(await output_of(take, '{"broken": {"x": 1}}')) == "The tool f failed."


@pytest.mark.parametrize("value", [10**5000, [10**5000], {1j}, {"a": object()}], ids=lambda value: type(value).__name__)
async def test_a_result_that_cannot_be_encoded_is_a_failure(value: object) -> None:
    assert error_of(await output_of(lambda: value)) == "The tool f failed."


async def test_an_output_that_is_too_long_is_replaced_by_an_error_with_the_limit() -> None:
    assert await output_of(lambda: "x" * 100, max_output=100) == "x" * 100
    message = error_of(await output_of(lambda: "x" * 101, max_output=100))
    assert message == "The output of f has 101 characters, which is more than the limit of 100. Ask for less."


# Time


async def test_a_tool_that_hangs_is_timed_out() -> None:
    hook = Hook()
    tools = Toolset(timeout=5, on_error=hook)

    @tools.tool(timeout=0.01)
    async def hang() -> None:
        await asyncio.Event().wait()

    assert error_of(await tools.call(a_call("hang"))) == "The tool hang did not finish within 0.01 seconds."
    assert isinstance(hook.errors[0], TimeoutError)


async def test_a_tool_whose_cleanup_fails_at_the_timeout_is_timed_out() -> None:
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("cleanup")

    assert "did not finish within 0.01 seconds" in error_of(await output_of(hang, timeout=0.01))


async def test_a_sync_tool_that_hangs_is_abandoned_and_counted_until_it_ends() -> None:
    release = threading.Event()
    hanging: list[threading.Thread] = []

    def hang() -> str:
        hanging.append(threading.current_thread())
        release.wait(5)
        return "late"

    before = threads.running()
    assert "did not finish within 0.02 seconds" in error_of(await output_of(hang, timeout=0.02))
    assert threads.running() == before + 1
    release.set()
    hanging[0].join(5)
    assert threads.running() == before


async def test_a_tools_own_timeout_replaces_that_of_the_toolset() -> None:
    tools = Toolset(timeout=0.01)

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "done"

    tools.tool(slow, name="forever", timeout=None)
    tools.tool(slow, name="default")
    assert await tools.call(a_call("forever")) == "done"
    assert "did not finish" in await tools.call(a_call("default"))


async def test_the_timeout_does_not_include_queueing() -> None:
    tools = Toolset(max_concurrency=1, timeout=0.2)

    @tools.tool
    async def slow() -> str:
        await asyncio.sleep(0.08)
        return "done"

    assert await asyncio.gather(*(tools.call(a_call("slow")) for _ in range(4))) == ["done"] * 4


@pytest.mark.parametrize(("max_concurrency", "most"), [(2, 2), (None, 6)])
async def test_calls_are_limited(max_concurrency: int | None, most: int) -> None:
    tools = Toolset(max_concurrency=max_concurrency)
    running = [0]
    seen: list[int] = []

    @tools.tool
    async def work() -> None:
        running[0] += 1
        seen.append(running[0])
        await asyncio.sleep(0.001)
        running[0] -= 1

    await asyncio.gather(*(tools.call(a_call("work")) for _ in range(6)))
    assert max(seen) == most


# Cancellation


async def test_cancelling_the_caller_cancels_the_tool() -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.ensure_future(output_of(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


@pytest.mark.parametrize("swallow", [True, False], ids=["returns", "raises"])
async def test_a_tool_cannot_swallow_our_cancellation(swallow: bool) -> None:
    started = asyncio.Event()

    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallow:
                raise ValueError("cleanup") from None
        return "done"

    task = asyncio.ensure_future(output_of(stubborn))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_queued_call_that_is_cancelled_takes_no_place() -> None:
    tools = Toolset(max_concurrency=1)
    release = asyncio.Event()

    @tools.tool
    async def work() -> str:
        await release.wait()
        return "done"

    first, second, third = (asyncio.ensure_future(tools.call(a_call("work"))) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    assert [await first, await third] == ["done", "done"]
    assert second.cancelled()
    assert repr(tools) == "<Toolset work; 0 running>"
