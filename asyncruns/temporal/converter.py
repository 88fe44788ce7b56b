"""Lets workflows and activities take and return structs of asyncruns, and outcomes, as JSON.

It adds to the converter that the client of Temporal has, and leaves all other values to that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import CompositePayloadConverter, DataConverter, EncodingPayloadConverter, PayloadConverter

from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import outcome_of_report, report_of
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.outcome import AnyOutcome, Outcome
from asyncruns.wire.codec import Object
from asyncruns.wire.codec import decode as decode_object

JSON: Final = "json/plain"


class StructsAsJSON(EncodingPayloadConverter):
    """Converts structs, and what contains them, to JSON; all other values as another converter does.

    Args:
        inner: The converter for all other values.
    """

    def __init__(self, inner: EncodingPayloadConverter) -> None:
        self._inner = inner

    @property
    def encoding(self) -> str:
        """The encoding of the other converter."""
        return self._inner.encoding

    def to_payload(self, value: Any) -> Payload | None:
        """Convert a value; None if the other converter does not convert it."""
        if not _has_struct(value):
            return self._inner.to_payload(value)
        return Payload(metadata={"encoding": self.encoding.encode()}, data=msgspec.json.encode(_plain(value)))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """Convert a payload to a value of this type."""
        if not _names(type_hint, msgspec.Struct):
            return self._inner.from_payload(payload, type_hint)
        if not _names(type_hint, Outcome):
            return _decoded(payload.data, type_hint)
        return _value(msgspec.json.decode(payload.data), type_hint)


@functools.cache
def with_structs(base: type[PayloadConverter]) -> type[PayloadConverter]:
    """Return a class of converters that converts structs, and everything else as this one does.

    Raises:
        ConfigurationError: It is not made of converters for each encoding.
    """
    if not issubclass(base, CompositePayloadConverter):
        raise ConfigurationError(
            f"The payload converter {base.__name__} is not a CompositePayloadConverter, so AsyncRunsPlugin can't add "
            "structs to it"
        )

    class WithStructs(base):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__()
            given = [
                StructsAsJSON(each) if each.encoding == JSON and not isinstance(each, StructsAsJSON) else each
                for each in self.converters.values()
            ]
            CompositePayloadConverter.__init__(self, *given)

    return WithStructs


def with_our_structs(given: DataConverter | None) -> DataConverter:
    """Return a data converter that converts structs, too; codec and external storage stay as they are."""
    found = given or DataConverter.default
    return dataclasses.replace(found, payload_converter_class=with_structs(found.payload_converter_class))


def _has_struct(value: Any) -> bool:
    if isinstance(value, msgspec.Struct):
        return True
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_struct, value))
    if isinstance(value, dict):
        return any(map(_has_struct, value.values()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_has_struct(getattr(value, field.name)) for field in dataclasses.fields(value))
    return False


# To JSON


def _plain(value: Any) -> Any:
    """Return a value as JSON, or with structs in it that can be written as they are."""
    if isinstance(value, Outcome):
        return report_of(cast("AnyOutcome[Any]", value))
    if isinstance(value, Object):
        return value.to_dict()
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    kind = type(value)
    if dataclasses.is_dataclass(kind) or (isinstance(value, msgspec.Struct) and _names(kind, Outcome)):
        return {written: _plain(getattr(value, name)) for name, written in _fields_of(kind)}
    return value


def _fields_of(kind: type[Any]) -> list[tuple[str, str]]:
    """Return the names of the fields of a struct or a dataclass, each also as in JSON."""
    if issubclass(kind, msgspec.Struct):
        return list(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    return [(field.name, field.name) for field in dataclasses.fields(kind)]


# From JSON


def _decoded(data: bytes, hint: Any) -> Any:
    """Return JSON as a value of a type without outcomes in it."""
    try:
        return msgspec.json.decode(data, type=hint)
    except msgspec.ValidationError:  # an object of the server may have another form than this version knows
        return decode_object(data, hint)


def _value(given: Any, hint: Any) -> Any:
    """Return parsed JSON as a value of a type.

    Raises:
        InvalidRequestError: There are outcomes in it, in a type that may not contain any.
    """
    hint = _bare(hint)
    if not _names(hint, Outcome):
        return _decoded(msgspec.json.encode(given), hint)
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(given, arguments)
    if issubclass(kind, Outcome):
        return outcome_of_report(msgspec.convert(given, RunReport), WorkflowClient())
    if not arguments and (dataclasses.is_dataclass(kind) or is_typeddict(kind) or issubclass(kind, msgspec.Struct)):
        return _with_fields(given, cast("Any", kind))
    if issubclass(kind, Mapping):
        of_keys = dict.__class_getitem__((arguments[0], None))
        keys = msgspec.convert(dict.fromkeys(given), of_keys, str_keys=True)
        return {key: _value(each, arguments[1]) for key, each in zip(keys, given.values(), strict=True)}
    if issubclass(kind, tuple) and arguments[-1] is not Ellipsis:
        return tuple(_value(each, of) for each, of in zip(given, arguments, strict=True))
    array: Any = next((each for each in (tuple, frozenset, set) if issubclass(kind, each)), list)
    if array is not list or issubclass(list, kind):
        return array(_value(each, arguments[0]) for each in given)
    raise InvalidRequestError(
        f"There are outcomes in {hint}: pass them alone, or in lists, tuples, dicts or dataclasses"
    )


def _with_fields(given: Mapping[str, Any], kind: type[Any]) -> Any:
    """Return parsed JSON as a dataclass, a struct or a typed dict."""
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return {name: _value(each, hints[name]) for name, each in given.items() if name in hints}
    made = (
        {field.name for field in dataclasses.fields(kind) if not field.init} if dataclasses.is_dataclass(kind) else ()
    )
    fields = [(name, written) for name, written in _fields_of(kind) if written in given and name not in made]
    return kind(**{name: _value(given[written], hints[name]) for name, written in fields})


def _one_of(given: Any, kinds: tuple[Any, ...]) -> Any:
    """Return parsed JSON as a value of one of several types."""
    if given is None and NoneType in kinds:
        return None
    outcomes = [each for each in kinds if _is_outcome(each)]
    others = tuple(each for each in kinds if each is not NoneType and each not in outcomes)
    is_report = isinstance(given, dict) and {"outcome"} <= given.keys() <= set(RunReport.__struct_fields__)
    if outcomes and (is_report or not others):
        return _value(given, outcomes[0])
    either: Any = Union
    if len(others) > 1 and any(_names(each, Outcome) for each in others):
        raise InvalidRequestError(f"There are outcomes in several types of {either[others]}: pass them in one")
    return _value(given, either[others])


# What is in a type


def _bare(hint: Any) -> Any:
    """Return a type without its annotations, and what an alias stands for."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif (alias := getattr(hint, "__value__", None)) is not None:  # of `type Runs = list[RunRef]`
            hint = alias
        else:
            return hint


def _is_outcome(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, Outcome)


def _names(hint: Any, kind: type[Any]) -> bool:
    """Return whether a type is a struct of this kind, or has one in it."""
    try:
        return _names_cached(hint, cast("Any", kind))
    except TypeError:  # not hashable, such as `Annotated[int, []]`
        return _finds(hint, kind, [])


@functools.lru_cache(maxsize=1_000)
def _names_cached(hint: Any, kind: Any) -> bool:
    return _finds(hint, kind, [])


def _finds(hint: Any, kind: type[Any], seen: list[Any]) -> bool:
    """Return whether there is a struct in a type; False where its hints cannot be read.

    Args:
        hint: The type.
        kind: The class of the struct.
        seen: The types that were looked into, which may contain themselves.
    """
    found = get_origin(hint) or hint
    if isinstance(found, type) and issubclass(found, kind):
        return True
    if any(hint is each for each in seen):
        return False
    seen.append(hint)
    return any(_finds(each, kind, seen) for each in _parts_of(hint))


def _parts_of(hint: Any) -> Collection[Any]:
    try:
        if isinstance(hint, type) and (
            dataclasses.is_dataclass(hint) or is_typeddict(hint) or issubclass(hint, msgspec.Struct)
        ):
            return get_type_hints(hint).values()
        alias = getattr(hint, "__value__", None)
    except Exception:  # a name in it is not defined, or not yet
        return ()
    return get_args(hint) if alias is None else (alias,)
