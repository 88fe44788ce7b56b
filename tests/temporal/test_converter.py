"""What the converter of structs takes for a struct, and what it leaves to the converter that it adds to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypedDict, TypeVar, cast, get_origin

import pytest
from msgspec import Struct
from temporalio.converter import DefaultPayloadConverter

from asyncruns import AnyOutcome, Completed, InvalidRequestError, RunRef
from asyncruns.temporal.converter import with_structs
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.outcome import Outcome
from asyncruns.wire import Run
from asyncruns.wire.codec import decode

T = TypeVar("T")


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
class Report:
    """A dataclass with an outcome, and what else asyncruns has."""

    outcome: AnyOutcome[Any]
    run: Run
    ref: RunRef
    name: str = ""
    others: dict[int, list[AnyOutcome[Any]]] = field(default_factory=dict)
    size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.size = len(self.others)


class ReportStruct(Struct, rename="camel"):
    """A struct with an outcome, with other names in JSON."""

    last_outcome: Completed[Run] | None
    report: Report


class ReportDict(TypedDict, total=False):
    """A dict with an outcome."""

    outcome: AnyOutcome[Any]
    ref: RunRef


@dataclass
class Box(Generic[T]):
    """A dataclass that may contain an outcome."""

    inner: T


@dataclass
class Unknown:
    """A dataclass with a name that is not defined."""

    part: Missing  # type: ignore[name-defined]  # noqa: F821
    name: str = ""


REF = RunRef("thread.run", ("thread_1", "run_1"))
RUN = decode(b'{"id": "run_1", "thread_id": "thread_1", "assistant_id": "a", "status": "completed"}', Run)
OUTCOME: AnyOutcome[Any] = outcome_of_report(
    RunReport(
        outcome={
            "outcome": "Completed",
            "ref": REF.to_dict(),
            "status": "completed",
            "run": RUN.to_dict(),
            "label": "A",
        }
    ),
    WorkflowClient(),
)
COMPLETED = cast("Completed[Run]", OUTCOME)
REPORT = Report(OUTCOME, RUN, REF, "a", {3: [OUTCOME]})
AN_OUTCOME: Any = AnyOutcome
ANY: Any = AN_OUTCOME[Run]


def shown(value: Any) -> Any:
    """Return a value with outcomes, which are not equal to others, in a form that is."""
    if isinstance(value, Outcome):
        return type(value).__name__, value.to_dict()
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return type(value)(shown(each) for each in value)
    if isinstance(value, Report | ReportStruct):
        return type(value), [shown(getattr(value, name)) for name in type(value).__annotations__]
    return value


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
    with pytest.raises(TypeError, match="Nested"):  # the other converter knows no aliases
        passed([1, [2]], names["Nested"])


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (OUTCOME, ANY),
        (OUTCOME, Completed[Run]),
        (OUTCOME, ANY | None),
        (None, ANY | None),
        (OUTCOME, ANY | RunRef),
        (REF, ANY | RunRef),
        ([OUTCOME, OUTCOME], list[ANY]),
        ([OUTCOME, None], Sequence[ANY | None]),
        ((OUTCOME,), tuple[ANY, ...]),
        ((OUTCOME, REF, RUN, 3), tuple[ANY, RunRef, Run, int]),
        ({"a": OUTCOME}, dict[str, ANY]),
        ({1: {"a": [OUTCOME]}}, dict[int, dict[str, list[ANY]]]),
        (REPORT, Report),
        ([REPORT], list[Report]),
        (ReportStruct(COMPLETED, REPORT), ReportStruct),
        (ReportStruct(None, REPORT), ReportStruct),
        ({"outcome": OUTCOME, "ref": REF}, ReportDict),
        (OUTCOME, Annotated[ANY, []]),
        ({"a": [RUN]}, dict[str, list[Run]]),
    ],
)
def test_outcomes_arrive_as_they_were_wherever_they_are(value: Any, hint: Any) -> None:
    assert shown(passed(value, hint)) == shown(value)


@pytest.mark.parametrize("hint", [Box[ANY], list[Report] | dict[str, ANY]])
def test_a_type_that_outcomes_cannot_be_in_is_refused(hint: Any) -> None:
    value = Box(OUTCOME) if get_origin(hint) is Box else [REPORT]
    with pytest.raises(InvalidRequestError, match="There are outcomes in"):
        passed(value, hint)
