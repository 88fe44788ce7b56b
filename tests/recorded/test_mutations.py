"""Recorded objects of every kind, changed in one place as servers may change them: no error, and nothing else is lost.

`test_broken_bodies.py` has changes that no server should send; here are changes that any server may send one day.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from recordings import exchanges, streamed_objects
from test_error_bodies import ERRORS
from wire_tree import LISTED, Path, kind_of, lost_between, places, shape_of, type_of, value_at, with_value, without

from asyncruns.dialects.errors import status_error
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.wire import Message, Page, Run, Unknown, decode, encode

Json = dict[str, Any]

NEEDED: Final = ("id", "status")
# Fields with an open set of words: a server may send a new word at any time.
OPEN: Final = {
    *("code", "detail", "model", "object", "ranker", "reason"),
    *("response_format", "role", "status", "tool_choice", "type"),
}
UNKNOWN_WORD: Final = "hibernation"
EXTRA: Final = {"since": 1, "type": UNKNOWN_WORD}


def answers() -> list[Json]:
    return [each.body for each in exchanges() if each.status == 200 and isinstance(each.body, dict)]


def _objects() -> list[Json]:
    """Return one recorded object of each kind, shape and status, including those in lists and streams."""
    found = [item for body in answers() for item in (body["data"] if body.get("object") == "list" else [body])]
    found += [body for _, body in streamed_objects()]
    modelled = [each for each in found if type_of(each.get("object", "")) is not None]
    assert len(modelled) == 1273
    return list({(each["object"], shape_of(each), each.get("status")): each for each in modelled}.values())


def _pages() -> list[Json]:
    pages = [body for body in answers() if body.get("object") == "list" and type_of(kind_of(body)) is not None]
    return list({(kind_of(each), shape_of({**each, "data": []})): each for each in pages}.values())


OBJECTS: Final = _objects()
PAGES: Final = _pages()


def places_in(found: Json) -> Iterator[Path]:
    """Yield every place except the id and the status of the object itself."""
    return (place for place in places(found) if not (len(place) == 1 and place[0] in NEEDED))


def read(kind: str, changed: Json) -> Any:
    """Decode as the caller of a method for this kind of object; check the id, the status and what reads the object."""
    found = decode(json.dumps(changed).encode(), type_of(kind))
    assert {name: getattr(found, name) for name in NEEDED if name in changed} == {
        name: changed[name] for name in NEEDED if name in changed
    }
    if isinstance(found, Run):
        assert ThreadRunDialect().snapshot(found).status == changed["status"]
    if isinstance(found, Message):
        assert isinstance(found.text, str)
    return found


def written(found: object) -> Any:
    return json.loads(encode(found))


def beside(found: Json, place: Path) -> Json:
    return {name: value for name, value in found.items() if name != place[0]}


def typed_at(found: Any, path: Path) -> Any:
    """Return the decoded value at a place of the JSON."""
    for key in path:
        found = getattr(found, str(key)) if isinstance(found, msgspec.Struct) else found[key]
    return found


def is_tagged(found: Any) -> bool:
    return isinstance(found, msgspec.Struct) and found.__struct_config__.tag is not None


def test_there_are_objects_of_every_kind() -> None:
    assert Counter(each["object"] for each in OBJECTS) == {
        "thread.run": 107,
        "assistant": 24,
        "thread.message": 24,
        "thread.run.step": 17,
        "thread": 11,
        "assistant.deleted": 1,
        "thread.deleted": 1,
        "thread.message.deleted": 1,
    }
    assert {kind_of(each).removeprefix("list of ") for each in PAGES} == LISTED.keys()


def test_any_word_of_an_open_set_may_be_unknown() -> None:
    changes: Counter[str] = Counter()
    for each in OBJECTS:
        for place in places(each):
            name = str(place[-1])
            if name in OPEN and isinstance(value_at(each, place), str):
                changed = with_value(each, place, UNKNOWN_WORD)
                assert lost_between(changed, written(read(each["object"], changed))) == Counter(), place
                changes[name] += 1
    assert changes.keys() == OPEN
    assert changes.total() == 1043


def test_an_object_with_an_unknown_tag_is_kept_whole() -> None:
    tags: set[str] = set()
    for each in OBJECTS:
        whole = read(each["object"], each)
        for place in places(each):
            if place[-1] == "type" and is_tagged(typed_at(whole, place[:-1])):
                changed = with_value(each, place, UNKNOWN_WORD)
                found = typed_at(read(each["object"], changed), place[:-1])
                assert isinstance(found, Unknown), place
                assert (found.type, found.raw) == (UNKNOWN_WORD, value_at(changed, place[:-1]))
                tags.add(value_at(each, place))
    assert tags == {
        *("function", "code_interpreter", "file_search", "retrieval"),  # tools, and their calls
        *("message_creation", "tool_calls", "logs", "image"),  # steps
        *("text", "image_file", "image_url", "file_citation"),  # messages
        "browser",  # unknown in the recordings
    }


def test_any_field_may_be_absent() -> None:
    changes = 0
    for each in OBJECTS:
        for place in places_in(each):
            found = read(each["object"], without(each, place))
            assert beside(written(found), place) == beside(each, place), place
            changes += 1
    assert changes == 4929


def test_any_field_may_be_null() -> None:
    changes = 0
    for each in OBJECTS:
        for place in places_in(each):
            found = read(each["object"], with_value(each, place, None))
            assert beside(written(found), place) == beside(each, place), place
            changes += 1
    assert changes == 4929


def test_any_object_may_have_more_fields() -> None:
    changes = 0
    for each in OBJECTS:
        for place in [(), *(place for place in places(each) if isinstance(value_at(each, place), dict))]:
            for name in (UNKNOWN_WORD, "raw", "tag"):
                changed = with_value(each, (*place, name), EXTRA)
                lost = lost_between(changed, written(read(each["object"], changed)))
                assert {path.rpartition(".")[2] for path in lost} <= {name}, place
                changes += 1
    assert changes > 2000


def test_a_page_needs_nothing_but_its_items() -> None:
    for each in PAGES:
        fields = [name for name in each if name != "data"]
        assert len(fields) >= 2
        for name in fields:
            for changed in (without(each, (name,)), with_value(each, (name,), None), {**each, UNKNOWN_WORD: EXTRA}):
                found: Page[Any] = decode(json.dumps(changed).encode(), type_of(kind_of(each)))
                assert written(found)["data"] == each["data"]
        # Without its items, a page would look like an empty list: it must raise.
        for changed in (without(each, ("data",)), with_value(each, ("data",), None)):
            with pytest.raises(msgspec.DecodeError):
                decode(json.dumps(changed).encode(), type_of(kind_of(each)))


def test_any_field_of_an_error_may_be_absent_null_or_something_else() -> None:
    others: tuple[Any, ...] = (None, UNKNOWN_WORD, EXTRA, 7, [])
    changes = 0
    for each in ERRORS:
        for place in places(each.body):
            changed_bodies = [with_value(each.body, place, value) for value in others]
            for changed in [without(each.body, place), *changed_bodies]:
                response = Response(each.status, each.headers, json.dumps(changed).encode())
                request = Request(each.method, each.path)
                assert status_error(request, response).status == each.status
                assert isinstance(
                    ThreadRunDialect().refusal(request, response).cause, type(status_error(request, response))
                )
                changes += 1
    assert changes > 2000
