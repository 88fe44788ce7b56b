"""Outcomes, events, statistics and refs as JSON: what a web backend returns, and a file of lines holds."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict
from wires import TWO_ROUNDS, Tools, Wire

from asyncruns import (
    APIConnectionError,
    ConnectivityChanged,
    Fleet,
    GaveUp,
    RunRef,
    Snapshot,
    StatusChanged,
)
from asyncruns.lifecycle import Connectivity, End, EndKind, Phase, Reason
from asyncruns.watch.outcome import outcome_of
from asyncruns.watch.outcome_clients import LeftBehind

REF = RunRef("thread.run", ("thread_1", "run_1"))


async def test_a_completed_outcome_becomes_json(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.5)
    outcome = await wire.watch(run, tools=tools)
    found = json.loads(json.dumps(outcome.to_dict()))
    assert found == json.loads(outcome.to_json()) == json.loads(outcome.to_json(indent=None))
    assert found["outcome"] == "Completed"
    assert found["ref"] == {"dialect": outcome.ref.dialect, "ids": [*outcome.ref.ids]}
    assert [msgspec.convert(ref, RunRef) for ref in found["refs"]] == [*outcome.refs]
    assert found["run"]["id"] == outcome.unwrap().id
    assert found["usage"]["total_tokens"] == outcome.usage.total_tokens
    assert (found["reason"], found["cause"], found["error"]) == (None, None, None)
    assert not any(name.startswith("_") for name in found)


async def test_all_events_become_json(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.5)
    async with wire.watcher(run, tools=tools) as watcher:
        events = [event async for event in watcher]
    found = [json.loads(event.to_json(indent=None)) for event in events]
    assert [one["event"] for one in found] == [type(event).__name__ for event in events]
    assert found[-1]["outcome"]["outcome"] == "Completed"
    assert {"StatusChanged", "ActionRequired", "CallAnswered", "OutputsSubmitted", "Ended"} <= {
        one["event"] for one in found
    }


async def test_statistics_become_json_and_can_be_pickled(wire: Wire) -> None:
    async with Fleet(wire.connection) as fleet:
        statistics = fleet.statistics()
    assert json.loads(statistics.to_json())["active"] == 0
    assert pickle.loads(pickle.dumps(statistics)) == statistics


@dataclass
class Job:
    state: str


class Model(BaseModel):
    state: str


class Odd:
    """Has no JSON, and its text may be a secret."""

    def __str__(self) -> str:
        return "sk-secret"


class Raising(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@dataclass
class Private:
    state: str
    _token: str = "sk-secret"


class Holding(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    odd: Odd


class Text(str):
    __slots__ = ()


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (Job("done"), {"state": "done"}),
        (Model(state="done"), {"state": "done"}),
        ({1: [Odd(), float("inf")], ("a", 2): Text("b")}, {"1": ["<Odd>", None], "['a', 2]": "b"}),
        (Private("done"), {"state": "done"}),
        (Job("\ud800"), {"state": "?"}),
        (Job(float("inf")), {"state": None}),  # type: ignore[arg-type]
        (Holding(odd=Odd()), "<Holding>"),
        (Model, "<Model>"),
        ([Raising()], ["<Raising>"]),
        (None, None),
    ],
)
def test_the_run_of_any_dialect_becomes_json(run: Any, expected: Any) -> None:
    cause = APIConnectionError("No answer", sent=True)
    snapshot: Snapshot[Any] = Snapshot(phase=Phase.RUNNING, status="working", resource=run)
    end = End(kind=EndKind.GAVE_UP, snapshot=snapshot, reason=Reason.TIMEOUT, cause=cause)
    outcome = outcome_of(
        end,
        REF,
        (REF,),
        LeftBehind(),
        polls=1,
        elapsed=2.0,
        at=1_800_000_000.0,
        context=None,
        cancel_requested=False,
        cancel_error=None,
        label=None,
    )
    assert isinstance(outcome, GaveUp)
    found = outcome.to_dict()
    assert json.loads(json.dumps(found))["run"] == expected
    assert found["reason"] == "timeout"
    assert found["cause"] == {"type": "APIConnectionError", "message": str(cause)}


CYCLIC: list[Any] = []
CYCLIC.append(CYCLIC)


@pytest.mark.parametrize("label", [None, "row 7", 7, {"row": [1, 2.5, None]}, ("a", "b")])
async def test_a_label_comes_back_in_the_outcome_and_in_its_json(wire: Wire, label: Any) -> None:
    run = await wire.start()
    outcome = await wire.watch(run, label=label)
    assert outcome.label is label
    assert json.loads(outcome.to_json())["label"] == json.loads(json.dumps(label))


@pytest.mark.parametrize("label", [object(), Odd(), Job("x"), {1: 2}, [Job("x")], CYCLIC])
async def test_a_label_that_is_no_json_is_left_out_of_the_json(wire: Wire, label: Any) -> None:
    outcome = await wire.watch(await wire.start(), label=label)
    assert outcome.label is label
    assert "label" not in outcome.to_dict()


def test_a_run_that_contains_itself_becomes_json() -> None:
    event: StatusChanged[Any] = StatusChanged(status="x", phase=Phase.RUNNING, previous=None, run=CYCLE)
    assert json.loads(event.to_json())["run"]


def test_an_event_with_an_error_becomes_json() -> None:
    event = ConnectivityChanged(connectivity=Connectivity.LOST, cause=ValueError("no"), at=2.5, ref=REF)
    assert event.to_dict() == {
        "event": "ConnectivityChanged",
        "at": 2.5,
        "ref": REF.to_dict(),
        "connectivity": "lost",
        "cause": {"type": "ValueError", "message": "no"},
    }


async def test_fastapi_returns_an_outcome(wire: Wire) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    outcome = await wire.watch(await wire.start())
    app = FastAPI()

    @app.get("/outcome")
    def get() -> dict[str, Any]:
        return outcome.to_dict()

    assert TestClient(app).get("/outcome").json()["status"] == "completed"
