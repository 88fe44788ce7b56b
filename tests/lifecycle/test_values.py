"""The values that pass between the machine and its shell."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
from driver import call
from msgspec import Struct

from asyncruns.cadence import cadence, growing, late, learned, learned_durations, strategy
from asyncruns.lifecycle import (
    CallKind,
    Phase,
    Policy,
    Refusal,
    RunFault,
    RunRef,
    Submit,
    approval_of,
    commands,
    events,
    notices,
    values,
)
from asyncruns.lifecycle.values import describe


def structs(*modules: ModuleType) -> list[type[Struct]]:
    return [
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Struct) and kind.__module__ == module.__name__
    ]


STRUCTS = structs(events, commands, notices, values, cadence, strategy, growing, learned, learned_durations, late)


@pytest.mark.parametrize("kind", [*STRUCTS, Policy])
def test_what_was_said_is_not_changed_afterwards(kind: type[Struct]) -> None:
    assert kind.__struct_config__.frozen


# So fields may be added anywhere later, and two texts in a row are not taken for each other.
@pytest.mark.parametrize(
    "kind", [*structs(notices, strategy, growing, learned), values.Call, values.Snapshot, Refusal, commands.End, Policy]
)
def test_what_has_many_fields_is_made_by_their_names(kind: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind(None)


def test_a_run_is_named_by_its_ids() -> None:
    assert str(RunRef("thread_run", ("thread_1", "run_1"))) == "thread_1/run_1"


def test_a_submit_names_calls_by_their_ids() -> None:
    asked = values.Snapshot(phase=Phase.NEEDS_CALLER, status="waits", resource=None)
    submit = Submit(((call("call_a"), "1"), (call("call_b", kind=CallKind.APPROVAL), "true")), asked)
    assert submit.outputs == (("call_a", "1"), ("call_b", "true"))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (None, ""),
        (RunFault(code="server_error", message="Sorry"), ": server_error: Sorry"),
        (RunFault(code="", message="Sorry"), ": Sorry"),
        (RunFault(code="server_error", message=""), ": server_error"),
    ],
)
def test_a_fault_is_told_by_what_the_server_says_of_it(fault: RunFault | None, told: str) -> None:
    assert describe(fault) == told


@pytest.mark.parametrize(
    ("output", "approval"),
    [
        ("true", {"approve": True}),
        ("false", {"approve": False}),
        ('{"approve": false, "headers": {"a": "b"}}', {"approve": False, "headers": {"a": "b"}}),
        ("1", None),
        ("null", None),
        ('"true"', None),
        ("yes", None),
        ("", None),
        ("{}", None),
        ('{"approve": "no"}', None),
        ('{"approve": 1}', None),
        ("[true]", None),
    ],
)
def test_an_approval_is_a_plain_yes_or_no(output: str, approval: dict[str, object] | None) -> None:
    assert approval_of(output) == approval
