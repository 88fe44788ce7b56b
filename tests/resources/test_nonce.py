"""The nonce in the metadata, and the search for it in a list."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns.resources import NONCE_KEY
from asyncruns.resources.adoption import find, with_nonce
from asyncruns.wire import Run


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}, {NONCE_KEY: "of another"}])
def test_a_nonce_is_added_to_the_metadata(metadata: Any) -> None:
    given, nonce = with_nonce(metadata, 16)
    assert nonce is not None
    assert given == {**(metadata or {}), NONCE_KEY: nonce}
    assert with_nonce(metadata, 16)[1] != nonce


def test_an_old_nonce_is_replaced_even_in_full_metadata() -> None:
    full = {f"key_{n}": "x" for n in range(15)}
    assert with_nonce({**full, NONCE_KEY: "of another"}, 16)[1] is not None
    assert with_nonce({**full, "last": "x"}, 16)[1] is None
    assert with_nonce("no metadata", 16) == ("no metadata", None)


@pytest.mark.parametrize(
    ("metadata", "created_at", "found"),
    [
        ({NONCE_KEY: "ours"}, 1.0, "ours"),
        ({NONCE_KEY: "theirs"}, 1000.0, None),
        ({"a": "b"}, 1000.0, None),
        ({}, 1000.0, "maybe"),
        (None, 995.0, "maybe"),
        (None, 1e6, "maybe"),
        (None, 994.0, None),
        (None, None, "maybe"),
    ],
)
def test_an_item_is_ours_may_be_ours_or_is_not(metadata: Any, created_at: float | None, found: str | None) -> None:
    run = Run(id="run_1", status="queued", metadata=metadata, created_at=created_at)
    finding = find([run], "ours", lambda item: True, 1000.0)
    assert (finding.ours, finding.maybe) == (run if found == "ours" else None, run if found == "maybe" else None)
    assert find([run], "ours", lambda item: False, 1000.0).maybe is None
    kept = Run(id="run_2", status="queued", metadata={"a": "b"})
    assert find([run, kept], "ours", lambda item: True, 1000.0).maybe is None


def test_without_the_servers_clock_an_item_of_any_age_may_be_ours() -> None:
    run = Run(id="run_1", status="queued", created_at=1.0)
    assert find([run], "ours", lambda item: True, None).maybe is run
