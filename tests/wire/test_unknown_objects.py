"""Objects of an unknown type: kept whole, and encoded as sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.wire import Assistant, FunctionTool, Run, RunStep, Thread, Unknown, decode, encode
from asyncruns.wire.codec import UNKNOWN_TAG

# Finite numbers within 64 bits: JSON has no such bounds, but decoders do.
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=5)
TYPES = st.sampled_from(["function", "mcp", "text", "tool_calls", UNKNOWN_TAG, ""]) | st.text(max_size=6)

FIELDS = [name for name in Run.__struct_encode_fields__ if name not in ("id", "status")]


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), JSON, max_size=6),
    run_id=st.text(),
    status=st.text(),
)
def test_any_object_with_an_id_and_a_status_is_a_run(fields: dict[str, Any], run_id: str, status: str) -> None:
    found = decode(msgspec.json.encode({**fields, "id": run_id, "status": status}), Run)
    assert (found.id, found.status) == (run_id, status)
    assert decode(encode(found), Run) == found


@settings(deadline=None)  # a busy machine must not fail the test
@given(tools=st.lists(st.builds(lambda kind, more: {**more, "type": kind}, TYPES, OBJECTS), max_size=4))
def test_any_list_of_objects_is_a_list_of_tools(tools: list[dict[str, Any]]) -> None:
    found = decode(msgspec.json.encode({"id": "a", "tools": tools}), Assistant)
    assert isinstance(found.tools, list)
    for given_tool, tool in zip(tools, found.tools, strict=True):
        if isinstance(tool, Unknown):
            assert tool.raw == given_tool
            assert msgspec.json.decode(encode(tool)) == given_tool


@settings(deadline=None)  # a busy machine must not fail the test
@given(details=JSON | st.builds(lambda kind, more: {**more, "type": kind}, TYPES, OBJECTS))
def test_the_details_of_a_step_may_be_any_value(details: object) -> None:
    decode(msgspec.json.encode({"id": "s", "status": "x", "step_details": details}), RunStep)


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_decode_error(data: bytes) -> None:
    for type_ in (Run, RunStep, Thread):
        with suppress(msgspec.DecodeError):
            decode(data, type_)


@settings(deadline=None)  # a busy machine must not fail the test
@given(OBJECTS, st.data())
def test_no_damaged_json_raises_anything_but_a_decode_error(fields: dict[str, Any], data: st.DataObject) -> None:
    whole = msgspec.json.encode({"id": "run_1", "status": "queued", "metadata": fields})
    place = data.draw(st.integers(0, len(whole)))
    for spoiled in (
        whole[:place],
        whole[:place] + b"\xff" + whole[place + 1 :],
        whole[:place] + rb"\ud800" + whole[place:],
    ):
        with suppress(msgspec.DecodeError):
            decode(spoiled, Run)


ODD = {"type": "mcp", "id": "call_1", "name": None, "deep": [{"type": "mcp", "x": 1.5}], "text": 'a "quoted" ü'}


@pytest.mark.parametrize(
    "raw",
    [
        ODD,
        {"id": "no type"},
        {"type": None},
        {"type": UNKNOWN_TAG, "id": "call_1"},
        {"type": UNKNOWN_TAG, "raw": {"a": 1}},
        {"type": UNKNOWN_TAG, "raw": {"type": UNKNOWN_TAG, "raw": {}}},
        {"raw": {}},
        {UNKNOWN_TAG: 1},
        {},
    ],
    ids=str,
)
def test_an_unknown_object_is_encoded_as_sent(raw: dict[str, Any]) -> None:
    fields = {"id": "asst_1", "tools": [raw, {"type": "function", "function": {"name": "f"}}]}
    found = decode(msgspec.json.encode(fields), Assistant)
    assert isinstance(found.tools, list)
    assert isinstance(found.tools[0], Unknown)
    assert isinstance(found.tools[1], FunctionTool)
    assert found.tools[0].raw == raw
    assert msgspec.json.decode(encode(found))["tools"] == fields["tools"]
    assert msgspec.json.decode(encode({"tools": found.tools}))["tools"] == fields["tools"]
    assert decode(encode(found), Assistant) == found


def test_an_unknown_object_has_the_servers_type_and_id() -> None:
    assert (Unknown(ODD).type, Unknown(ODD).id) == ("mcp", "call_1")
    assert (Unknown({}).type, Unknown({}).id) == ("", "")
    assert (Unknown({"type": 5, "id": None}).type, Unknown({"type": 5, "id": None}).id) == ("", "")


def test_metadata_with_the_same_tag_is_not_taken_for_an_unknown_object() -> None:
    metadata = {"type": UNKNOWN_TAG}
    body = {"metadata": metadata, "tools": [Unknown(ODD)]}
    assert msgspec.json.decode(encode(body)) == {"metadata": metadata, "tools": [ODD]}


def test_iterables_and_mappings_of_any_kind_are_encoded() -> None:
    def generated() -> Iterator[object]:
        yield Unknown(ODD)
        yield MappingProxyType({"type": "file_search"})

    body = {"tools": generated(), "metadata": MappingProxyType({"a": "b"}), "file_ids": range(2)}
    assert msgspec.json.decode(encode(body)) == {
        "tools": [ODD, {"type": "file_search"}],
        "metadata": {"a": "b"},
        "file_ids": [0, 1],
    }


@pytest.mark.parametrize("value", [object(), {"a": object}, 1j, "\ud800", {(1, 2): 3}])
def test_a_value_that_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)
