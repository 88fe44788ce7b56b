"""Recorded runs with one broken field: they decode, keep id and status, and lose nothing but the broken field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from recordings import exchanges, streamed_objects
from wire_tree import Path, kind_of, places, shape_of, value_at, with_value, without

from asyncruns import Phase
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.wire import Run, decode, encode

Json = dict[str, Any]

NEEDED: Final = ("id", "status")
# Values of every JSON type, so that most of them are wrong for any field.
WRONG: Final[tuple[Any, ...]] = (None, {}, {"x": 1}, [], [None], [{"type": "x"}], ["x"], 7, -1.5, 10**30, "x", "", True)


def _runs() -> list[Json]:
    """Return one recorded run of each shape and status."""
    bodies = [each.body for each in exchanges() if isinstance(each.body, dict)]
    bodies += [body for _, body in streamed_objects()]
    items = [body["data"] if kind_of(body) == "list of thread.run" else [body] for body in bodies]
    runs = [item for each in items for item in each if item.get("object") == "thread.run"]
    assert len(runs) > 450
    return list({(shape_of(run), run["status"]): run for run in runs}.values())


RUNS: Final = _runs()


def broken_places(run: Json) -> Iterator[Path]:
    return (path for path in places(run) if path[0] not in NEEDED)


def check_survival(run: Json, broken: Json, place: Path) -> None:
    """Decode the broken run and check that all other fields are unchanged."""
    found = decode(json.dumps(broken).encode(), Run)
    assert (found.id, found.status) == (broken["id"], broken["status"])
    written = json.loads(encode(found))
    beside = {name: value for name, value in run.items() if name != place[0]}
    assert {name: value for name, value in written.items() if name != place[0]} == beside, place
    # A watch reads the run through the dialect, which must accept it as well.
    assert ThreadRunDialect().snapshot(found).status == broken["status"]


def test_there_are_runs_of_every_status() -> None:
    assert len(RUNS) > 30
    assert {run["status"] for run in RUNS} == {
        "queued",
        "in_progress",
        "requires_action",
        "cancelling",
        "cancelled",
        "failed",
        "completed",
        "incomplete",
        "expired",
    }
    assert any(run.get("required_action") for run in RUNS)
    assert any(run.get("last_error") for run in RUNS)
    assert any(run.get("tool_resources") for run in RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['status']}-{run['id']}")
class TestBrokenRun:
    def test_any_field_may_be_absent(self, run: Json) -> None:
        for place in broken_places(run):
            check_survival(run, without(run, place), place)

    def test_any_field_may_hold_what_does_not_belong_there(self, run: Json) -> None:
        for place in broken_places(run):
            for wrong in WRONG:
                check_survival(run, with_value(run, place, wrong), place)

    def test_any_object_may_have_more_fields(self, run: Json) -> None:
        objects = [(), *(place for place in broken_places(run) if isinstance(value_at(run, place), dict))]
        for place in objects:
            for extra in ("hibernation", "tag", "raw"):
                place_of_extra = (*place, extra)
                check_survival(run, with_value(run, place_of_extra, {"since": 1}), place_of_extra)

    def test_any_tag_may_be_unknown(self, run: Json) -> None:
        for place in broken_places(run):
            if place[-1] == "type":
                check_survival(run, with_value(run, place, "hibernation"), place)

    def test_the_status_may_be_unknown(self, run: Json) -> None:
        found = decode(json.dumps({**run, "status": "hibernating"}).encode(), Run)
        assert (found.id, found.status) == (run["id"], "hibernating")
        assert json.loads(encode(found)) == {**run, "status": "hibernating"}
        assert ThreadRunDialect().snapshot(found).phase is Phase.UNKNOWN
