"""Where the runs of a list are: whatever servers show, each watched run gets polled, and exploring costs little."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.abc import CollectivePoll
from asyncruns.dialects.list_polls import ListedRuns, ListPolls
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Phase, Refusal, RefusalKind, RunRef, Snapshot

PAGE = 10


class Pages(ListPolls[Any]):
    """Pages of a list in memory, which is oldest first."""

    def __init__(self, ids: list[str], *, ignores_after: bool = False) -> None:
        super().__init__()
        self.ids = ids
        self.ignores_after = ignores_after
        self.requested: list[str] = []

    def request(self, cursor: str) -> Request:
        self.requested.append(cursor)
        return Request("GET", "/list", (("after", cursor),))

    def page(self, request: Request, response: Response) -> ListedRuns:
        ((_, cursor),) = request.query
        end = self.ids.index(cursor) if cursor and not self.ignores_after else len(self.ids)
        shown = self.ids[max(end - PAGE, 0) : end][::-1]
        return ListedRuns([(ref(id_), snapshot(id_)) for id_ in shown], shown[-1] if end > PAGE else None)


def ref(id_: str) -> RunRef:
    return RunRef("listed", (id_,))


def snapshot(id_: str) -> Snapshot[Any]:
    return Snapshot(phase=Phase.RUNNING, status="working", resource=None, created_at=1000.0 + int(id_))


def of(pages: Pages, watched: list[str], *, told: bool = True) -> Pages:
    for id_ in watched:
        pages.add(ref(id_), snapshot(id_) if told else None)
    return pages


def answered(pages: Pages, poll: CollectivePoll) -> set[str]:
    return {found.ids[0] for found in pages.read(poll, Response(200, {}, b""))}


def seen(pages: Pages, id_: str) -> set[str]:
    """Poll a run, and return which runs that showed."""
    poll = pages.poll(ref(id_))
    if poll is not None:
        return answered(pages, poll)
    pages.polled_alone(ref(id_))
    return {id_}


def numbers(count: int) -> list[str]:
    return list(map(str, range(count)))


def test_runs_next_to_each_other_are_found_page_by_page_and_then_each_page_is_one_poll() -> None:
    ids = numbers(30)
    pages = of(Pages(ids), ids)
    assert [len(seen(pages, id_)) for id_ in ("29", "19", "9")] == [10, 10, 10]
    assert pages.requested == ["", "20", "10"]
    assert seen(pages, "15") == set(ids[10:20])
    assert pages.requested[3:] == ["20"]


@pytest.mark.parametrize("told", [True, False])
def test_exploring_stops_at_the_oldest_run_that_is_watched_if_its_age_is_known(told: bool) -> None:
    ids = numbers(500)
    pages = of(Pages(ids), ids[485:], told=told)
    pages.ids.remove("486")
    pages.ids.remove("487")  # both are on no page
    seen(pages, "499")
    seen(pages, "486")
    assert pages.requested == ["", "490"]
    seen(pages, "487")
    assert pages.requested == ["", "490"] if told else ["", "490", "478"]


def test_a_run_is_polled_by_the_page_that_showed_it_last() -> None:
    ids = numbers(30)
    pages = of(Pages(ids), ids)
    for id_ in ("29", "19", "9"):
        seen(pages, id_)
    pages.ids += ["30", "31"]
    of(pages, ["30", "31"])
    assert seen(pages, "31") == set(pages.ids[22:])
    poll = pages.poll(ref("29"))
    assert poll is not None
    assert {each.ids[0] for each in poll.refs} == set(pages.ids[22:])


def test_a_run_that_was_pushed_off_its_page_is_found_below_it() -> None:
    ids = numbers(12)
    pages = of(Pages(ids), ids[2:])
    seen(pages, "11")
    pages.ids += ["12", "13"]  # of others
    assert seen(pages, "11") == set(ids[4:]) | {"12", "13"}
    assert seen(pages, "3") == set(ids[:4])
    assert pages.requested == ["", "", "4"]


def test_exploring_goes_on_after_a_run_that_was_polled_by_itself() -> None:
    ids = numbers(5000)
    watched = ids[1000:1020]
    pages = of(Pages(ids), watched, told=False)
    found: set[str] = set()
    for id_ in reversed(watched):
        found |= seen(pages, id_)
    assert set(pages.requested) == {"", "1018", "1008"}
    assert set(watched[:-1]) <= found  # the first poll of 1019 explored, and found nothing


def test_without_anything_to_find_exploring_ends_and_is_tried_again_rarely() -> None:
    watched = numbers(100)
    pages = of(Pages([str(number) for number in range(5000, 9000)]), watched, told=False)
    singles = 0
    for _ in range(20):
        for id_ in watched:
            poll = pages.poll(ref(id_))
            if poll is None:
                singles += 1
                pages.polled_alone(ref(id_))
            elif poll.key[0] in pages.ids or not poll.key[0]:
                answered(pages, poll)
            else:
                refusal = Refusal(kind=RefusalKind.NOT_FOUND, cause=ValueError())
                assert pages.failed(poll, refusal)
    assert singles > 1900
    assert len(pages.requested) < 60


def test_a_list_that_ignores_the_cursor_is_explored_no_more() -> None:
    ids = numbers(1000)
    pages = of(Pages(ids, ignores_after=True), ids[:980], told=False)
    for _ in range(3):
        for id_ in ids[:980]:
            seen(pages, id_)
    assert len(pages.requested) < 3 * 980 / 20


def test_a_page_with_one_run_is_not_requested_again() -> None:
    ids = numbers(10)
    pages = of(Pages(ids), ids)
    assert len(seen(pages, "5")) == 10
    for id_ in ids[1:]:
        pages.discard(ref(id_))
    assert pages.poll(ref("0")) is None


def test_a_failure_that_passes_is_no_reason_to_stop_exploring() -> None:
    ids = numbers(30)
    pages = of(Pages(ids), ids)
    for _ in range(20):
        poll = pages.poll(ref("3"))
        assert poll is not None
        assert pages.failed(poll, Refusal(kind=RefusalKind.LOST, cause=ValueError()))
    assert set(pages.requested) == {""}


@settings(deadline=None)
@given(
    total=st.integers(0, 60),
    draws=st.lists(
        st.tuples(st.sampled_from(["poll", "new", "new of others", "end", "delete", "late"]), st.integers(0, 999)),
        max_size=60,
    ),
    ignores_after=st.booleans(),
)
def test_whatever_happens_each_run_is_polled_again(
    total: int, draws: list[tuple[str, int]], ignores_after: bool
) -> None:
    pages = Pages(numbers(total), ignores_after=ignores_after)
    watched = {id_ for id_ in pages.ids if int(id_) % 3}
    of(pages, sorted(watched), told=total % 2 == 0)
    late: list[CollectivePoll] = []

    def poll(id_: str) -> set[str]:
        poll = pages.poll(ref(id_))
        if poll is None:
            pages.polled_alone(ref(id_))
            return {id_}
        assert ref(id_) in poll.refs
        assert {each.ids[0] for each in poll.refs} <= watched
        if poll.key[0] and poll.key[0] not in pages.ids:
            pages.failed(poll, Refusal(kind=RefusalKind.NOT_FOUND, cause=ValueError()))
            return set()
        return answered(pages, poll)

    for what, number in draws:
        id_ = sorted(watched)[number % len(watched)] if watched else None
        match what:
            case "new" | "new of others":
                total += 1
                pages.ids.append(str(total + 1000))
                if what == "new":
                    watched.add(pages.ids[-1])
                    pages.add(ref(pages.ids[-1]), None)
            case "end" | "delete" if id_ is not None:
                watched.discard(id_)
                pages.discard(ref(id_))
                if what == "delete" and id_ in pages.ids:
                    pages.ids.remove(id_)
            case "late" if id_ is not None:  # its answer comes when others were polled
                begun = pages.poll(ref(id_))
                late += [] if begun is None else [begun]
            case "poll" if id_ is not None:
                poll(id_)
            case _:
                pass
    for begun in late:
        if not begun.key[0] or begun.key[0] in pages.ids:
            answered(pages, begun)
    for id_ in sorted(watched):
        assert any(id_ in poll(id_) for _ in range(12)), "a run is never shown"
    for id_ in watched:
        pages.discard(ref(id_))
    assert not pages._cursors
    assert not pages._placed
    assert not pages._shown
    assert not pages._unplaced
