"""Recorded histories are replayed: a workflow that began with an older version goes on with this one.

If a history fails here, workflows that wait at this moment would fail in the same way: see `record_histories.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import flows
import pytest
from dev_server import KEY
from record_histories import CASES, FOLDER
from recorded import opened
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from asyncruns.temporal import AsyncRunsPlugin, messages

FILES = sorted(FOLDER.glob("*.json"))
MOST_BYTES = 100_000


def history_in(path: Path) -> WorkflowHistory:
    text = path.read_text()
    return WorkflowHistory.from_json(json.loads(text)["workflowId"], text)


async def replay(path: Path) -> None:
    await Replayer(workflows=flows.WORKFLOWS, plugins=[AsyncRunsPlugin()]).replay_workflow(history_in(path))


def test_each_case_is_recorded() -> None:
    assert {path.stem for path in FILES} >= {case.__name__ for case in CASES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_recorded_history_is_replayed(path: Path) -> None:
    await replay(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_changed_workflow_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WATCH", "asyncruns.another")
    monkeypatch.setattr(messages, "WATCH_SHARD", "asyncruns.another")
    with pytest.raises(NondeterminismError):
        await replay(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recorded_history_is_small_and_has_no_credential(path: Path) -> None:
    text = path.read_text()
    assert len(text) < MOST_BYTES
    for each in (text, opened(history_in(path))):
        assert KEY not in each
        assert not re.search("authorization|bearer", each, re.IGNORECASE)
