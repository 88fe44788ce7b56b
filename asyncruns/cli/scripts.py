"""What `asyncruns emulate` is told: scenarios from files, and faults from its arguments.

They have the fields of `Scenario`, `BatchScenario` and `Fault`, with their defaults and checks; names that these lack
are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from asyncruns.testing import BatchScenario, Fault, FunctionCall, Scenario

T = TypeVar("T")

_NULLS: Final = ("none", "null")


def scenarios_from(path: str) -> tuple[Scenario, ...]:
    """Read a JSON file with one scenario of runs, or a list of them.

    Raises:
        ValueError: It cannot be read, or something in it is wrong; the message names the file and the place.
    """
    return _read(path, Scenario)


def batch_scenarios_from(path: str) -> tuple[BatchScenario, ...]:
    """Read a JSON file with one scenario of batches, or a list of them.

    Raises:
        ValueError: As for `scenarios_from`.
    """
    return _read(path, BatchScenario)


def _read(path: str, kind: type[T]) -> tuple[T, ...]:
    try:
        found = msgspec.json.decode(Path(path).read_bytes())
        one: Any = _strict(cast("Any", kind))  # mypy takes a class that is a variable for not hashable
        if isinstance(found, list):
            raw = msgspec.convert(found, list[one])
            scenarios = tuple(_built(kind, each, f"$[{place}]") for place, each in enumerate(raw))
        else:
            scenarios = (_built(kind, msgspec.convert(found, one), "$"),)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not scenarios:
        raise ValueError(f"{path}: the list has no scenario")
    return scenarios


def in_turn(scenarios: tuple[T, ...]) -> Callable[[object], T]:
    """Return a source that gives each new run or batch the next scenario, and begins again after the last."""
    turn = cycle(scenarios)
    return lambda _: next(turn)


def fault_from(text: str) -> Fault:
    """Return the fault that a text describes: NAME=VALUE pairs with commas between, or a JSON object.

    A name alone is true: `on=submit,drop,acts` is `Fault(on="submit", drop=True, acts=True)`.

    Raises:
        ValueError: Something in it is wrong.
    """
    if text.lstrip().startswith("{"):
        return _built(Fault, msgspec.json.decode(text, type=_strict(Fault)), "$")
    given: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = (each.strip() for each in pair.partition("="))
        given[name] = True if not equals else None if value.lower() in _NULLS else value
    return _built(Fault, msgspec.convert(given, _strict(Fault), strict=False), "$")


@cache
def _strict(kind: type) -> Any:
    """Return a struct with the fields of a dataclass that can be written as JSON; unknown ones are refused."""
    hints: dict[str, Any] = get_type_hints(kind)
    if kind is Scenario:
        call: Any = _strict(FunctionCall)
        hints["rounds"] = tuple[tuple[call, ...], ...]
    if kind is BatchScenario:  # JSON has no functions
        del hints["answers"]
        hints |= {"failing": list[str], "lost": list[str], "errors": list[dict[str, Any]]}
    if kind is Fault:  # it names the right words itself; the body is one or the other in JSON
        del hints["rewrite"]
        hints |= {"on": str, "damage": str | None, "stream": str | None, "body": str | dict[str, Any] | None}
    required = {each.name for each in dataclasses.fields(kind) if each.default is each.default_factory}  # both missing
    fields = [(name, hint) if name in required else (name, hint | UnsetType, UNSET) for name, hint in hints.items()]
    return msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True)


def _built(kind: type[T], raw: Struct, place: str) -> T:
    """Return the dataclass with the given fields. What its own checks raise gets the place, if there are several."""
    given = {name: value for name in raw.__struct_fields__ if (value := getattr(raw, name)) is not UNSET}
    if "rounds" in given:
        given["rounds"] = tuple(
            tuple(_built(FunctionCall, call, f"{place}.rounds[{number}]") for call in calls)
            for number, calls in enumerate(given["rounds"])
        )
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{error} - at `{place}`" if place != "$" else str(error)) from error
