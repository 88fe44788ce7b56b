"""A tool whose JSON Schema is given, such as one from an MCP server or an OpenAPI description."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, get_origin

import msgspec

from asyncruns.errors import ConfigurationError
from asyncruns.schemas.strict import Schema, make_strict
from asyncruns.tools.context import ToolContext, is_context
from asyncruns.tools.results import well_formed
from asyncruns.tools.signature import InvalidArgumentsError, innermost
from asyncruns.wire.plain import plain_value

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class GivenSchema:
    """The arguments of a function that takes them by name, or all in one dict.

    Args:
        tool: The name of the tool.
        function: The function.
        schema: The JSON Schema of an object. Only the names are checked against it: required ones that are missing, and
            others, unless the schema and the function take any. The rest is left to the function.
        strict: Whether the schema must fit strict mode.

    Attributes:
        schema: The schema that the model reads.

    Raises:
        ConfigurationError: The schema is not one of an object, or the function takes its arguments in neither way.
        NotStrictError: It is to be strict, and strict mode cannot express it.
    """

    def __init__(self, tool: str, function: Callable[..., Any], schema: Mapping[str, Any], *, strict: bool) -> None:
        given: object = schema
        if not isinstance(given, Mapping) or given.get("type", "object") != "object":
            raise ConfigurationError(
                f'The parameters of the tool {tool} must be a JSON Schema of an object, such as {{"type": "object", '
                f'"properties": {{}}}}; got {schema!r}'
            )
        sent = {name: value for name, value in schema.items() if value is not None}
        self.schema: Schema = plain_value({"type": "object", "properties": {}, **sent})
        self._names = frozenset(self.schema["properties"])
        self._required = tuple(self.schema.get("required", ()))
        self._bound = _bound_in(function)
        self._is_whole = False
        self._types = _types_in(function)
        self._context = next((name for name, kind in self._types.items() if is_context(kind)), None)
        is_open = self.schema.get("additionalProperties") is not False or "patternProperties" in self.schema
        self._takes_any = self._find_way(tool, function) and is_open
        if strict:
            make_strict(self.schema)

    def decode(self, text: str) -> dict[str, Any]:
        """Decode the model's text into arguments; "" and `null` mean none.

        Raises:
            InvalidArgumentsError: The text is not a JSON object, or has the wrong names.
        """
        text = text.strip()
        try:
            arguments = _DECODER.decode(well_formed("{}" if text in ("", "null") else text))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidArgumentsError(str(error)) from error
        for name in self._required:
            if name not in arguments:
                raise InvalidArgumentsError(f"Object missing required field `{name}`")
        for name in arguments:
            if name in self._bound or name == self._context or not (self._takes_any or name in self._names):
                raise InvalidArgumentsError(f"Object contains unknown field `{name}`")
        return arguments

    def call(self, function: Callable[..., Any], arguments: dict[str, Any], context: ToolContext[Any]) -> Any:
        """Call the function with these arguments and its context."""
        more = {} if self._context is None else {self._context: context}
        return function(arguments, **more) if self._is_whole else function(**arguments, **more)

    def _find_way(self, tool: str, function: Callable[..., Any]) -> bool:
        """Find out how the function takes its arguments; return whether it takes names that the schema does not have.

        Raises:
            ConfigurationError: It takes them neither by name nor in one dict.
        """
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return True
        parameters = [one for one in parameters if one.name not in self._bound and one.name != self._context]
        named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        needed = [one for one in parameters if one.default is one.empty and one.kind not in _VARIADIC]
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if (takes_any or self._names <= named) and all(one.name in self._names for one in needed):
            return takes_any
        if len(needed) == 1 and not named & self._names and self._may_be_a_dict(needed[0]):
            self._is_whole = True
            return True
        raise ConfigurationError(
            f"The tool {tool} takes neither the parameters of its schema by name nor all of them in one dict: declare "
            f"**arguments, one parameter that is a dict, or the names of the schema: {', '.join(sorted(self._names))}"
        )

    def _may_be_a_dict(self, parameter: inspect.Parameter) -> bool:
        kind = self._types.get(parameter.name, Any)
        kind = get_origin(kind) or kind
        is_mapping = kind is Any or (isinstance(kind, type) and issubclass(kind, Mapping))
        return is_mapping and parameter.kind is not parameter.KEYWORD_ONLY


def _bound_in(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names that a `functools.partial` has bound; the model must not set them."""
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound.update(function.keywords)
        function = function.func
    return frozenset(bound)


def _types_in(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters, by name; none if an annotation is known to type checkers only."""
    inner = innermost(function)
    try:
        hints = typing.get_type_hints(inner if inspect.isroutine(inner) else type(inner).__call__)
    except Exception:
        return {}
    hints.pop("return", None)
    return hints
