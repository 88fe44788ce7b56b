"""Reads values with pydantic, which is imported only for annotations that use it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, get_args, get_origin

from asyncruns.errors import ConfigurationError
from asyncruns.schemas.annotations import is_of_pydantic
from asyncruns.schemas.strict import Schema

_SHOWN_ERRORS: Final = 5
_REFERENCE: Final = "#/$defs/{model}"


class DoesNotFitError(ValueError):
    """A value does not fit its type; the text says where and why."""


class PydanticReader:
    """Decodes the JSON of one parameter, or of a whole text.

    Args:
        whose: What has the annotation, as the beginning of a message.
        annotation: The annotation.
        path: Where the JSON stands in the whole, such as `$.days`.

    Raises:
        ConfigurationError: pydantic has no schema for it, or a field of it asks for what a parameter cannot have.
    """

    def __init__(self, whose: str, annotation: Any, *, path: str = "$") -> None:
        from pydantic import TypeAdapter

        self._root = path
        for field in _fields_in(annotation):
            if field.alias is not None or field.validation_alias is not None:
                raise ConfigurationError(
                    f"{whose} has a Field with an alias, which would be ignored: name the parameter as the model is to "
                    "name it."
                )
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.adapter.json_schema()
        except Exception as error:
            raise ConfigurationError(
                f"{whose} uses pydantic, which has no JSON Schema for {annotation!r}: {str(error).splitlines()[0]}"
            ) from error

    def decode(self, text: bytes) -> Any:
        """Decode JSON.

        Raises:
            DoesNotFitError: It does not fit; the message says where and why.
        """
        from pydantic import ValidationError

        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            told = "; ".join(f"{one['msg']} - at `{self._path(one['loc'])}`" for one in found[:_SHOWN_ERRORS])
            more = len(found) - _SHOWN_ERRORS
            raise DoesNotFitError(f"{told}; and {more} more" if more > 0 else told) from error

    def default(self, value: Any) -> Any:
        """Return a default as builtins of JSON.

        Raises:
            ValueError: It has no JSON.
        """
        return self.adapter.dump_python(value, mode="json", by_alias=True)

    def _path(self, place: tuple[int | str, ...]) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
        return self._root + "".join(steps)


def schemas_of(readers: Mapping[str, PydanticReader], taken: Schema) -> tuple[dict[str, Schema], Schema]:
    """Return the schemas of these parameters, by name, and the models that they refer to.

    pydantic tells models of the same name apart. One that has a name that is taken is renamed here.
    """
    from pydantic import TypeAdapter

    inputs = [(name, "validation", reader.adapter) for name, reader in readers.items()]
    found, shared = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)  # type: ignore[arg-type]
    models: Schema = shared.get("$defs", {})
    schemas: dict[str, Any] = {name: schema for (name, _), schema in found.items()}
    new_names = {_REFERENCE.format(model=name): _REFERENCE.format(model=f"{name}_") for name in models if name in taken}
    models = {f"{name}_" if name in taken else name: model for name, model in models.items()}
    return _renamed(schemas, new_names), _renamed(models, new_names)


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, dict):
        return {key: _renamed(value, names) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_renamed(value, names) for value in schema]
    return names.get(schema, schema) if isinstance(schema, str) else schema


def with_field(annotation: Any, default: Any) -> tuple[Any, Any, Callable[[], Any] | None]:
    """Return the annotation and the default of a parameter, and what makes the default of its pydantic field.

    A field may be the default itself, or stand in `Annotated[...]`. The function does not know the default of a field,
    so that has to be passed to it. None if there is no field, or the field has no default.
    """
    empty = inspect.Parameter.empty
    is_field = _is_field(default)
    if is_field:
        annotation, default = Annotated[annotation, default], empty
    for field in _fields_in(annotation) if default is empty else ():
        if not field.is_required():
            return annotation, default, partial(field.get_default, call_default_factory=True, validated_data={})
    return annotation, default, None


def is_made_anew(make_default: Callable[[], Any]) -> bool:
    """Return whether the default of a field is made by a factory, so that each call has its own."""
    field = getattr(getattr(make_default, "func", None), "__self__", None)
    return getattr(field, "default_factory", None) is not None


def _fields_in(annotation: Any) -> list[Any]:
    """Return the fields beside the type, the last one first, since it takes precedence."""
    if get_origin(annotation) is not Annotated:
        return []
    return [one for one in reversed(get_args(annotation)[1:]) if _is_field(one)]


def _is_field(value: object) -> bool:
    return is_of_pydantic(value) and hasattr(value, "get_default") and hasattr(value, "default_factory")
