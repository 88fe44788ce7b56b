"""A tool that needs approval never runs without it, and only True approves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from toolcalls import Hook, a_call, error_of

from asyncruns.errors import CallNotAnsweredError, ConfigurationError, ToolError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import Approve, ConcurrencyLimit, Toolset


class Basket(msgspec.Struct):
    items: list[str]


class Shop:
    """A tool that records its calls."""

    def __init__(self) -> None:
        self.bought: list[Any] = []

    async def buy(self, basket: Basket, times: int = 1) -> str:
        self.bought.append((basket.items, times))
        return "bought"


BUY = a_call("buy", '{"basket": {"items": ["tea"]}}')


@pytest.fixture
def shop() -> Shop:
    return Shop()


def with_answer(answer: Any, *, is_async: bool = False) -> Approve:
    async def later(call: Call, arguments: dict[str, Any]) -> Any:
        await asyncio.sleep(1000)
        return answer

    def at_once(call: Call, arguments: dict[str, Any]) -> Any:
        return answer

    return later if is_async else at_once


both = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])


@both
async def test_an_approved_call_is_executed(shop: Shop, is_async: bool) -> None:
    assert await Toolset([shop.buy], approve=with_answer(True, is_async=is_async)).call(BUY) == "bought"
    assert shop.bought == [(["tea"], 1)]


@both
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (False, "The call was refused."),
        ("", "The call was refused."),
        ("Too dear.", "Too dear."),
        ("True", "True"),
        ("\ud800!", "\ufffd!"),
    ],
)
async def test_a_refused_call_is_answered_and_not_executed(
    shop: Shop, is_async: bool, answer: object, message: str
) -> None:
    hook = Hook()
    tools = Toolset([shop.buy], approve=with_answer(answer, is_async=is_async), on_error=hook, if_exception="surface")
    assert error_of(await tools.call(BUY)) == message
    assert shop.bought == []
    assert hook.errors == []


@both
@pytest.mark.parametrize("answer", [None, 1, 0, {"approved": True}, [True], object(), msgspec.UNSET])
async def test_only_true_approves(shop: Shop, is_async: bool, answer: object) -> None:
    hook = Hook()
    tools = Toolset([shop.buy], approve=with_answer(answer, is_async=is_async), on_error=hook)
    assert error_of(await tools.call(BUY)) == "The call of buy could not be approved."
    assert shop.bought == []
    assert isinstance(hook.errors[0], TypeError)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("hunter2"), Stop("hunter2"), asyncio.CancelledError("hunter2")])
async def test_an_approval_that_raises_does_not_approve(shop: Shop, error: BaseException) -> None:
    async def approve(call: Call, arguments: dict[str, Any]) -> bool:
        raise error

    hook = Hook()
    output = await Toolset([shop.buy], approve=approve, on_error=hook).call(BUY)
    assert error_of(output) == "The call of buy could not be approved."
    assert error in (hook.errors[0], hook.errors[0].__cause__)
    with pytest.raises(CallNotAnsweredError) as caught:
        await Toolset([shop.buy], approve=approve, if_exception="surface").call(BUY)
    assert error in (caught.value.__cause__, caught.value.__cause__ and caught.value.__cause__.__cause__)
    assert await Toolset([shop.buy], approve=approve, if_exception=lambda call, error: 5).call(BUY) == "5"
    assert shop.bought == []


async def test_a_tool_error_of_an_approval_is_sent_to_the_model(shop: Shop) -> None:
    def approve(call: Call, arguments: dict[str, Any]) -> bool:
        raise ToolError("Nobody is in the office.")

    output = await Toolset([shop.buy], approve=approve, if_exception="surface").call(BUY)
    assert error_of(output) == "Nobody is in the office."
    assert shop.bought == []


async def test_an_approval_receives_the_call_and_the_validated_arguments(shop: Shop) -> None:
    seen: list[object] = []

    def approve(call: Call, arguments: dict[str, Any]) -> bool:
        seen.extend((call, dict(arguments)))
        return True

    await Toolset([shop.buy], approve=approve).call(BUY)
    assert seen == [BUY, {"basket": Basket(["tea"])}]


async def test_an_approval_cannot_change_the_arguments_of_the_tool(shop: Shop) -> None:
    def approve(call: Call, arguments: dict[str, Any]) -> bool:
        arguments["basket"].items.append("a yacht")
        arguments["times"] = 100
        return True

    await Toolset([shop.buy], approve=approve).call(BUY)
    assert shop.bought == [(["tea"], 1)]


@pytest.mark.parametrize("call", [a_call("buy", "{"), a_call("buy", '{"basket": 1}'), a_call("sell")])
async def test_an_invalid_call_is_not_submitted_for_approval(shop: Shop, call: Call) -> None:
    seen: list[Call] = []

    def approve(call: Call, arguments: dict[str, Any]) -> bool:
        seen.append(call)
        return True

    error_of(await Toolset([shop.buy], approve=approve).call(call))
    assert seen == []


async def test_a_tools_own_approval_replaces_that_of_the_toolset() -> None:
    tools = Toolset(approve=with_answer("by the toolset"))
    tools.tool(lambda: 1, name="inherits")
    tools.tool(lambda: 2, name="own", approve=with_answer("by the tool"))
    tools.tool(lambda: 3, name="free", approve=None)

    @tools.tool(name="decorated", approve=with_answer(True))
    def decorated() -> int:
        return 4

    assert error_of(await tools.call(a_call("inherits"))) == "by the toolset"
    assert error_of(await tools.call(a_call("own"))) == "by the tool"
    assert await tools.call(a_call("free")) == "3"
    assert await tools.call(a_call("decorated")) == "4"


async def test_an_approval_holds_no_place_and_does_not_count_towards_the_timeout(shop: Shop) -> None:
    limit = ConcurrencyLimit(1)
    seen: list[str] = []

    async def approve(call: Call, arguments: dict[str, Any]) -> bool:
        seen.append(call.id)
        assert limit.running == 0
        await asyncio.sleep(1000)
        return True

    tools = Toolset([shop.buy], approve=approve, max_concurrency=1, timeout=1)
    calls = [a_call("buy", BUY.arguments, id=f"call_{number}") for number in range(3)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    outputs = asyncio.gather(*(tools.call(call, limit=limit) for call in calls))
    await asyncio.sleep(1)
    assert seen == ["call_0", "call_1", "call_2"]
    assert repr(tools) == "<Toolset buy; 0 running>"
    assert await outputs == ["bought"] * 3
    assert loop.time() - began == pytest.approx(1000)


@pytest.mark.parametrize("how", ["passes", "swallows", "raises"])
async def test_a_call_that_is_cancelled_while_it_waits_for_approval_does_nothing(shop: Shop, how: str) -> None:
    limit = ConcurrencyLimit(1)
    started = asyncio.Event()

    async def approve(call: Call, arguments: dict[str, Any]) -> bool:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "passes":
                raise
            if how == "raises":
                raise ValueError("cleanup") from None
        return True

    hook = Hook()
    tools = Toolset([shop.buy], approve=approve, on_error=hook)
    task = asyncio.ensure_future(tools.call(BUY, limit=limit))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.bought == []
    assert hook.errors == []
    assert limit.running == 0


@pytest.mark.parametrize("approve", [True, "yes", 5])
def test_an_approve_that_cannot_be_called_is_refused(approve: Any) -> None:
    with pytest.raises(ConfigurationError, match="approve must be a function"):
        Toolset(approve=approve)
    with pytest.raises(ConfigurationError, match="approve must be a function"):
        Toolset().tool(lambda: 1, name="f", approve=approve)
