"""Helpers for tests of tools: calls, their outputs, and a hook that records its arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from asyncruns.lifecycle.values import Call
from asyncruns.tools import Toolset


def a_call(name: str, arguments: str = "{}", id: str = "call_1") -> Call:
    return Call(id=id, name=name, arguments=arguments)


def error_of(output: str) -> str:
    answer = json.loads(output)
    assert list(answer) == ["error"]
    return str(answer["error"])


async def output_of(function: Callable[..., Any], arguments: str = "{}", **options: Any) -> str:
    return await Toolset({"f": function}, **options).call(a_call("f", arguments))


class Hook:
    """Records the arguments of `on_error`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: list[Exception] = []

    def __call__(self, call: Call, error: Exception) -> None:
        self.calls.append(call)
        self.errors.append(error)
