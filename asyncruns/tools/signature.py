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
from asyncruns.tools.results import well_formed
from asyncruns.tools.strict import Schema, make_strict, subschemas

_RECEIVERS: Final = frozenset({"self", "cls"})


class InvalidArgumentsError(ValueError):
    """The model's arguments do not fit the schema. The text is for the model and names the path, such as `$.days`."""


class _Parameter(msgspec.Struct, frozen=True):
    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Signature:
    """The parameters of a tool.

    Raises:
        ConfigurationError: A parameter is positional-only or variadic, its type has no JSON Schema, or it is the `self`
            of an unbound method.
    """

    def __init__(self, tool: str, function: Callable[..., Any], *, strict: bool = False) -> None:
        parameters = [_checked(tool, parameter) for parameter in _parameters(tool, function)]
        self._fields: Mapping[str, str] = {f"p{index}": parameter.name for index, parameter in enumerate(parameters)}
        struct = msgspec.defstruct(
            f"{tool}_arguments",
            [
                (field, parameter.type) if parameter.required else (field, parameter.type, _absent())
                for field, parameter in zip(self._fields, parameters, strict=True)
            ],
            rename=self._fields,
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
        self.schema: Schema = _schema(struct, parameters)
        if strict:
            make_strict(tool, self.schema)

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
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidArgumentsError(str(error)) from error
        values = ((name, getattr(arguments, field)) for field, name in self._fields.items())
        return {name: value for name, value in values if value is not msgspec.UNSET}


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
        yield _Parameter(parameter.name, _resolved(tool, parameter, names), parameter.default)


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
        return Any
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
    try:
        msgspec.json.Decoder(parameter.type)
        msgspec.json.schema(parameter.type)
    except Exception as error:
        raise ConfigurationError(
            f"The parameter {parameter.name} of the tool {tool} has the type {parameter.type!r}, for which there is no "
            "JSON Schema. Use a type that msgspec supports (builtins, Literal, Struct, dataclass, TypedDict, datetime) "
            f"or bind it with functools.partial. ({str(error).splitlines()[0]})"
        ) from error
    return parameter


def _schema(struct: type[msgspec.Struct], parameters: list[_Parameter]) -> Schema:
    """Return the struct's schema with the parameters at the top level and the types they refer to in `$defs`."""
    whole = msgspec.json.schema(struct)
    definitions: Schema = whole["$defs"]
    schema: Schema = definitions.pop(whole["$ref"].rpartition("/")[2])
    if definitions:
        schema["$defs"] = definitions
    for parameter in parameters:
        if not parameter.required:
            with contextlib.suppress(TypeError, ValueError, RecursionError):  # a default without JSON is left out
                default = msgspec.to_builtins(parameter.default, str_keys=True)
                schema["properties"][parameter.name]["default"] = default
    for part in subschemas(schema):
        part.pop("title", None)  # names of Python classes mean nothing to the model
    return schema
