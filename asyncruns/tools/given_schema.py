"""A tool whose JSON Schema is given, such as one from an MCP server or an OpenAPI description."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from asyncruns.errors import ConfigurationError
from asyncruns.tools.results import well_formed
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.strict import Schema, make_strict

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class GivenSchema:
    """The arguments of a function that takes them by name, or all in one dict.

    Args:
        tool: The name of the tool.
        function: The function.
        schema: The JSON Schema of an object. Only the names are checked against it: required ones that are missing, and
            others if `additionalProperties` is false. The rest is left to the function.
        strict: Whether the schema must fit strict mode.

    Attributes:
        schema: The schema that the model reads.
        is_whole: Whether the function takes one dict.

    Raises:
        ConfigurationError: The schema is not one of an object, or the function takes its arguments in neither way.
    """

    def __init__(self, tool: str, function: Callable[..., Any], schema: Mapping[str, Any], *, strict: bool) -> None:
        given: object = schema
        if not isinstance(given, Mapping) or given.get("type", "object") != "object":
            raise ConfigurationError(
                f'The parameters of the tool {tool} must be a JSON Schema of an object, such as {{"type": "object", '
                f'"properties": {{}}}}; got {schema!r}'
            )
        self.schema: Schema = {"type": "object", "properties": {}, **copy.deepcopy(dict(schema))}
        self._names = frozenset(self.schema["properties"])
        self._required = tuple(self.schema.get("required", ()))
        self._is_closed = self.schema.get("additionalProperties") is False
        self.is_whole: bool = self._takes_one_dict(tool, function)
        if strict:
            make_strict(tool, self.schema)

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
        unknown = sorted(set(arguments) - self._names) if self._is_closed else []
        if unknown:
            raise InvalidArgumentsError(f"Object contains unknown field `{unknown[0]}`")
        return arguments

    def _takes_one_dict(self, tool: str, function: Callable[..., Any]) -> bool:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return False
        named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if (takes_any or self._names <= named) and all(one.name in self._names for one in needed):
            return False
        if len(needed) == 1 and needed[0].kind is not needed[0].KEYWORD_ONLY:
            return True
        raise ConfigurationError(
            f"The tool {tool} takes neither the parameters of its schema by name nor all of them in one dict: declare "
            f"**arguments, one parameter, or the names of the schema: {', '.join(sorted(self._names))}"
        )
