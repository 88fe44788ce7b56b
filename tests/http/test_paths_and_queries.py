"""Paths in which every id remains one segment, and queries as the official client encodes them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from asyncruns.errors import InvalidRequestError
from asyncruns.http import join_path, query_of, require_id

# Ids that could change a path are made of a few characters.
TRICKY = st.text(alphabet="./\\%25eEfF?#; a", max_size=12)
IDS = st.one_of(st.text(), TRICKY)


@settings(deadline=None)  # a busy machine must not fail the test
@given(thread_id=IDS, run_id=IDS)
@example(thread_id="%252e%252e", run_id="x")
@example(thread_id="..%2f..", run_id="\ud800")
def test_a_path_keeps_its_segments_and_the_ids_in_them(thread_id: str, run_id: str) -> None:
    try:
        path = join_path("threads", thread_id, "runs", run_id)
    except InvalidRequestError:
        return
    raw = URL(f"http://host.example/v1{path}", encoded=True).raw_path
    assert raw == f"/v1{path}"
    segments = path.split("/")
    assert [unquote(segment) for segment in segments] == ["", "threads", thread_id, "runs", run_id]
    # Even a library that unquotes and normalises the path repeatedly stays below `/threads`.
    assert not {".", ".."} & set(unquote(unquote(raw)).replace("\\", "/").split("/"))
    assert str(URL(f"http://host.example/v1{path}")).startswith("http://host.example/v1/threads/")


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True))
def test_an_ordinary_id_is_not_changed(run_id: str) -> None:
    assert join_path("runs", run_id) == f"/runs/{run_id}"


@pytest.mark.parametrize("bad", ["", " ", "..", "%2e%2E", None, 5, b"x", ("x",)], ids=repr)
def test_an_invalid_id_is_refused_under_its_parameters_name(bad: Any) -> None:
    with pytest.raises(InvalidRequestError, match="thread_id"):
        join_path("threads", bad, "runs", "run_1")
    with pytest.raises(InvalidRequestError, match="step_id"):
        join_path("threads", "thread_1", "runs", "run_1", "steps", bad)
    with pytest.raises(InvalidRequestError, match="id"):
        join_path(bad)


def test_a_required_id_is_a_string_that_is_not_blank() -> None:
    require_id("run_id", "run_1")
    for bad in ("", "\t", None, 0):
        with pytest.raises(InvalidRequestError, match="run_id must be a non-empty string"):
            require_id("run_id", bad)


def test_a_query_omits_none_and_repeats_lists_with_brackets() -> None:
    pairs: list[tuple[str, object]] = [
        ("limit", 5),
        ("after", None),
        ("flag", True),
        ("other", False),
        ("include", ["a", "b"]),
        ("empty", []),
        ("zero", 0),
        ("text", ""),
        ("pair", ("x",)),
    ]
    assert query_of(pairs) == (
        ("limit", "5"),
        ("flag", "true"),
        ("other", "false"),
        ("include[]", "a"),
        ("include[]", "b"),
        ("zero", "0"),
        ("text", ""),
        ("pair[]", "x"),
    )
