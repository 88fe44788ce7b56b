"""Reads a parameter with pydantic, which is imported only for a function whose annotations use it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, get_args, get_origin

from asyncruns.errors import ConfigurationError
from asyncruns.tools.annotations import is_of_pydantic
from asyncruns.tools.strict import Schema, subschemas

_SHOWN_ERRORS: Final = 5
_REFERENCES: Final = "#/$defs/{model}"


class DoesNotFitError(ValueError):
    """An argument does not fit its type; the text says where and why."""


class PydanticReader:
    """Decodes the JSON of one parameter, and describes it.

    Args:
        tool: The name of the tool, for messages.
        parameter: The name of the parameter.
        annotation: Its annotation.

    Raises:
        ConfigurationError: pydantic has no schema for it.
    """

    def __init__(self, tool: str, parameter: str, annotation: Any) -> None:
        from pydantic import TypeAdapter

        self._parameter = parameter
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.schema: Schema = self._adapter.json_schema(ref_template=_REFERENCES)
        except Exception as error:
            raise ConfigurationError(
                f"The parameter {parameter} of the tool {tool} uses pydantic, which has no JSON Schema for "
                f"{annotation!r}: {str(error).splitlines()[0]}"
            ) from error

    def decode(self, text: bytes) -> Any:
        """Decode the JSON of an argument.

        Raises:
            DoesNotFitError: It does not fit; the message says where and why.
        """
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            told = "; ".join(f"{one['msg']} - at `{self._path(one['loc'])}`" for one in found[:_SHOWN_ERRORS])
            more = len(found) - _SHOWN_ERRORS
            raise DoesNotFitError(f"{told}; and {more} more" if more > 0 else told) from error

    def described_in(self, definitions: Schema) -> Schema:
        """Return the schema, with the models that it refers to added to `definitions`."""
        schema = copy.deepcopy(self.schema)
        models: Schema = schema.pop("$defs", {})
        for name in [name for name, model in models.items() if definitions.get(name, model) != model]:
            _rename(schema, models, name, f"{self._parameter}_{name}")
        definitions.update(models)
        return schema

    def default(self, value: Any) -> Any:
        """Return a default as builtins of JSON.

        Raises:
            ValueError: It has no JSON.
        """
        return self._adapter.dump_python(value, mode="json")

    def _path(self, place: tuple[int | str, ...]) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (self._parameter, *place))
        return "$" + "".join(steps)


def _rename(schema: Schema, models: Schema, old: str, new: str) -> None:
    """Rename a model, since a model of another parameter has its name."""
    models[new] = models.pop(old)
    for part in (part for whole in (schema, *models.values()) for part in subschemas(whole)):
        if part.get("$ref") == _REFERENCES.format(model=old):
            part["$ref"] = _REFERENCES.format(model=new)


def with_field(annotation: Any, default: Any) -> tuple[Any, Callable[[], Any] | None]:
    """Return the annotation of a parameter with the pydantic field that is its default, and what makes its default.

    A field may also stand in `Annotated[...]`. The function itself does not know the default of a field, so that has
    to be passed to it. None if there is no field, or the field has no default.
    """
    fields = [default] if _is_field(default) else []
    if fields:
        annotation = Annotated[annotation, default]
    elif get_origin(annotation) is Annotated and default is inspect.Parameter.empty:
        fields = [one for one in get_args(annotation)[1:] if _is_field(one)]
    for field in fields:
        if not field.is_required():
            return annotation, partial(field.get_default, call_default_factory=True, validated_data={})
    return annotation, None


def _is_field(value: object) -> bool:
    return is_of_pydantic(value) and hasattr(value, "get_default")
