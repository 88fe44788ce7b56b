"""Lets workflows and activities take and return structs of asyncruns, and outcomes, as JSON.

It adds to the converter that the client of Temporal has, and leaves all other values to that.
"""

from __future__ import annotations

import dataclasses
import functools
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import CompositePayloadConverter, DataConverter, EncodingPayloadConverter, PayloadConverter

from asyncruns.errors import ConfigurationError
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
        if _is_outcome(type_hint):
            return outcome_of_report(msgspec.json.decode(payload.data, type=RunReport), WorkflowClient())
        if isinstance(type_hint, type) and issubclass(type_hint, Object):
            return decode_object(payload.data, type_hint)
        if not _names_struct(type_hint):
            return self._inner.from_payload(payload, type_hint)
        if get_origin(type_hint) is list and _is_outcome(get_args(type_hint)[0]):
            reports = msgspec.json.decode(payload.data, type=list[RunReport])
            return [outcome_of_report(report, WorkflowClient()) for report in reports]
        return msgspec.json.decode(payload.data, type=type_hint)


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


def _plain(value: Any) -> Any:
    if isinstance(value, Outcome):
        return report_of(cast("AnyOutcome[Any]", value))
    if isinstance(value, Object):
        return value.to_dict()
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _is_outcome(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return all(_is_outcome(each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, Outcome)


def _names_struct(hint: Any) -> bool:
    """Return whether a type is a struct, or has one in it."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return True
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return any(map(_names_struct, get_type_hints(hint).values()))
    return any(map(_names_struct, get_args(hint))) or _is_outcome(hint)
