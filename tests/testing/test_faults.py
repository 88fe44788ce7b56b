"""Which requests a fault strikes, how it counts them, and which faults are invalid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asyncruns.testing import Emulator, Fault, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]


async def statuses(ask: Ask, count: int, method: str = "GET", path: str = "/assistants") -> list[int]:
    return [(await ask(method, path))[0] for _ in range(count)]


async def begin(emulator: Emulator, ask: Ask) -> str:
    """Start a run that never ends; return its path."""
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    _, run = await ask("POST", "/threads/runs", {"assistant_id": "asst_1"})
    return f"/threads/{run['thread_id']}/runs/{run['id']}"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=500), [500, 200, 200, 200, 200, 200, 200]),
        (Fault(status=500, times=3), [500, 500, 500, 200, 200, 200, 200]),
        (Fault(status=500, times=None), [500] * 7),
        (Fault(status=500, every=3, times=None), [200, 200, 500, 200, 200, 500, 200]),
        (Fault(status=500, every=3), [200, 200, 500, 200, 200, 200, 200]),
        (Fault(status=500, skip=2, times=2), [200, 200, 500, 500, 200, 200, 200]),
        (Fault(status=500, skip=1, every=2, times=2), [200, 200, 500, 200, 500, 200, 200]),
    ],
)
async def test_a_fault_strikes_those_requests_and_no_others(
    emulator: Emulator, ask: Ask, fault: Fault, expected: list[int]
) -> None:
    emulator.inject(fault)
    assert await statuses(ask, 7) == expected
    (injected,) = emulator.faults
    assert (injected.fault, injected.matched, injected.struck) == (fault, 7, expected.count(500))


async def test_of_two_faults_the_first_injected_strikes_and_the_second_follows(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(status=500, times=2), Fault(status=503, times=2))
    assert await statuses(ask, 5) == [500, 500, 503, 503, 200]
    assert [(injected.matched, injected.struck) for injected in emulator.faults] == [(5, 2), (5, 2)]


async def test_a_fault_that_is_due_with_an_earlier_one_misses_that_request(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(status=500, every=2, times=None), Fault(status=503, every=3, times=None))
    assert await statuses(ask, 9) == [200, 500, 503, 500, 200, 500, 200, 500, 503]


OPERATIONS = [
    ("create_assistant", "POST", "/assistants"),
    ("assistants", "GET", "/assistants"),
    ("assistant", "GET", "/assistants/a"),
    ("update_assistant", "POST", "/assistants/a"),
    ("delete_assistant", "DELETE", "/assistants/a"),
    ("create_thread", "POST", "/threads"),
    ("create_thread_and_run", "POST", "/threads/runs"),
    ("thread", "GET", "/threads/t"),
    ("update_thread", "POST", "/threads/t"),
    ("delete_thread", "DELETE", "/threads/t"),
    ("create_message", "POST", "/threads/t/messages"),
    ("messages", "GET", "/threads/t/messages"),
    ("message", "GET", "/threads/t/messages/m"),
    ("update_message", "POST", "/threads/t/messages/m"),
    ("delete_message", "DELETE", "/threads/t/messages/m"),
    ("create_run", "POST", "/threads/t/runs"),
    ("runs", "GET", "/threads/t/runs"),
    ("poll", "GET", "/threads/t/runs/r"),
    ("update_run", "POST", "/threads/t/runs/r"),
    ("cancel", "POST", "/threads/t/runs/r/cancel"),
    ("submit", "POST", "/threads/t/runs/r/submit_tool_outputs"),
    ("steps", "GET", "/threads/t/runs/r/steps"),
    ("step", "GET", "/threads/t/runs/r/steps/s"),
    ("create_response", "POST", "/responses"),
    ("delete_response", "DELETE", "/responses/r"),
    ("input_items", "GET", "/responses/r/input_items"),
    ("create_file", "POST", "/files"),
    ("files", "GET", "/files"),
    ("file", "GET", "/files/f"),
    ("delete_file", "DELETE", "/files/f"),
    ("file_content", "GET", "/files/f/content"),
    ("create_batch", "POST", "/batches"),
    ("batches", "GET", "/batches"),
    ("create_message_batch", "POST", "/messages/batches"),
    ("message_batches", "GET", "/messages/batches"),
    ("delete_message_batch", "DELETE", "/messages/batches/b"),
    ("results", "GET", "/messages/batches/b/results"),
]
ON_OTHER_WIRES = [
    ("poll", "GET", "/responses/r"),
    ("cancel", "POST", "/responses/r/cancel"),
    ("poll", "GET", "/batches/b"),
    ("cancel", "POST", "/batches/b/cancel"),
    ("poll", "GET", "/messages/batches/b"),
    ("cancel", "POST", "/messages/batches/b/cancel"),
]


@pytest.mark.parametrize(("operation", "method", "path"), OPERATIONS)
async def test_every_operation_has_a_name(emulator: Emulator, ask: Ask, operation: Any, method: str, path: str) -> None:
    emulator.inject(Fault(on=operation, status=418))
    for _, other_method, other_path in OPERATIONS:
        status, _ = await ask(other_method, other_path)
        assert (status == 418) == ((other_method, other_path) == (method, path))
    assert [seen.operation for seen in emulator.requests] == [name for name, _, _ in OPERATIONS]


@pytest.mark.parametrize(("operation", "method", "path"), ON_OTHER_WIRES)
async def test_polls_and_cancels_have_one_name_on_all_wires(
    emulator: Emulator, ask: Ask, operation: Any, method: str, path: str
) -> None:
    emulator.inject(Fault(on=operation, run_id=path.removesuffix("/cancel")[-1], status=418))
    assert (await ask(method, path))[0] == 418


async def test_any_includes_operations_that_the_server_does_not_know(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(status=503))
    assert (await ask("GET", "/nothing"))[0] == 503
    assert (emulator.requests[0].operation, emulator.requests[0].acted) == ("", False)


async def test_a_fault_may_be_limited_to_one_run(emulator: Emulator, ask: Ask) -> None:
    first, second = await begin(emulator, ask), await begin(emulator, ask)
    run_id = second.rsplit("/", 1)[1]
    emulator.inject(Fault(run_id=run_id, status=500, times=None))
    answers = [await ask("GET", path) for path in (first, second, f"{first}/steps", f"{second}/steps")]
    assert [status for status, _ in answers] == [200, 500, 200, 500]
    messages = second.split("/runs/")[0] + "/messages"
    assert (await ask("GET", messages))[0] == 200
    assert (await ask("GET", messages, run_id=run_id))[0] == 500
    assert {seen.run_id for seen in emulator.requests if seen.fault is not None} == {run_id}


async def test_faults_can_be_removed(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(status=500, times=None), Fault(status=503, times=None))
    assert await statuses(ask, 1) == [500]
    del emulator.faults[0]
    assert await statuses(ask, 1) == [503]
    emulator.faults.clear()
    assert await statuses(ask, 1) == [200]


async def test_a_request_records_the_fault_that_struck_it(emulator: Emulator, ask: Ask) -> None:
    fault = Fault(on="create_thread", status=502, message="bad", acts=True)
    emulator.inject(fault)
    for _ in range(2):
        await ask("POST", "/threads")
    await ask("GET", "/threads/thread_none")
    shown = [(seen.operation, seen.status, seen.acted, seen.fault) for seen in emulator.requests]
    assert shown == [
        ("create_thread", 502, True, fault),
        ("create_thread", 200, True, None),
        ("thread", 404, False, None),
    ]


def test_the_repr_of_a_fault_shows_its_arguments() -> None:
    fault = Fault(on="poll", status=429, headers={"Retry-After": "2"}, times=None)
    assert repr(fault) == "Fault(on='poll', times=None, status=429, headers={'Retry-After': '2'})"


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({}, "nothing goes wrong; give status"),
        ({"on": "poll", "times": 3}, "nothing goes wrong"),
        ({"acts": True}, "nothing goes wrong"),
        ({"on": "retrieve", "status": 500}, "on is 'retrieve'; give one of any, .*poll"),
        ({"damage": "torn"}, "damage is 'torn'; give one of html, empty, half, cut, repeat"),
        ({"on": "create_run", "run_id": "run_1", "status": 500}, "leave run_id out"),
        ({"status": 500, "skip": -1}, "skip is -1; give 0 or more"),
        ({"status": 500, "every": 0}, "every is 0; give 1 or more"),
        ({"status": 500, "times": 0}, "times is 0; give 1 or more"),
        ({"status": 100}, "status is 100; give one from 200 to 599"),
        ({"status": 600}, "status is 600"),
        ({"delay_before": -1.0}, "delay_before is -1.0; give seconds"),
        ({"delay_after": float("nan")}, "delay_after is nan; give seconds"),
        ({"on": "poll", "stale": -3.0}, "stale is -3.0; give seconds"),
        ({"stale": 3.0}, "stale needs on, one of .*poll"),
        ({"on": "submit", "stale": 3.0}, "stale needs on"),
        ({"message": "no"}, "give its status"),
        ({"status": 200, "code": "x"}, "give its status"),
        ({"status": 500, "message": "no", "body": b"no"}, "leave message and code out"),
        ({"damage": "html", "body": b"no"}, "damage='html' leaves nothing"),
        ({"drop": True, "status": 500}, "drop sends no answer; leave status"),
        ({"drop": True, "damage": "half"}, "drop sends no answer"),
        ({"on": "poll", "stale": 3.0, "status": 500}, "leave out what drops or replaces"),
        ({"rewrite": dict, "drop": True}, "leave out what drops or replaces"),
        ({"rewrite": dict, "damage": "repeat"}, "leave out what drops or replaces"),
        ({"stream": "fades"}, "stream is 'fades'; give one of break, close, error, silence"),
        ({"stream": "break", "events": -1}, "events is -1; give 0 or more"),
        ({"stream": "break", "damage": "cut"}, "leave out what drops, damages or replaces it"),
        ({"status": 500, "events": 1}, "give stream"),
    ],
)
def test_an_invalid_fault_is_refused(fields: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        Fault(**fields)
