"""What an annotation is made of: whether pydantic must read it, and what would be ignored in it.

msgspec and pydantic each ignore the other's metadata without a word, and a limit that is not checked is worse than an
error. So an annotation that neither of them reads as a whole is refused. What stands in the fields of a pydantic model
is pydantic's business.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any, ClassVar, Final, get_args, get_origin

import msgspec

from asyncruns.errors import ConfigurationError

_OF_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"})
"""The packages whose classes and metadata pydantic reads, and msgspec does not."""

_PYDANTIC_MARKS: Final = ("__get_pydantic_core_schema__", "__pydantic_validator__", "__is_pydantic_dataclass__")


class Parts(msgspec.Struct, frozen=True):
    """What an annotation consists of, the fields of its classes included.

    Attributes:
        classes: The classes.
        metadata: What stands beside a type in `Annotated[...]`.
    """

    classes: tuple[Any, ...]
    metadata: tuple[Any, ...]

    @property
    def are_of_pydantic(self) -> bool:
        """Whether pydantic must read it."""
        return any(map(_is_class_of_pydantic, self.classes)) or any(map(is_of_pydantic, self.metadata))


def is_of_pydantic(value: object) -> bool:
    """Return whether this is metadata that pydantic reads, such as a `Field(...)`."""
    if hasattr(value, "__get_pydantic_core_schema__"):
        return True
    return any(kind.__module__.partition(".")[0] in _OF_PYDANTIC for kind in type(value).__mro__)


def parts_of(annotation: Any) -> Parts:
    """Return the classes and the metadata in an annotation."""
    classes: list[Any] = []
    metadata: list[Any] = []
    _collect(annotation, classes, metadata, set())
    return Parts(tuple(classes), tuple(metadata))


def described(annotation: Any) -> tuple[Any, str | None]:
    """Return an annotation without the texts beside it, and its description, which may also stand in other metadata.

    `Annotated[int, "How many."]` and `Annotated[int, Meta(description="How many.")]` describe an integer.
    """
    if get_origin(annotation) is not Annotated:
        return annotation, None
    inner, *metadata = get_args(annotation)
    texts = [text for one in metadata if (text := _text_of(one)) is not None]
    rest = tuple(one for one in metadata if _text_of(one) is None)
    told = [text for one in rest if isinstance(text := getattr(one, "description", None), str)]
    return (Annotated[(inner, *rest)] if rest else inner), " ".join(texts or told) or None


def check_nothing_is_ignored(whose: str, parts: Parts) -> None:
    """Check that one library reads all of the metadata.

    Args:
        whose: What has the annotation, as the beginning of a message.
        parts: What the annotation consists of.

    Raises:
        ConfigurationError: Some of it would be ignored.
    """
    if parts.are_of_pydantic:
        ignored = [one for one in parts.metadata if not is_of_pydantic(one)]
        reason = "is read by pydantic, which ignores"
        instead = "Use pydantic's Field for all of it"
    else:
        ignored = [one for one in parts.metadata if not isinstance(one, msgspec.Meta)]
        reason = "has in its annotation what nothing here reads:"
        instead = "Use msgspec.Meta or pydantic's Field, or, beside the type of the parameter itself, a text"
    if ignored:
        raise ConfigurationError(f"{whose} {reason} {', '.join(map(repr, ignored))}. {instead}.")


def field_types(kind: type) -> dict[str, Any]:
    """Return the annotations of a class's fields, by their names in JSON; those of pydantic's classes are left out."""
    is_dict = issubclass(kind, dict) and hasattr(kind, "__total__")  # a TypedDict, of typing or of typing_extensions
    is_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    is_record = dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct) or hasattr(kind, "__attrs_attrs__")
    if not (is_record or is_dict or is_tuple) or _is_class_of_pydantic(kind):
        return {}
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # a name that cannot be resolved: msgspec or pydantic says so in a moment
        return {}
    hints = {name: hint for name, hint in hints.items() if (get_origin(hint) or hint) is not ClassVar}
    if issubclass(kind, msgspec.Struct):
        renamed = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
        return {renamed[name]: hint for name, hint in hints.items() if name in renamed}
    return hints


def _is_class_of_pydantic(kind: object) -> bool:
    return any(hasattr(kind, mark) for mark in _PYDANTIC_MARKS)


def _text_of(metadata: object) -> str | None:
    """Return the text of a description: a string, or `typing_extensions.Doc`."""
    text = getattr(metadata, "documentation", metadata)
    return text if isinstance(text, str) else None


def _collect(annotation: Any, classes: list[Any], metadata: list[Any], aliases: set[int]) -> None:
    if hasattr(annotation, "__value__"):  # `type Name = ...`, which may contain itself
        if id(annotation) in aliases:
            return
        aliases.add(id(annotation))
        annotation = annotation.__value__
    if get_origin(annotation) is Annotated:
        annotation, *beside = get_args(annotation)
        metadata += [one for one in beside if one is not None]  # pydantic's `conint` leaves None there
        _collect(annotation, classes, metadata, aliases)
        return
    for part in get_args(annotation):
        _collect(part, classes, metadata, aliases)
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in classes:
        return
    classes.append(kind)
    for part in field_types(kind).values():
        _collect(part, classes, metadata, aliases)
