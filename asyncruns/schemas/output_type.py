"""The type that a run's text is read as: the strict JSON Schema to send, and the value of a text.

A run that was created elsewhere may write the JSON of any type. A type whose schema is sent must satisfy strict mode:
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.schemas.annotations import Parts, check_nothing_is_ignored, parts_of
from asyncruns.schemas.pydantic_types import DoesNotFitError, PydanticReader
from asyncruns.schemas.strict import NotStrictError, Schema, make_strict, subschemas
from asyncruns.schemas.time_formats import add_formats

_OTHER_THAN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME: Final = 64
_MODULES: Final = re.compile(r"(?:[\w<>]+\.)+(?=\w)")
_Decode = Callable[[bytes], Any]
_KINDS: Final = "a pydantic model, a msgspec Struct, a dataclass or a TypedDict"


class OutputType:
    """Reads texts as values of a type, and has the schema by which a model writes them.

    Args:
        type_: The type.

    Attributes:
        shown: The name of the type, for messages.

    Raises:
        InvalidRequestError: JSON cannot be read as this type, or something in its annotations would be ignored.
    """

    def __init__(self, type_: Any) -> None:
        self.shown: str = _name_of(type_)
        whose = f"output_type {self.shown}"
        try:
            parts = parts_of(type_)
            check_nothing_is_ignored(whose, parts)
            self._decode, self._loose = (
                _of_pydantic(whose, type_) if parts.are_of_pydantic else _of_msgspec(type_, parts)
            )
        except ConfigurationError as error:
            raise InvalidRequestError(str(error)) from error
        except Exception as error:  # of msgspec, and of the annotations of the caller's classes
            reason = " ".join(str(error).split())
            raise InvalidRequestError(
                f"output_type must be a type that JSON can be read as, such as {_KINDS}; got {self.shown} ({reason})"
            ) from error

    def decode(self, text: str) -> Any:
        """Return the value of a JSON text.

        Raises:
            DoesNotFitError: The text is not JSON, or does not fit the type; the message says where and why.
        """
        try:
            return self._decode(text.encode(errors="replace"))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DoesNotFitError(str(error)) from error

    @property
    def name(self) -> str:
        """The name of the schema in a request: 1 to 64 of a-z, A-Z, 0-9, _ and -."""
        return _OTHER_THAN_NAMES.sub("_", self.shown).strip("_")[:_LONGEST_NAME] or "output"

    @cached_property
    def schema(self) -> Schema:
        """The strict JSON Schema; not to be modified.

        Raises:
            InvalidRequestError: Strict mode cannot express the type, or its JSON is not an object.
        """
        schema = _with_root(copy.deepcopy(self._loose))
        for part in subschemas(schema):
            part.pop("title", None)  # of pydantic: the names of fields once more
        if schema.get("type") != "object":
            raise InvalidRequestError(
                f"The JSON of output_type must be an object, which that of {self.shown} is not: wrap it in a class "
                f"with one field, such as `value: {self.shown}`"
            )
        try:
            make_strict(schema)
        except NotStrictError as error:
            raise InvalidRequestError(f"output_type {self.shown} cannot be sent: {error}") from error
        return schema


def output_type_of(type_: Any) -> OutputType:
    """Return the `OutputType` of a type; the same one for the same type, since many watches share one.

    Raises:
        InvalidRequestError: See `OutputType`.
    """
    try:
        hash(type_)
    except TypeError:  # `Annotated[...]` with metadata such as a dict
        return OutputType(type_)
    return _cached(type_)


_cached = lru_cache(maxsize=128)(OutputType)


def _of_pydantic(whose: str, type_: Any) -> tuple[_Decode, Schema]:
    reader = PydanticReader(whose, type_)
    return reader.decode, reader.adapter.json_schema()


def _of_msgspec(type_: Any, parts: Parts) -> tuple[_Decode, Schema]:
    schema = msgspec.json.schema(type_)  # first: a decoder takes any class, and then refuses every value
    add_formats(schema.get("$defs", {}), parts.classes)
    return msgspec.json.Decoder(type_).decode, schema


def _name_of(type_: Any) -> str:
    if get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    return type_.__name__ if isinstance(type_, type) else _MODULES.sub("", repr(type_))


def _with_root(schema: Schema) -> Schema:
    """Return a schema with the definition that its root refers to in place of the reference."""
    reference = schema.pop("$ref", None)
    if reference is None:
        return schema
    name = reference.rpartition("/")[2]
    definitions = schema["$defs"]
    schema = {**copy.deepcopy(definitions[name]), **schema}  # such as a description beside the reference
    if all(part.get("$ref") != reference for part in subschemas(schema) if part is not schema):
        del definitions[name]  # it stays if the type contains itself
    if not definitions:
        del schema["$defs"]
    return schema
