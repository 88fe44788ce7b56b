"""Every recorded body of a modelled kind survives decoding and encoding, including every field."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final

import pytest
from recordings import SOURCES, exchanges, seed, streamed_objects
from wire_tree import kind_of, lost_in, type_of

from asyncruns.wire import Page, Run, decode

# Fields that the structs do not have, by the object's name: none so far.
LEFT_OUT: Final[dict[str, set[str]]] = {}

# The number of bodies of each kind. A kind that is missing here fails the test, so that it is looked at.
BODIES: Final = {
    "assistant": 139,
    "assistant.deleted": 8,
    "thread": 148,
    "thread.deleted": 10,
    "thread.message": 92,
    "thread.message.deleted": 4,
    "thread.run": 341,
    "thread.run.step": 9,
    "list of ": 16,
    "list of assistant": 9,
    "list of thread.message": 25,
    "list of thread.run": 12,
    "list of thread.run.step": 9,
}
BODIES_NOT_MODELLED: Final = {
    "assistant.file": 8,  # v1 only, like all files of assistants and messages
    "assistant.file.deleted": 2,
    "list of assistant.file": 3,
    "list of thread.message.file": 2,
    "thread.message.delta": 2,
    "thread.message.file": 6,
    "thread.run.step.delta": 2,
}
STREAMED: Final = {"thread": 7, "thread.message": 98, "thread.run": 104, "thread.run.step": 149}
STREAMED_NOT_MODELLED: Final = {
    "": 1,  # an error in the middle of a stream
    "thread.message.delta": 1473,
    "thread.run.step.delta": 776,
}


def objects() -> list[dict[str, Any]]:
    return [each.body for each in exchanges() if each.status == 200 and isinstance(each.body, dict)]


def streamed() -> list[dict[str, Any]]:
    return [body for _, body in streamed_objects()]


def of_kind(bodies: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [body for body in bodies if kind_of(body) == kind]


def test_all_exchanges_are_here() -> None:
    assert len(exchanges()) == 949
    assert Counter(each.source for each in exchanges()).keys() == set(SOURCES)


def test_every_body_is_of_a_kind_that_is_known_by_name() -> None:
    assert Counter(map(kind_of, objects())) == {**BODIES, **BODIES_NOT_MODELLED}
    assert Counter(map(kind_of, streamed())) == {**STREAMED, **STREAMED_NOT_MODELLED}
    assert all(type_of(kind) is not None for kind in (*BODIES, *STREAMED))
    assert all(type_of(kind) is None for kind in (*BODIES_NOT_MODELLED, *STREAMED_NOT_MODELLED))


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_survives_decoding_and_encoding(kind: str) -> None:
    bodies = of_kind(objects(), kind)
    assert len(bodies) == BODIES[kind]
    lost = sum((lost_in(body, type_of(kind)) for body in bodies), Counter[str]())
    assert lost.keys() == LEFT_OUT.get(kind, set())


@pytest.mark.parametrize("kind", STREAMED)
def test_a_streamed_object_survives_decoding_and_encoding(kind: str) -> None:
    bodies = of_kind(streamed(), kind)
    assert len(bodies) == STREAMED[kind]
    lost = sum((lost_in(body, type_of(kind)) for body in bodies), Counter[str]())
    assert lost.keys() == LEFT_OUT.get(kind, set())


def test_absent_is_not_null_in_the_runs_of_the_first_version() -> None:
    runs = of_kind(objects(), "thread.run")
    absent = [run for run in runs if "required_action" not in run]
    null = [run for run in runs if run.get("required_action", ...) is None]
    assert absent
    assert null
    assert all(decode(json.dumps(run).encode(), Run).required_action is not None for run in absent)
    assert all(decode(json.dumps(run).encode(), Run).required_action is None for run in null)


def json_in(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects that start at the beginning of a line of a text."""
    found: list[dict[str, Any]] = []
    after = 0
    for match in re.finditer(r"^\{", text, re.MULTILINE):
        if match.start() >= after:
            value, after = json.JSONDecoder().raw_decode(text, match.start())
            found.append(value)
    return found


def test_the_run_of_the_first_document_survives_decoding_and_encoding() -> None:
    runs = json_in(seed(0))
    assert [kind_of(run) for run in runs] == ["thread.run"] * 2
    assert [len(run) for run in runs] == [27, 27]
    assert [lost_in(run, Run) for run in runs] == [Counter(), Counter()]


def test_the_list_of_the_second_document_survives_decoding_and_encoding() -> None:
    (page,) = json_in(seed(1))
    assert kind_of(page) == "list of thread.run"
    assert [len(run) for run in page["data"]] == [26, 26]
    assert lost_in(page, Page[Run]) == Counter()
