"""The values that pass between the machine and its shell."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
from driver import call
from msgspec import Struct

from asyncruns.cadence import cadence, counted_pauses, late_pauses, learned_durations, learned_pauses, strategy
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


STRUCTS = structs(
    events, commands, notices, values, cadence, strategy, counted_pauses, learned_pauses, learned_durations, late_pauses
)


@pytest.mark.parametrize("kind", [*STRUCTS, Policy])
def test_values_are_immutable(kind: type[Struct]) -> None:
    assert kind.__struct_config__.frozen


# Fields can then be added anywhere later, and two strings in a row cannot be confused.
@pytest.mark.parametrize(
    "kind",
    [
        *structs(notices, strategy, counted_pauses, learned_pauses),
        values.Call,
        values.Snapshot,
        Refusal,
        commands.End,
        Policy,
    ],
)
def test_values_with_many_fields_take_keywords_only(kind: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind(None)


def test_a_ref_is_shown_by_its_ids() -> None:
    assert str(RunRef("thread_run", ("thread_1", "run_1"))) == "thread_1/run_1"


def test_the_outputs_of_a_submit_name_calls_by_their_ids() -> None:
    shown = values.Snapshot(phase=Phase.NEEDS_CALLER, status="waits", resource=None)
    submit = Submit(((call("call_a"), "1"), (call("call_b", kind=CallKind.APPROVAL), "true")), shown)
    assert submit.outputs == (("call_a", "1"), ("call_b", "true"))


@pytest.mark.parametrize(
    ("fault", "description"),
    [
        (None, ""),
        (RunFault(code="server_error", message="Sorry"), ": server_error: Sorry"),
        (RunFault(code="", message="Sorry"), ": Sorry"),
        (RunFault(code="server_error", message=""), ": server_error"),
    ],
)
def test_a_fault_is_described_in_the_servers_words(fault: RunFault | None, description: str) -> None:
    assert describe(fault) == description


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
def test_an_approval_is_true_false_or_an_object_with_approve(output: str, approval: dict[str, object] | None) -> None:
    assert approval_of(output) == approval
