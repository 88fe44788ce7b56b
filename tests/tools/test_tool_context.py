"""The context that a tool may ask for: never shown to the model, and never set by it."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import pytest

from asyncruns import ToolContext, Toolset
from asyncruns.lifecycle.values import Call


class Session:
    """What an application has for each request."""

    def __init__(self, user: str) -> None:
        self.user = user


CALL = Call(id="call_1", name="f", arguments='{"n": 1}')
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def a_coroutine(n: int, context: ToolContext[Session]) -> str:
    return f"{n} {context.value.user} {context.call.id}"


def a_function(context: ToolContext[Session], n: int) -> str:
    return f"{n} {context.value.user} {context.call.id}"


def keyword_only(n: int, *, about: ToolContext[Session]) -> str:
    return f"{n} {about.value.user} {about.call.id}"


class Callable_:
    async def __call__(self, n: int, context: ToolContext[Session]) -> str:
        return f"{n} {context.value.user} {context.call.id}"

    async def method(self, n: int, context: ToolContext[Session]) -> str:
        return f"{n} {context.value.user} {context.call.id}"


def bound(word: str, n: int, context: ToolContext[Session]) -> str:
    return f"{n} {context.value.user} {context.call.id}"


@pytest.mark.parametrize(
    "function",
    [a_coroutine, a_function, keyword_only, Callable_(), Callable_().method, functools.partial(bound, "word")],
)
async def test_a_tool_gets_the_context_of_its_call(function: Any) -> None:
    tools = Toolset({"f": function})
    parameters = tools.definitions()[0]["function"]["parameters"]
    assert list(parameters["properties"]) == ["n"]
    assert await tools.call(CALL, context=Session("Ann")) == "1 Ann call_1"


async def test_the_model_cannot_set_it() -> None:
    tools = Toolset({"f": a_coroutine})
    call = Call(id="c", name="f", arguments='{"n": 1, "context": {"value": {"user": "Eve"}}}')
    assert "unknown field `context`" in await tools.call(call, context=Session("Ann"))


async def test_outside_of_a_watch_little_is_known() -> None:
    seen: list[ToolContext[Any]] = []

    def f(n: int, context: ToolContext) -> None:  # type: ignore[type-arg]
        seen.append(context)

    await Toolset([f]).call(CALL)
    (context,) = seen
    assert (context.call, context.value, context.ref) == (CALL, None, None)
    assert (context.metadata, context.answer_by) == ({}, math.inf)


async def test_a_tool_with_a_given_schema_gets_it_as_well() -> None:
    async def by_name(context: ToolContext[Session], **arguments: Any) -> str:
        return f"{arguments} {context.value.user}"

    async def in_one_dict(arguments: dict[str, Any], context: ToolContext[Session]) -> str:
        return f"{arguments} {context.value.user}"

    class InOneDict:
        async def __call__(self, arguments: dict[str, Any], context: ToolContext[Session]) -> str:
            return f"{arguments} {context.value.user}"

    async def partly(word: str, context: ToolContext[Session], **arguments: Any) -> str:
        return f"{arguments} {context.value.user}"

    for function in (by_name, in_one_dict, InOneDict(), functools.partial(partly, word="a")):
        tools = Toolset()
        tools.tool(function, name="f", parameters=SCHEMA)
        assert await tools.call(CALL, context=Session("Ann")) == "{'n': 1} Ann"
        call = Call(id="c", name="f", arguments='{"n": 1, "context": 2}')
        assert "unknown field `context`" in await tools.call(call, context=Session("Ann"))


async def test_it_stands_beside_models_and_texts() -> None:
    async def f(n: Annotated[int, "How many."], context: ToolContext[Session]) -> str:
        """Do it.

        Args:
            n: A number.
            context: Not for the model.
        """
        return context.value.user

    tools = Toolset()
    tools.tool(f, strict=True)
    parameters = tools.definitions()[0]["function"]["parameters"]
    assert parameters["required"] == ["n"]
    assert await tools.call(CALL, context=Session("Ann")) == "Ann"
