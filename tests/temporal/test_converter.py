"""What the converter of structs takes for a struct, and what it leaves to the converter that it adds to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from msgspec import Struct
from temporalio.converter import DefaultPayloadConverter

from asyncruns import AnyOutcome, Completed, RunRef
from asyncruns.temporal.converter import with_structs
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.workflow_client import WorkflowClient


class Order(Struct):
    """A struct of a user."""

    number: int


@dataclass
class Tree:
    """A dataclass that contains itself, and no struct."""

    name: str
    parts: list[Tree] = field(default_factory=list)


@dataclass
class Orders:
    """A dataclass that contains itself and a struct."""

    order: Order
    more: Orders | None = None


@dataclass
class Unknown:
    """A dataclass with a name that is not defined."""

    part: Missing  # type: ignore[name-defined]  # noqa: F821
    name: str = ""


def passed(value: Any, hint: Any) -> Any:
    """Return a value as it arrives."""
    converter = with_structs(DefaultPayloadConverter)()
    (payload,) = converter.to_payloads([value])
    (found,) = converter.from_payloads([payload], [hint])
    return found


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Order(1), Order),
        ([Order(1)], list[Order]),
        ({"a": [Order(1)]}, dict[str, list[Order]]),
        (Tree("a", [Tree("b")]), Tree),
        (Orders(Order(1), Orders(Order(2))), Orders),
        (RunRef("runs", ("t", "r")), RunRef),
        (Order(1), Annotated[Order, []]),
        (3, int),
        (None, Order | None),
    ],
)
def test_values_arrive_as_they_were(value: Any, hint: Any) -> None:
    assert passed(value, hint) == value


def test_a_type_that_cannot_be_read_is_left_to_the_other_converter() -> None:
    assert passed({"part": 1, "name": "a"}, dict) == {"part": 1, "name": "a"}
    with_structs(DefaultPayloadConverter)()
    with pytest.raises(Exception, match="Missing"):  # its own error
        passed({"part": 1, "name": "a"}, Unknown)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement `type` is of Python 3.12")
def test_aliases_may_contain_themselves() -> None:
    names: dict[str, Any] = {"Order": Order}
    exec("type Orders = list[Order]\ntype Nested = list[Nested] | int", names)
    assert passed([Order(1)], names["Orders"]) == [Order(1)]
    assert passed([1, [2]], list.__class_getitem__(names["Nested"])) == [1, [2]]


def test_an_outcome_may_be_missing() -> None:
    fields = {"outcome": "Completed", "ref": {"dialect": "thread.run", "ids": ["t", "r"]}, "status": "completed"}
    outcome = outcome_of_report(RunReport(outcome=fields), WorkflowClient())
    hint: Any = AnyOutcome
    found = passed(outcome, hint | None)
    assert isinstance(found, Completed)
    assert found.ref == outcome.ref
    assert passed(None, hint | None) is None
