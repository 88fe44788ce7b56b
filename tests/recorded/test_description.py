"""Every described operation is one of our methods, with every parameter, and there are no others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, get_type_hints

import pytest
from described import METHODS, Operation, method_of, operations

from asyncruns import Client, RunStream
from asyncruns.resources import CallOptions
from asyncruns.resources.base import Resource

CLIENT: Final = Client("http://127.0.0.1/v1")

# Parameters that are accepted but not described.
NOT_DESCRIBED: Final[Mapping[str, set[str]]] = {
    "submitToolOuputsToRun": {"tool_approvals"},  # of Azure AI Foundry
    "createMessage": {"on_busy", "adopt"},  # what to do about a locked thread, and about a lost answer
    "createRun": {"on_busy", "adopt", "output_type"},  # which becomes the response_format
    "createThreadAndRun": {"output_type"},
}
NO_OPERATIONS: Final = {
    "threads.list",  # of Azure AI Foundry
    "threads.runs.watch",  # sends many requests, like the following
    "threads.runs.poll",
    "threads.runs.create_and_poll",
    "threads.runs.submit_tool_outputs_and_poll",
    "threads.runs.create_and_process",
    "threads.create_and_run_poll",
    "threads.runs.stream",
    "threads.runs.create_and_stream",
    "threads.runs.submit_tool_outputs_stream",
    "threads.create_and_run_stream",
}
RESOURCES: Final = ("assistants", "threads", "threads.messages", "threads.runs", "threads.runs.steps")

by_name: Final = pytest.mark.parametrize("operation", operations(), ids=str)


def keywords_of(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's parameters, including those of `**options: Unpack[...]`."""
    hints = get_type_hints(function, localns={"RunStream": RunStream})  # the modules import it on first use
    found: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (described,) = get_args(hints[name])
            found.update(get_type_hints(described))
        else:
            found.add(name)
    return found


def needed_by(function: Callable[..., Any]) -> set[str]:
    """Return the names of the required parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD}


def resource(path: str) -> Resource:
    found: Any = CLIENT
    for name in path.split("."):
        found = getattr(found, name)
    assert isinstance(found, Resource)
    return found


def test_the_description_has_23_operations_with_117_parameters() -> None:
    assert len(operations()) == 23
    assert sum(len(each.ids) for each in operations()) == 29
    assert sum(len(each.query) for each in operations()) == 20
    assert sum(len(each.body) for each in operations()) == 68
    assert sum(len(each.keywords) for each in operations()) == 117  # within an operation, all names differ


def test_each_operation_has_a_method_of_its_own() -> None:
    assert METHODS.keys() == {each.name for each in operations()}
    assert len(set(METHODS.values())) == 23
    assert all(inspect.ismethod(method_of(CLIENT, each)) for each in operations())


@by_name
def test_a_method_takes_every_parameter_and_no_other(operation: Operation) -> None:
    own = NOT_DESCRIBED.get(operation.name, set())
    options = set(get_type_hints(CallOptions))
    assert options == {"request_timeout", "timeout", "extra_headers", "extra_query", "extra_body"}
    assert keywords_of(method_of(CLIENT, operation)) == operation.keywords | own | options


def test_all_that_is_described_is_taken() -> None:
    assert sum(len(each.keywords & keywords_of(method_of(CLIENT, each))) for each in operations()) == 117


@by_name
def test_a_method_needs_nothing_that_is_not_required(operation: Operation) -> None:
    assert needed_by(method_of(CLIENT, operation)) <= operation.required


def test_what_is_required_is_needed_but_where_it_has_a_sensible_default() -> None:
    left_out = {
        (each.name, name) for each in operations() for name in each.required - needed_by(method_of(CLIENT, each))
    }
    assert left_out == {
        ("createMessage", "role"),  # "user"
        ("submitToolOuputsToRun", "tool_outputs"),  # or tool_approvals: one of the two is needed
    }


def test_no_method_is_left_over() -> None:
    found = {
        f"{path}.{name}"
        for path in RESOURCES
        for name, value in inspect.getmembers(type(resource(path)), inspect.isfunction)
        if not name.startswith("_")
    }
    assert found - set(METHODS.values()) == NO_OPERATIONS
