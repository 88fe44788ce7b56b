"""The parameters of a function: a struct that decodes them, and the JSON Schema that describes them to the model.

Both come from one struct, so the schema that the model reads is exactly what is validated. The struct's fields are
named `p0`, `p1`, ... and renamed on the wire, so that a parameter may have a name such as `type` or `__init__`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from asyncruns.errors import ConfigurationError
from asyncruns.schemas.annotations import check_nothing_is_ignored, described, parts_of
from asyncruns.schemas.pydantic_types import DoesNotFitError, PydanticReader, is_made_anew, schemas_of, with_field
from asyncruns.schemas.strict import Schema, make_strict, subschemas
from asyncruns.schemas.time_formats import add_formats, with_formats
from asyncruns.tools.context import ToolContext, is_context
from asyncruns.tools.docstrings import parameter_texts
from asyncruns.tools.results import well_formed

_RECEIVERS: Final = frozenset({"self", "cls"})


class InvalidArgumentsError(ValueError):
    """The model's arguments do not fit the schema. The text is for the model and names the path, such as `$.days`."""


class _Parameter(msgspec.Struct, frozen=True):
    """One parameter.

    Attributes:
        name: Its name.
        type: Its annotation.
        default: The function's default.
        text: Its description in the annotation.
        classes: The classes in its annotation.
        reader: Reads it with pydantic, if its annotation needs that.
        make_default: Makes the default of a pydantic field, which the function does not know.
    """

    name: str
    type: Any
    default: Any
    text: str | None = None
    classes: tuple[type, ...] = ()
    reader: PydanticReader | None = None
    make_default: Callable[[], Any] | None = None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty and self.make_default is None

    @property
    def decoded_type(self) -> Any:
        return with_formats(self.type) if self.reader is None else msgspec.Raw


class Signature:
    """The parameters of a tool.

    Attributes:
        schema: The JSON Schema that the model reads.

    Raises:
        ConfigurationError: A parameter is positional-only or variadic, has no annotation, its type has no JSON Schema,
            something in its annotation would be ignored, or it is the `self` of an unbound method.
        NotStrictError: It is to be strict, and strict mode cannot express the type of a parameter.
    """

    def __init__(self, tool: str, function: Callable[..., Any], *, strict: bool = False) -> None:
        found = list(_parameters(tool, function))
        self._context = next((one.name for one in found if is_context(one.type)), None)
        parameters = [_checked(tool, parameter) for parameter in found if not is_context(parameter.type)]
        self._fields = {f"p{index}": parameter for index, parameter in enumerate(parameters)}
        struct = msgspec.defstruct(
            f"{tool}_arguments",
            [
                (field, parameter.decoded_type) if parameter.required else (field, parameter.decoded_type, _absent())
                for field, parameter in self._fields.items()
            ],
            rename={field: parameter.name for field, parameter in self._fields.items()},
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
        self.schema: Schema = _schema(struct, parameters, parameter_texts(innermost(function)))
        if strict:
            make_strict(self.schema)

    def decode(self, text: str) -> dict[str, Any]:
        """Decode the model's text into keyword arguments; "" and `null` mean no arguments.

        Raises:
            InvalidArgumentsError: The text is not a JSON object, or does not fit the parameters.
        """
        text = text.strip()
        if text in ("", "null"):  # models write these for a function without parameters
            text = "{}"
        try:
            arguments = self._decoder.decode(well_formed(text))
            return {
                parameter.name: value if parameter.reader is None else parameter.reader.decode(bytes(value))
                for field, parameter in self._fields.items()
                if (value := getattr(arguments, field)) is not msgspec.UNSET
            }
        except (msgspec.MsgspecError, DoesNotFitError, RecursionError) as error:
            raise InvalidArgumentsError(str(error)) from error

    def call(self, function: Callable[..., Any], arguments: dict[str, Any], context: ToolContext[Any]) -> Any:
        """Call the function with these arguments, its context, and the defaults that only the annotations have."""
        made: dict[str, Any] = {
            parameter.name: parameter.make_default()
            for parameter in self._fields.values()
            if parameter.make_default is not None and parameter.name not in arguments
        }
        if self._context is not None:
            made[self._context] = context
        return function(**arguments, **made)


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside any `functools.partial`; it has the name and the docstring."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _absent() -> Any:
    # An argument that the model omits is not passed either: the function's own default may be of any type, or mutable.
    return msgspec.field(default_factory=lambda: msgspec.UNSET)


def _parameters(tool: str, function: Callable[..., Any]) -> Iterator[_Parameter]:
    """Yield the parameters that the model fills in; those bound by a partial are left out."""
    bound: set[str] = set()
    inner: Callable[..., Any] = function
    while isinstance(inner, functools.partial):
        bound.update(inner.keywords)
        inner = inner.func
    try:
        signature = _signature_of(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"The tool {tool} has no signature that can be read: {error}") from error
    names = _globals_of(inner)
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.name in bound:
            continue
        if position == 0 and parameter.name in _RECEIVERS and _is_in_a_class(inner):
            raise ConfigurationError(
                f"The tool {tool} is a method without its object: the model would be asked for {parameter.name!r}. "
                "Add the bound method instead, such as tools.tool(thing.method), when there is an object."
            )
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(
                f"The parameter {parameter.name} of the tool {tool} is {parameter.kind.description}. The model "
                "names each argument, so declare parameters that can be given by name."
            )
        annotation, default, make_default = with_field(_resolved(tool, parameter, names), parameter.default)
        annotation, text = described(annotation)
        yield _Parameter(parameter.name, annotation, default, text, make_default=make_default)


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # From 3.14 on, annotations are evaluated when they are read (PEP 649), including the return type, which may be
        # a name under TYPE_CHECKING: https://docs.python.org/3.14/library/inspect.html#inspect.signature
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _is_in_a_class(function: Callable[..., Any]) -> bool:
    """Return whether a plain function was defined in the body of a class."""
    home = str(getattr(function, "__qualname__", "")).rpartition(".")[0]
    return inspect.isfunction(function) and home != "" and not home.endswith("<locals>")


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):
        function = inspect.unwrap(type(function).__call__)
    return getattr(function, "__globals__", {})


def _resolved(tool: str, parameter: inspect.Parameter, names: dict[str, Any]) -> Any:
    if parameter.annotation is parameter.empty:
        raise ConfigurationError(
            f"The parameter {parameter.name} of the tool {tool} has no annotation, so its arguments could not be "
            "checked. Annotate it; Any accepts everything."
        )
    # One annotation at a time, so that the return type may be a name under TYPE_CHECKING.
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except Exception as error:
        raise ConfigurationError(
            f"The annotation {parameter.annotation!r} of the parameter {parameter.name} of the tool {tool} cannot be "
            f"resolved: {error}. Import or define its names at module level, not under TYPE_CHECKING."
        ) from error


def _checked(tool: str, parameter: _Parameter) -> _Parameter:
    """Check the type of a parameter, and return the parameter with its reader."""
    parts = parts_of(parameter.type)
    whose = f"The parameter {parameter.name} of the tool {tool}"
    check_nothing_is_ignored(whose, parts)
    if parts.are_of_pydantic:
        reader = PydanticReader(whose, parameter.type, path=f"$.{parameter.name}")
        return msgspec.structs.replace(parameter, reader=reader)
    try:
        msgspec.json.Decoder(parameter.type)
        msgspec.json.schema(parameter.type)
    except Exception as error:
        raise ConfigurationError(
            f"{whose} has the type {parameter.type!r}, for which there is no JSON Schema. Use a type that msgspec "
            "supports (builtins, Literal, Struct, dataclass, TypedDict, ...), "
            f"a pydantic type, or bind it with functools.partial. ({str(error).splitlines()[0]})"
        ) from error
    return msgspec.structs.replace(parameter, classes=parts.classes)


def _schema(struct: type[msgspec.Struct], parameters: list[_Parameter], texts: Mapping[str, str]) -> Schema:
    """Return the struct's schema with the parameters at the top level and the types they refer to in `$defs`.

    Args:
        struct: The struct.
        parameters: The parameters.
        texts: Descriptions from the docstring; one in an annotation takes precedence.
    """
    whole = msgspec.json.schema(struct)
    definitions: Schema = whole["$defs"]
    schema: Schema = definitions.pop(whole["$ref"].rpartition("/")[2])
    properties: Schema = schema["properties"]
    readers = {parameter.name: parameter.reader for parameter in parameters if parameter.reader is not None}
    if readers:
        read, models = schemas_of(readers, definitions)
        properties.update(read)
        definitions.update(models)
    for parameter in parameters:
        add_formats(definitions, parameter.classes)
        shown = properties[parameter.name]
        if text := parameter.text or texts.get(parameter.name):
            shown["description"] = text
        if not parameter.required:
            with contextlib.suppress(Exception):  # a default without JSON is left out, and so is one of a factory
                shown["default"] = _default_of(parameter)
    if definitions:
        schema["$defs"] = definitions
    for part in subschemas(schema):
        part.pop("title", None)  # names of Python classes mean nothing to the model
    return schema


def _default_of(parameter: _Parameter) -> Any:
    """Return the default of a parameter as JSON.

    Raises:
        ValueError: It has none, or another value at each call.
    """
    default = parameter.default
    if parameter.make_default is not None:
        if is_made_anew(parameter.make_default):
            raise ValueError("a factory makes it")
        default = parameter.make_default()
    return (
        msgspec.to_builtins(default, str_keys=True) if parameter.reader is None else parameter.reader.default(default)
    )
