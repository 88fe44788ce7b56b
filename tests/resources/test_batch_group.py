"""A group of batches is a plain value, which can be stored and read again."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from asyncruns.errors import InvalidRequestError
from asyncruns.resources.batch_group import BatchGroup, BatchPart, with_part
from asyncruns.wire import Batch, BatchRequestCounts

BATCH = Batch(id="batch_1", status="in_progress", request_counts=BatchRequestCounts(total=2), metadata={"a": "b"})
GROUP = BatchGroup(
    parts=(
        BatchPart(input_file_id="file-1", requests=2, tokens=30, batch=BATCH),
        BatchPart(input_file_id="file-2", requests=1, tokens=10),
    ),
    endpoint="/v1/embeddings",
    metadata={"who": "me"},
    max_enqueued_tokens=40,
)


def test_it_can_be_stored_and_read_again() -> None:
    assert BatchGroup.of(json.loads(GROUP.to_json())) == GROUP
    assert BatchGroup.of(GROUP.to_dict()) == GROUP
    assert BatchGroup.of(GROUP.to_json()) == GROUP
    assert BatchGroup.of(GROUP.to_json().encode()) == GROUP
    assert BatchGroup.of(GROUP) is GROUP
    assert pickle.loads(pickle.dumps(GROUP)) == GROUP
    assert copy.deepcopy(GROUP) == GROUP


@pytest.mark.parametrize(
    "group", [None, "batch_1", {}, {"parts": 3}, {"parts": [{}], "endpoint": "/v1"}, BATCH.to_dict()]
)
def test_what_is_no_group_is_refused(group: Any) -> None:
    with pytest.raises(InvalidRequestError):
        BatchGroup.of(group)


def test_it_shows_its_batches_and_its_size() -> None:
    assert GROUP.batches == [BATCH]
    assert GROUP.requests == 3
    assert repr(GROUP) == "<BatchGroup of 2 parts, 1 created, 3 requests>"


def test_a_part_may_be_replaced() -> None:
    later = Batch(id="batch_2", status="validating")
    assert with_part(GROUP, 1, batch=later).batches == [BATCH, later]
    assert with_part(GROUP, 1, error="refused").parts[1].error == "refused"
    assert GROUP.batches == [BATCH]
