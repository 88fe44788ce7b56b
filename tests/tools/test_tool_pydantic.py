"""Parameters that pydantic reads, beside those that msgspec reads; and what neither reads is refused."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any, Literal

import msgspec
import pytest
from annotated_types import Gt
from pydantic import BaseModel, Field, PositiveInt, SecretStr
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import Doc

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import InvalidArgumentsError, Toolset
from asyncruns.tools.signature import Signature


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    """Where it is."""

    title: str = Field(description="Its name.", min_length=1)
    height: int = 0


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Node(BaseModel):
    value: int
    rest: Node | None = None


class Point(msgspec.Struct):
    x: int


@dataclass
class Trip:
    places: list[Place]


@pydantic_dataclass
class Checked:
    nights: Annotated[int, Field(ge=1)]


def decoded(function: Callable[..., Any], arguments: str) -> dict[str, Any]:
    return Signature("f", function).decode(arguments)


def plan(
    place: Place,
    point: Point,
    trip: Trip,
    when: datetime,
    colour: Colour,
    days: Annotated[int, Field(description="How many.", ge=1, le=9)] = 3,
    note: str | None = None,
) -> None: ...


ARGUMENTS = {
    "place": {"title": "Rome"},
    "point": {"x": 1},
    "trip": {"places": [{"title": "Ostia", "height": 2}]},
    "when": "2026-11-29T10:00:00Z",
    "colour": "blue",
}


def text_of(**changes: Any) -> str:
    return msgspec.json.encode({**ARGUMENTS, **changes}).decode()


def test_models_structs_dataclasses_enums_and_times_stand_side_by_side() -> None:
    arguments = decoded(plan, text_of(days=2))
    assert arguments == {
        "place": Place(title="Rome"),
        "point": Point(1),
        "trip": Trip([Place(title="Ostia", height=2)]),
        "when": datetime.fromisoformat("2026-11-29T10:00:00Z"),
        "colour": Colour.BLUE,
        "days": 2,
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"days": 0}, r"greater than or equal to 1 - at `\$\.days`"),
        ({"place": {"title": ""}}, r"at least 1 character - at `\$\.place\.title`"),
        ({"trip": {"places": [{"title": "a"}, {}]}}, r"Field required - at `\$\.trip\.places\[1\]\.title`"),
        ({"trip": {"places": [{}] * 9}}, r"places\[4\]\.title`; and 4 more$"),
        ({"point": {}}, r"missing required field `x` - at `\$\.point`"),
        ({"other": 1}, "unknown field `other`"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=told):
        decoded(plan, text_of(**changes))


def test_the_schema_has_descriptions_limits_and_models() -> None:
    schema = Signature("f", plan).schema
    assert schema["properties"]["days"] == {
        "type": "integer",
        "description": "How many.",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }
    assert schema["properties"]["when"] == {"type": "string", "format": "date-time"}
    assert schema["properties"]["trip"]["properties"]["places"]["items"] == {"$ref": "#/$defs/Place"}
    assert schema["$defs"]["Place"]["properties"]["title"] == {
        "type": "string",
        "description": "Its name.",
        "minLength": 1,
    }
    assert schema["required"] == [*ARGUMENTS]
    assert "title" not in schema["$defs"]["Place"]


class Visit(msgspec.Struct, rename="camel"):
    began_at: datetime
    ends: list[time] | None = None
    day: Annotated[datetime, msgspec.Meta(description="Which one.")] | None = None


def test_times_have_a_format_wherever_they_stand() -> None:
    def f(at: datetime, to: list[datetime | None], visit: Visit, on: Annotated[time, "When."] = time(3)) -> None: ...

    schema = Signature("f", f).schema
    moment, hour, null = (
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "time"},
        {"type": "null"},
    )
    assert schema["properties"] == {
        "at": moment,
        "to": {"type": "array", "items": {"anyOf": [moment, null]}},
        "visit": {"$ref": "#/$defs/Visit"},
        "on": {**hour, "description": "When.", "default": "03:00:00"},
    }
    assert schema["$defs"]["Visit"]["properties"] == {
        "beganAt": moment,
        "ends": {"anyOf": [{"type": "array", "items": hour}, null], "default": None},
        "day": {"anyOf": [{**moment, "description": "Which one."}, null], "default": None},
    }
    assert (
        decoded(f, '{"at": "2026-11-29T10:00:00", "to": [], "visit": {"beganAt": "2026-11-29T10:00:00Z"}}')["to"] == []
    )


def test_a_field_as_a_default_is_read_as_pydantic_reads_it() -> None:
    def f(a: int = Field(ge=1), b: int = Field(2, ge=1), c: list[int] = Field(default_factory=list)) -> None: ...  # noqa: B008

    def g(d: Annotated[int, Field(4)]) -> None: ...

    assert decoded(f, '{"a": 1}') == {"a": 1, "b": 2, "c": []}
    assert decoded(f, '{"a": 1}')["c"] is not decoded(f, '{"a": 1}')["c"]
    assert decoded(g, "") == {"d": 4}
    assert Signature("f", f).schema["required"] == ["a"]
    with pytest.raises(InvalidArgumentsError, match="missing required field `a`"):
        decoded(f, "")


def test_unions_recursive_models_and_types_of_pydantic_are_read() -> None:
    def f(
        pet: Annotated[Cat | Dog, Field(discriminator="kind")],
        node: Node,
        checked: Checked,
        count: PositiveInt = 1,
        password: SecretStr | None = None,
    ) -> None: ...

    text = '{"pet": {"kind": "cat"}, "node": {"value": 1, "rest": {"value": 2}}, "checked": {"nights": 2}}'
    arguments = decoded(f, text)
    assert arguments == {"pet": Cat(kind="cat"), "node": Node(value=1, rest=Node(value=2)), "checked": Checked(2)}
    with pytest.raises(InvalidArgumentsError, match=r"greater than 0 - at `\$\.count`"):
        decoded(f, text[:-1] + ', "count": 0}')
    strict = Signature("f", f, strict=True).schema
    assert strict["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert strict["$defs"]["Node"]["additionalProperties"] is False


def test_two_models_of_one_name_are_told_apart() -> None:
    def models() -> type[BaseModel]:
        class Part(BaseModel):
            size: int

        class Item(BaseModel):
            part: Part

        return Item

    Item = models()

    class Part(BaseModel):
        weight: float

    class Box(BaseModel):
        parts: list[Part]

    def f(item: Any, box: Any) -> None: ...

    f.__annotations__.update(item=Item, box=Box)
    schema = Signature("f", f).schema
    assert schema["$defs"]["Part"]["properties"] == {"size": {"type": "integer"}}
    assert schema["$defs"]["box_Part"]["properties"] == {"weight": {"type": "number"}}
    assert schema["properties"]["box"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/box_Part"}


async def test_a_model_is_a_result() -> None:
    class Found(BaseModel):
        when: datetime
        colour: Colour

    def find() -> list[Found]:
        return [Found(when=datetime.fromisoformat("2026-11-29T10:00:00Z"), colour=Colour.RED)]

    output = await Toolset([find]).call(Call(id="c", name="find"))
    assert output == '[{"when":"2026-11-29T10:00:00Z","colour":"red"}]'


# Nothing is ignored


def test_a_text_beside_the_type_describes_the_parameter() -> None:
    def f(
        a: Annotated[int, "How many."],
        b: Annotated[str, Doc("Which one.")] = "x",
        c: Annotated[int, "Of days.", msgspec.Meta(ge=1)] = 1,
        d: Annotated[int, "Of nights.", Field(ge=1)] = 1,
    ) -> None: ...

    properties = Signature("f", f).schema["properties"]
    assert [one["description"] for one in properties.values()] == ["How many.", "Which one.", "Of days.", "Of nights."]
    with pytest.raises(InvalidArgumentsError, match=r"`int` >= 1 - at `\$\.c`"):
        decoded(f, '{"a": 1, "c": 0}')
    with pytest.raises(InvalidArgumentsError, match=r"equal to 1 - at `\$\.d`"):
        decoded(f, '{"a": 1, "d": 0}')


@dataclass
class WithText:
    a: Annotated[int, "a text that msgspec ignores"]


class WithMeta(BaseModel):
    a: int


def mixed(a: Annotated[int, msgspec.Meta(ge=1), Field(le=3)]) -> None: ...
def unknown(a: Annotated[int, object()]) -> None: ...
def nested(a: list[Annotated[int, "a text"]]) -> None: ...
def in_a_class(a: WithText) -> None: ...
def beside_a_model(a: Annotated[WithMeta, msgspec.Meta(description="ignored")]) -> None: ...


@pytest.mark.parametrize("function", [mixed, unknown, nested, in_a_class, beside_a_model])
def test_what_would_be_ignored_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="The parameter a of the tool f"):
        Signature("f", function)


def test_metadata_of_annotated_types_is_checked() -> None:
    def f(a: Annotated[int, Gt(3)]) -> None: ...

    with pytest.raises(InvalidArgumentsError, match="greater than 3"):
        decoded(f, '{"a": 3}')


def test_a_type_without_a_schema_is_refused() -> None:
    def f(a: Annotated[Callable[[], int], Field()]) -> None: ...

    with pytest.raises(ConfigurationError, match="uses pydantic, which has no JSON Schema for"):
        Signature("f", f)


def test_pydantic_is_imported_only_for_functions_that_use_it() -> None:
    program = """
import sys
from asyncruns import Toolset
def f(a: int, b: list[str] | None = None) -> str:
    "Do it."
Toolset([f])
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Docstrings


def google(days: int, unit: str = "C") -> None:
    """Return the weather.

    Args:
        days: How many days
            ahead.
        unit: "C" or "F".
    """


def numpy(days: int, unit: str = "C") -> None:
    """Return the weather.

    Parameters
    ----------
    days : int
        How many days
        ahead.
    unit : str
        "C" or "F".
    """


def sphinx(days: int, unit: str = "C") -> None:
    """Return the weather.

    :param days: How many days
        ahead.
    :param unit: "C" or "F".
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_parameters_are_described_by_the_docstring(function: Callable[..., Any]) -> None:
    (definition,) = Toolset([function]).definitions()
    assert definition["function"]["description"] == "Return the weather."
    properties = definition["function"]["parameters"]["properties"]
    assert [one["description"] for one in properties.values()] == ["How many days ahead.", '"C" or "F".']


def test_an_annotation_describes_better_than_the_docstring() -> None:
    def f(a: Annotated[int, "From the annotation."], b: Annotated[int, msgspec.Meta(description="From Meta.")]) -> None:
        """Do it.

        Args:
            a: From the docstring.
            b: From the docstring.
        """

    properties = Signature("f", f).schema["properties"]
    assert [one["description"] for one in properties.values()] == ["From the annotation.", "From Meta."]


def test_without_the_parser_only_annotations_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docstring_parser", None)
    assert Signature("f", google).schema["properties"]["days"] == {"type": "integer"}
