"""Parameters that pydantic reads, beside those that msgspec reads; and what neither reads is refused."""

from __future__ import annotations

import enum
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NotRequired, TypeVar

import msgspec
import pytest
from annotated_types import Gt
from pydantic import AnyUrl, BaseModel, Field, JsonValue, PositiveInt, SecretStr, conint, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import Doc, TypedDict

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import InvalidArgumentsError, Toolset
from asyncruns.tools.signature import Signature

T = TypeVar("T")


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


class Globals:
    Point = Point


@dataclass
class Trip:
    places: list[Place]


@pydantic_dataclass
class Checked:
    nights: int = Field(ge=1)

    @field_validator("nights")
    @classmethod
    def is_even(cls, nights: int) -> int:
        if nights % 2:
            raise ValueError("odd")
        return nights


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
    assert schema["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert schema["$defs"]["Trip"]["properties"]["places"]["items"] == {"$ref": "#/$defs/Place"}
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


async def test_a_field_as_a_default_is_read_as_pydantic_reads_it() -> None:
    made = iter(range(100))
    seen: list[tuple[int, int, int]] = []

    def f(a: int = Field(ge=1), b: int = Field(2, ge=1), c: int = Field(default_factory=lambda: next(made))) -> None:
        seen.append((a, b, c))

    def g(d: Annotated[int, Field(4)], u: AnyUrl = AnyUrl("https://x")) -> int:  # noqa: B008
        return d

    schema = Signature("f", f).schema
    assert schema["required"] == ["a"]
    assert [one.get("default") for one in schema["properties"].values()] == [None, 2, None]
    tools = Toolset([f, g])
    for number in range(2):
        await tools.call(Call(id=f"c{number}", name="f", arguments='{"a": 1}'))
    assert seen == [(1, 2, 0), (1, 2, 1)], "the factory is called once for each call"
    assert await tools.call(Call(id="c", name="g")) == "4"
    assert "required" not in Signature("g", g).schema or Signature("g", g).schema["required"] == []
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
    with pytest.raises(InvalidArgumentsError, match=r"odd - at `\$\.checked\.nights`"):
        decoded(f, text.replace('"nights": 2', '"nights": 3'))
    with pytest.raises(InvalidArgumentsError, match=r"greater than 0 - at `\$\.count`"):
        decoded(f, text[:-1] + ', "count": 0}')
    strict = Signature("f", f, strict=True).schema
    assert strict["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert strict["$defs"]["Node"]["additionalProperties"] is False


def order_of(kind: type) -> type[BaseModel]:
    class Item(BaseModel):
        size: kind  # type: ignore[valid-type]

    class Order(BaseModel):
        items: list[Item]

    return Order


def test_models_of_one_name_are_told_apart_at_any_depth() -> None:
    def f(old: Any, new: Any, point: Any, other: Any) -> None: ...

    class Point(BaseModel):  # beside the struct of this name
        y: str

    f.__annotations__.update(old=list[order_of(int)], new=list[order_of(str)], point=Globals.Point, other=Point)  # type: ignore[misc]
    schema = Signature("f", f).schema
    definitions = schema["$defs"]

    def size_in(name: str) -> Any:
        order = definitions[schema["properties"][name]["items"]["$ref"].rpartition("/")[2]]
        item = definitions[order["properties"]["items"]["items"]["$ref"].rpartition("/")[2]]
        return item["properties"]["size"]["type"]

    assert (size_in("old"), size_in("new")) == ("integer", "string")
    found = {name: definitions[schema["properties"][name]["$ref"].rpartition("/")[2]] for name in ("point", "other")}
    assert [list(one["properties"]) for one in found.values()] == [["x"], ["y"]]


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


class OldDict(TypedDict):
    a: Annotated[int, "a text that msgspec ignores"]


def aliased(a: Annotated[int, Field(alias="b")]) -> None: ...
def in_a_dict(a: OldDict) -> None: ...
def mixed(a: Annotated[int, msgspec.Meta(ge=1), Field(le=3)]) -> None: ...
def unknown(a: Annotated[int, object()]) -> None: ...
def nested(a: list[Annotated[int, "a text"]]) -> None: ...
def in_a_class(a: WithText) -> None: ...
def beside_a_model(a: Annotated[WithMeta, msgspec.Meta(description="ignored")]) -> None: ...


@pytest.mark.parametrize("function", [mixed, unknown, nested, in_a_class, in_a_dict, beside_a_model, aliased])
def test_what_would_be_ignored_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="The parameter a of the tool f"):
        Signature("f", function)


def test_metadata_of_annotated_types_is_checked() -> None:
    def f(a: Annotated[int, Gt(3)]) -> None: ...

    with pytest.raises(InvalidArgumentsError, match="greater than 3"):
        decoded(f, '{"a": 3}')


def test_types_that_pydantic_makes_are_read() -> None:
    def f(a: Any, b: Any) -> None: ...

    f.__annotations__.update(a=conint(ge=1), b=JsonValue)
    assert decoded(f, '{"a": 1, "b": [{"c": null}]}') == {"a": 1, "b": [{"c": None}]}
    with pytest.raises(InvalidArgumentsError, match="equal to 1"):
        decoded(f, '{"a": 0, "b": 1}')


@dataclass
class Kept:
    x: ClassVar[datetime] = datetime(2026, 1, 1)
    f: Final[datetime] = datetime(2026, 1, 1)
    t: time | None = None


class Partial(TypedDict):
    at: NotRequired[datetime]


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Outer(msgspec.Struct):
    page: Page[datetime]


def test_times_in_unusual_fields_do_no_harm() -> None:
    def f(a: Kept, b: Partial, c: Outer, d: Page[datetime]) -> None: ...

    schema = Signature("f", f).schema
    text = msgspec.json.encode(schema).decode()
    for reference in re.findall(r'"#/\$defs/(.*?)"', text):
        assert reference in schema["$defs"]
    assert schema["$defs"]["Kept"]["properties"]["t"]["anyOf"][0]["format"] == "time"


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
