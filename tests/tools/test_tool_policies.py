"""The caller decides the output of a failed call, for each kind of failure."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from toolcalls import Hook, a_call, error_of

from asyncruns.errors import AsyncRunsError, CallNotAnsweredError, ConfigurationError, ToolError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import ConcurrencyLimit, InvalidArgumentsError, Toolset
from asyncruns.tools.policies import FailureKind


async def fail() -> None:
    raise ValueError("the password is hunter2")


async def hang() -> None:
    await asyncio.Event().wait()


async def take(days: int) -> None: ...


async def refuse() -> None:
    raise ToolError("Not on Sundays.")


TOOLS: list[Callable[..., Any]] = [fail, hang, take, refuse]
CASES = {
    "if_unknown_tool": (a_call("nothing"), LookupError, "There is no tool named nothing. The tools are: "),
    "if_invalid_arguments": (a_call("take", '{"days": "x"}'), InvalidArgumentsError, "Invalid arguments for take: "),
    "if_exception": (a_call("fail"), ValueError, "The tool fail failed."),
    "if_timeout": (a_call("hang"), TimeoutError, "The tool hang did not finish within 5 seconds."),
}
OBSERVED = ("if_exception", "if_timeout")
every_way = pytest.mark.parametrize("option", CASES)


def toolset(**options: Any) -> Toolset:
    return Toolset(TOOLS, timeout=5, **options)


def test_every_kind_of_failure_is_tested_here() -> None:  # `if_interrupted` is in tests/journal
    assert {kind.value for kind in FailureKind} == {*CASES, "a ToolError", "if_interrupted"}


@every_way
@pytest.mark.parametrize("is_explicit", [True, False], ids=["explicit", "default"])
async def test_by_default_the_model_reads_the_error(option: str, is_explicit: bool) -> None:
    call, _, message = CASES[option]
    hook = Hook()
    options: dict[str, Any] = {option: "tell"} if is_explicit else {}
    assert error_of(await toolset(on_error=hook, **options).call(call)).startswith(message)
    assert len(hook.errors) == (option in OBSERVED)


@every_way
async def test_a_call_is_surfaced_with_its_cause(option: str) -> None:
    call, kind, message = CASES[option]
    hook = Hook()
    with pytest.raises(CallNotAnsweredError) as caught:
        await toolset(on_error=hook, **{option: "surface"}).call(call)
    error = caught.value
    assert error.call is call
    assert type(error.__cause__) is kind
    assert f"{call.id!r} is left to the caller: {message}" in str(error)
    assert f'{option} is "surface"' in str(error)
    assert "hunter2" not in str(error)
    assert hook.errors == [error.__cause__] * (option in OBSERVED)


@every_way
async def test_one_policy_does_not_change_the_others(option: str) -> None:
    tools = toolset(**{option: "surface"})
    for other, (call, _, message) in CASES.items():
        if other != option:
            assert error_of(await tools.call(call)).startswith(message)


@every_way
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_a_policy_function_returns_the_output(option: str, is_async: bool) -> None:
    call, kind, _ = CASES[option]
    seen: list[tuple[Call, Exception]] = []

    def decide(call: Call, error: Exception) -> object:
        seen.append((call, error))
        return {"again": None}

    async def decide_later(call: Call, error: Exception) -> object:
        await asyncio.sleep(100)
        return decide(call, error)

    tools = toolset(**{option: decide_later if is_async else decide})
    assert await tools.call(call) == '{"again":null}'
    assert [(call, type(error)) for call, error in seen] == [(call, kind)]


class Stop(BaseException):
    pass


@every_way
@pytest.mark.parametrize("error", [RuntimeError("secret"), Stop("secret"), asyncio.CancelledError("secret")])
async def test_a_policy_function_that_raises_has_no_effect(
    option: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(call: Call, failure: Exception) -> object:
        raise error

    call, _, message = CASES[option]
    assert error_of(await toolset(**{option: decide}).call(call)).startswith(message)
    assert f"{option} failed" in caplog.text


async def test_a_tool_error_of_a_policy_function_is_sent_to_the_model() -> None:
    def decide(call: Call, failure: Exception) -> object:
        raise ToolError("Try tomorrow.")

    assert error_of(await toolset(if_exception=decide).call(a_call("fail"))) == "Try tomorrow."


@pytest.mark.parametrize("result", [object(), iter([1]), ["x", {1j}]])
async def test_a_policy_function_whose_result_cannot_be_encoded_has_no_effect(result: object) -> None:
    tools = toolset(if_exception=lambda call, error: result)
    assert error_of(await tools.call(a_call("fail"))) == "The tool fail failed."


async def test_the_output_of_a_policy_function_is_limited_as_any_output() -> None:
    tools = toolset(if_exception=lambda call, error: "x" * 101, max_output=100)
    assert "has 101 characters" in error_of(await tools.call(a_call("fail")))


async def test_the_model_always_reads_a_tool_error() -> None:
    def decide(call: Call, error: Exception) -> object:
        raise AssertionError("called for a ToolError")

    for policy in ("surface", decide):
        tools = toolset(**dict.fromkeys(CASES, policy))
        assert error_of(await tools.call(a_call("refuse"))) == "Not on Sundays."


async def test_the_model_reads_a_tool_error_at_the_timeout() -> None:
    tools = Toolset(timeout=5, if_timeout="surface")

    @tools.tool
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ToolError("The archive is slow today.") from None

    assert error_of(await tools.call(a_call("slow"))) == "The archive is slow today."


async def test_a_result_that_cannot_be_encoded_is_subject_to_the_policy_for_exceptions() -> None:
    tools = Toolset({"f": lambda: iter([1])}, if_exception="surface")
    with pytest.raises(CallNotAnsweredError) as caught:
        await tools.call(a_call("f"))
    assert isinstance(caught.value.__cause__, TypeError)


async def test_a_base_exception_is_wrapped_for_the_caller() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(CallNotAnsweredError) as caught:
        await Toolset([leave], if_exception="surface").call(a_call("leave"))
    cause = caught.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert isinstance(cause.__cause__, SystemExit)


async def test_a_policy_holds_no_place() -> None:
    tools = toolset(max_concurrency=1)
    limit = ConcurrencyLimit(1)
    deciding = asyncio.Event()

    async def decide(call: Call, error: Exception) -> str:
        deciding.set()
        await asyncio.sleep(100)
        return "decided"

    tools = toolset(max_concurrency=1, if_exception=decide)
    waiting = asyncio.ensure_future(tools.call(a_call("fail"), limit=limit))
    await deciding.wait()
    assert await tools.call(a_call("take", '{"days": 1}'), limit=limit) == "null"
    assert not waiting.done()
    assert await waiting == "decided"


@pytest.mark.parametrize("swallow", [True, False], ids=["swallows", "passes"])
async def test_a_policy_can_be_cancelled(swallow: bool) -> None:
    deciding = asyncio.Event()

    async def decide(call: Call, error: Exception) -> str:
        deciding.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallow:
                raise
        return "swallowed"

    task = asyncio.ensure_future(toolset(if_exception=decide).call(a_call("fail")))
    await deciding.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@every_way
@pytest.mark.parametrize("policy", ["ignore", "", None, True, 5])
def test_a_value_that_is_not_a_policy_is_refused(option: str, policy: Any) -> None:
    with pytest.raises(ConfigurationError, match=f'{option} must be "tell", "surface" or a function'):
        Toolset(**{option: policy})


def test_the_error_of_a_call_can_be_copied_and_pickled() -> None:
    error = CallNotAnsweredError("why", call=a_call("f"))
    assert isinstance(error, AsyncRunsError)
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(same, CallNotAnsweredError)
        assert str(same) == "why"
        assert same.call == a_call("f")
