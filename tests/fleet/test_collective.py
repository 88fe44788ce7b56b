"""Many runs polled with one request, in a fleet. The server and its dialect are those of `listed.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
import pytest
from listed import EPOCH, Job, JobClient, JobDialect, JobPage, JobServer, job_snapshot, refused

from asyncruns import Cadence, Cancelled, Completed, ConnectivityChanged, Fleet, GaveUp, Reason, RunRef
from asyncruns.abc import CollectivePoll, CollectivePolls
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Refusal, Snapshot


def after(seconds: float) -> Callable[[int], float]:
    return lambda number: seconds + number / 100


def is_list(request: Request) -> bool:
    return request.path == "/jobs"


async def outcomes(fleet: Fleet[Any]) -> list[Any]:
    return [outcome async for outcome in fleet]


async def delays(
    server: JobServer, jobs: Iterable[Any], per_second: float | None = 10.0, *, alone: bool = False
) -> list[float]:
    """Watch jobs to their ends; return by how many seconds each end was noticed late."""
    now = asyncio.get_running_loop().time
    async with Fleet(JobClient(server, alone=alone), requests_per_second=per_second) as fleet:
        for job in jobs:
            fleet.watch(job)
        return [now() - server.ends[outcome.ref.ids[0]] async for outcome in fleet if isinstance(outcome, Completed)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mixed(server: JobServer, count: int, *, between: int = 0) -> list[Job]:
    """Create jobs that last for about 15 s, in random order, with ended ones between them."""
    draw = random.Random(1)
    jobs = []
    for _ in range(count):
        jobs += server.add(1, lambda _: draw.lognormvariate(2.7, 0.8))
        server.add(between, lambda _: -1.0)
    draw.shuffle(jobs)
    return jobs


async def test_a_hundred_runs_are_polled_with_one_request() -> None:
    server = JobServer()
    found = await delays(server, server.add(100, after(20.0)))
    assert len(found) == 100
    assert max(found) < 2.0
    assert server.singles < 20
    assert server.lists < 150


@pytest.mark.slow
async def test_at_the_same_budget_ends_are_noticed_many_times_sooner() -> None:
    server, other = JobServer(), JobServer()
    together, alone = (
        await delays(server, mixed(server, 500)),
        await delays(other, mixed(other, 500), alone=True),
    )
    assert len(together) == len(alone) == 500
    assert mean(together) * 20 < mean(alone)


@pytest.mark.parametrize("known", ["objects", "refs"])
async def test_thousands_of_ended_runs_before_and_after_them_do_no_harm(known: str) -> None:
    server = JobServer()
    server.add(5000, lambda _: -1.0)
    jobs: list[Any] = mixed(server, 300)
    server.add(5000, lambda _: -1.0)
    if known == "refs":
        jobs = [RunRef("job", (job.id,)) for job in jobs]
    found = await delays(server, jobs)
    assert len(found) == 300
    assert mean(found) < 2.0


async def test_ended_runs_among_them_make_it_no_worse_than_single_polls() -> None:
    server, other = JobServer(), JobServer()
    together = await delays(server, mixed(server, 200, between=120))
    alone = await delays(other, mixed(other, 200, between=120), alone=True)
    assert mean(together) < mean(alone) * 1.1
    assert server.lists < server.singles / 10


async def test_a_single_run_is_polled_by_itself() -> None:
    server = JobServer()
    await delays(server, server.add(1, after(20.0)))
    assert server.lists == 0


@pytest.mark.parametrize("status", [404, 405, 400, 401, 501])
async def test_without_a_list_all_runs_are_polled_by_themselves(status: int) -> None:
    server = JobServer()
    server.broken = lambda request: refused(status) if is_list(request) else None
    found = await delays(server, server.add(50, after(20.0)), None)
    assert len(found) == 50
    assert mean(found) < 2.0
    assert server.lists <= 3


async def test_a_list_that_is_no_list_is_left_alone() -> None:
    server = JobServer()
    server.broken = lambda request: Response(200, {}, b"<html>") if is_list(request) else None
    found = await delays(server, server.add(50, after(20.0)), None)
    assert len(found) == 50
    assert server.lists <= 3


@pytest.mark.parametrize("shown", [0, 100])
async def test_a_list_that_repeats_itself_costs_little(shown: int) -> None:
    """It ignores `after`, and never says that it ends."""
    server = JobServer()

    def first_page(request: Request) -> Response | None:
        if not is_list(request):
            return None
        at = asyncio.get_running_loop().time()
        ids = server.order[-shown:][::-1] if shown else ["job_other"]
        jobs = [server.job(id_, at) if id_ in server.ends else Job(id_, "working", EPOCH) for id_ in ids]
        return Response(200, {}, msgspec.json.encode(JobPage(jobs, has_more=True)))

    server.broken = first_page
    found = await delays(server, server.add(400, after(30.0)))
    assert len(found) == 400
    if not shown:
        assert server.lists < server.singles / 20


async def test_a_run_on_no_page_is_polled_by_itself() -> None:
    server = JobServer()
    jobs = server.add(20, after(20.0))
    server.order.remove(jobs[5].id)  # its places are those of the others now, which `after` does not mind
    server.places = {id_: place for place, id_ in enumerate(server.order)}
    found = await delays(server, jobs, None)
    assert len(found) == 20
    assert max(found) < 2.5


async def test_a_run_that_does_not_exist_is_not_found() -> None:
    server = JobServer()
    jobs: list[Any] = [*server.add(20, after(20.0)), RunRef("job", ("job_nowhere",))]
    async with Fleet(JobClient(server)) as fleet:
        for job in jobs:
            fleet.watch(job)
        ends = await outcomes(fleet)
    lost = [outcome for outcome in ends if isinstance(outcome, GaveUp)]
    assert [outcome.reason for outcome in lost] == [Reason.NOT_FOUND]
    assert len(ends) == 21


async def test_a_list_that_lags_is_found_out() -> None:
    server = JobServer()
    server.lag = 1000.0
    found = await delays(server, server.add(50, after(60.0)), None)
    assert len(found) == 50
    assert mean(found) < 15.0
    lists = [at for at, path in server.requests if path.startswith("/jobs?") or path == "/jobs"]
    assert max(lists) < server.created[server.order[0]] + 75.0


async def test_runs_that_come_later_push_others_off_their_page() -> None:
    server = JobServer()
    now = asyncio.get_running_loop().time
    ends = []
    async with Fleet(JobClient(server), requests_per_second=10.0) as fleet:

        async def create() -> None:
            with fleet.keep_open():
                for _ in range(300):
                    for job in server.add(1, after(40.0)):
                        fleet.watch(job)
                    server.add(1, lambda _: -1.0)  # of others
                    await asyncio.sleep(0.1)

        creating = asyncio.create_task(create())
        async for outcome in fleet:
            ends.append(now() - server.ends[outcome.ref.ids[0]])
        await creating
    assert len(ends) == 300
    assert mean(ends) < 2.0
    assert server.lists > 100


@pytest.mark.slow
async def test_a_cursor_that_was_deleted_is_replaced() -> None:
    server = JobServer()
    jobs = server.add(300, after(60.0))
    async with Fleet(JobClient(server), requests_per_second=20.0) as fleet:
        for job in jobs:
            fleet.watch(job)
        await asyncio.sleep(10.0)
        for cursor in {path.partition("=")[2] for _, path in server.requests if "=" in path}:
            del server.places[cursor]  # so that `after` is refused
        before = len(server.requests)
        ends = await outcomes(fleet)
    assert len(ends) == 300
    assert len(server.requests) - before < 2000


@pytest.mark.parametrize("fault", ["500", "dropped", "429"])
async def test_an_outage_is_told_to_all_watches_and_survived(fault: str) -> None:
    server = JobServer()
    now = asyncio.get_running_loop().time
    began = now()
    told: list[Any] = []

    def broken(request: Request) -> Response | None:
        if not 15.0 < now() - began < 35.0:
            return None
        if fault == "dropped":
            raise APIConnectionError("gone", sent=True)
        return refused(int(fault))

    server.broken = broken
    jobs = server.add(100, after(50.0))
    async with Fleet(JobClient(server), requests_per_second=10.0) as fleet:
        for job in jobs:
            fleet.watch(job, on_event=told.append)
        ends = await outcomes(fleet)
    assert all(isinstance(outcome, Completed) for outcome in ends)
    assert len(ends) == 100
    changes = [event for event in told if isinstance(event, ConnectivityChanged)]
    assert len({event.ref for event in changes}) > 50


async def test_a_list_alone_that_fails_does_not_end_the_watches() -> None:
    server = JobServer()
    server.broken = lambda request: refused(503) if is_list(request) else None
    found = await delays(server, server.add(50, after(200.0)), None)
    assert len(found) == 50
    assert server.lists < 40


async def test_cancelled_runs_are_seen_by_pages_too() -> None:
    server = JobServer()
    jobs = server.add(100, after(1000.0))
    async with Fleet(JobClient(server), requests_per_second=50.0) as fleet:
        watches = [fleet.watch(job) for job in jobs]
        await asyncio.sleep(10.0)
        for watch in watches:
            await watch.cancel_run()
        ends = await outcomes(fleet)
    assert all(isinstance(outcome, Cancelled) for outcome in ends)
    assert len(ends) == 100


async def test_leaving_cancels_all() -> None:
    server = JobServer()
    jobs = server.add(100, after(1000.0))
    async with Fleet(JobClient(server), requests_per_second=50.0, on_exit="cancel") as fleet:
        for job in jobs:
            fleet.watch(job)
        await asyncio.sleep(10.0)
    assert len(server.stopped) == 100


@pytest.mark.slow
async def test_a_run_that_is_to_be_polled_now_is_polled_with_its_page() -> None:
    server = JobServer()
    jobs = server.add(100, after(300.0))
    async with Fleet(JobClient(server)) as fleet:
        watches = [fleet.watch(job) for job in jobs]
        await asyncio.sleep(100.0)
        server.ends[jobs[50].id] = server.ends[jobs[60].id] = asyncio.get_running_loop().time()
        before = len(server.requests)
        assert fleet.poll_now(jobs[50].id)
        await asyncio.sleep(0.2)
        assert len(server.requests) - before <= 2
        assert watches[50].outcome is not None
        fleet_statistics = fleet.statistics()
        await fleet.drain()
    assert 0 < fleet_statistics.collective_polls <= fleet_statistics.polls


async def test_polls_of_an_outcome_are_all_that_showed_the_run() -> None:
    server = JobServer()
    jobs = server.add(20, after(20.0))
    async with Fleet(JobClient(server)) as fleet:
        for job in jobs:
            fleet.watch(job)
        ends = await outcomes(fleet)
    assert all(outcome.polls > 5 for outcome in ends)
    assert sum(outcome.polls for outcome in ends) > 3 * len(server.requests)


# Other ways than a list


class Search(CollectivePolls[Job]):
    """Polls by a search for ids, which shows each run that is named."""

    def __init__(self) -> None:
        self.watched: dict[RunRef, None] = {}

    def add(self, ref: RunRef, snapshot: Snapshot[Any] | None) -> None:
        self.watched[ref] = None

    def discard(self, ref: RunRef) -> None:
        self.watched.pop(ref, None)

    def poll(self, ref: RunRef) -> CollectivePoll | None:
        if len(self.watched) < 2:
            return None
        some = [ref, *(other for other in self.watched if other != ref)][:50]
        for other in some:  # those that were not polled for the longest time are first
            self.watched[other] = self.watched.pop(other)
        return CollectivePoll(request=Request("GET", "/search", tuple(("id", ref.ids[0]) for ref in some)), refs=some)

    def read(self, poll: CollectivePoll, response: Response) -> Mapping[RunRef, Snapshot[Job]]:
        jobs = msgspec.json.decode(response.body, type=list[Job])
        return {RunRef("job", (job.id,)): job_snapshot(job) for job in jobs}

    def failed(self, poll: CollectivePoll, refusal: Refusal) -> bool:
        return False

    def polled_alone(self, ref: RunRef) -> None:
        pass


def searched(server: JobServer, request: Request, *, ignores_ids: bool = False) -> Response | None:
    if request.path != "/search":
        return None
    ids = [id_ for _, id_ in request.query]
    shown = list(server.ends)[:10] if ignores_ids else ids
    jobs = [server.job(id_, asyncio.get_running_loop().time()) for id_ in shown]
    return Response(200, {}, msgspec.json.encode(jobs))


class SearchDialect(JobDialect):
    def collective(self) -> CollectivePolls[Job] | None:
        return Search()


@pytest.mark.parametrize("ignores_ids", [False, True])
async def test_a_search_by_ids_is_such_a_poll_too(ignores_ids: bool) -> None:
    server = JobServer()
    server.broken = partial(searched, server, ignores_ids=ignores_ids)
    client = JobClient(server)
    client.dialect = SearchDialect()
    jobs = server.add(100, after(20.0))
    now = asyncio.get_running_loop().time
    async with Fleet(client, requests_per_second=10.0) as fleet:
        for job in jobs:
            fleet.watch(job)
        found = [now() - server.ends[outcome.ref.ids[0]] async for outcome in fleet]
    assert len(found) == 100
    if not ignores_ids:
        assert mean(found) < 1.0
        assert len(server.requests) < 400


class Raising(Search):
    """Raises an error in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self.fail)

    def fail(self, *arguments: object) -> Any:
        raise LookupError("a fault of the caller's")


@pytest.mark.parametrize("method", ["add", "discard", "poll", "read", "failed", "polled_alone"])
async def test_collective_polls_that_raise_are_left_alone(method: str, caplog: pytest.LogCaptureFixture) -> None:
    server = JobServer()
    is_refused = method == "failed"
    server.broken = lambda request: (
        refused(404) if is_refused and request.path == "/search" else searched(server, request)
    )
    client = JobClient(server)
    client.dialect.collective = lambda: Raising(method)  # type: ignore[method-assign]
    jobs = server.add(30, after(20.0))
    async with Fleet(client) as fleet:
        for job in jobs:
            fleet.watch(job)
        ends = await outcomes(fleet)
    assert all(isinstance(outcome, Completed) for outcome in ends)
    assert len(ends) == 30
    assert caplog.text.count("polled one by one from now on") == 1


# Lists that fail by themselves


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_list_that_fails_while_its_runs_answer_is_given_up_after_a_few_polls(status: int) -> None:
    server = JobServer()
    answer = Response(status, {"retry-after": "30"}, b'{"error": {"message": "not now"}}')
    server.broken = lambda request: answer if is_list(request) else None
    found = await delays(server, server.add(200, after(60.0)))
    assert len(found) == 200
    assert mean(found) < 30.0
    assert server.lists <= (15 if status == 429 else 5)


@pytest.mark.slow
async def test_a_server_that_refuses_many_requests_for_their_number_is_polled_by_pages_still() -> None:
    server = JobServer()
    draw = random.Random(1)
    server.broken = lambda request: refused(429) if draw.random() < 0.4 else None
    found = await delays(server, server.add(100, after(400.0)))
    assert len(found) == 100
    assert server.lists > 5 * server.singles


async def test_two_outages_are_logged_and_each_of_them_once(caplog: pytest.LogCaptureFixture) -> None:
    server = JobServer()
    now = asyncio.get_running_loop().time
    began = now()
    server.broken = lambda request: (
        refused(503) if 30.0 < now() - began < 50.0 or 57.0 < now() - began < 100.0 else None
    )
    await delays(server, server.add(50, after(150.0)))
    warned = [record for record in caplog.records if "have failed for 15 s" in record.getMessage()]
    assert len(warned) == 2


async def test_a_fault_of_the_whole_server_is_no_fault_of_the_list() -> None:
    server = JobServer(latency=0.5)
    now = asyncio.get_running_loop().time
    began = now()
    server.broken = lambda request: refused(503) if (now() - began) % 60.0 > 59.0 else None
    found = await delays(server, mixed(server, 400))
    assert len(found) == 400
    assert mean(found) < 3.0


@pytest.mark.slow
async def test_open_runs_stay_on_few_pages_while_runs_come_and_go() -> None:
    server = JobServer()
    draw = random.Random(1)
    client = JobClient(server)
    async with Fleet(client, requests_per_second=None, cadence=Cadence.fixed(20.0), on_exit="leave") as fleet:
        for _ in range(1200):
            (job,) = server.add(1, lambda _: draw.uniform(100.0, 2000.0))
            fleet.watch(job)
            await asyncio.sleep(1.0)
        pages = len(client.dialect.polls[0]._placed)
        open_runs = fleet.statistics().active
    assert open_runs > 600
    assert pages < 40


async def test_one_page_at_a_time_is_explored_however_many_runs_are_added() -> None:
    server = JobServer(latency=2.0)
    tops = 0

    def count(request: Request) -> None:
        nonlocal tops
        tops += is_list(request) and not request.query

    server.broken = count
    async with Fleet(JobClient(server), requests_per_second=20.0, on_exit="leave") as fleet:
        for _ in range(200):
            for job in server.add(5, after(5000.0)):
                fleet.watch(job)
            await asyncio.sleep(0.1)
        assert tops < 20


async def test_a_run_that_should_be_polled_now_is_although_its_page_fails() -> None:
    server = JobServer(latency=1.0)
    jobs = server.add(10, after(30.0))
    async with Fleet(JobClient(server), cadence=Cadence.fixed(300.0), on_exit="leave") as fleet:
        watches = [fleet.watch(job) for job in jobs]
        await asyncio.sleep(40.0)
        server.broken = lambda request: refused(404) if is_list(request) else None
        fleet.poll_now(jobs[0].id)
        await asyncio.sleep(0.5)
        fleet.poll_now(jobs[1].id)  # while the page is in flight that was to show it
        await asyncio.sleep(3.0)
        assert [watch.outcome is not None for watch in watches[:3]] == [True, True, False]


async def test_runs_that_no_collective_poll_shows_are_polled_by_themselves() -> None:
    server = JobServer()
    server.broken = partial(searched, server, ignores_ids=True)
    client = JobClient(server)
    client.dialect = SearchDialect()
    jobs = server.add(30, after(600.0))
    async with Fleet(client, cadence=Cadence.fixed(60.0)) as fleet:
        for job in jobs[10:]:
            fleet.watch(job)
        ends = await outcomes(fleet)
    assert len(ends) == 20
    searches = sum(path.startswith("/search") for _, path in server.requests)
    assert searches < (len(server.requests) - searches)


async def test_a_dialect_that_raises_in_collective_is_polled_run_by_run(caplog: pytest.LogCaptureFixture) -> None:
    server = JobServer()
    client = JobClient(server)

    def fail() -> None:
        raise LookupError("a fault of the caller's")

    client.dialect.collective = fail  # type: ignore[method-assign]
    async with Fleet(client) as fleet:
        for job in server.add(20, after(5.0)):
            fleet.watch(job)
        ends = await outcomes(fleet)
    assert all(isinstance(outcome, Completed) for outcome in ends)
    assert caplog.text.count("polled one by one") == 1


async def test_an_old_watch_that_ends_takes_no_place_from_a_new_one_of_the_run() -> None:
    server = JobServer()
    client = JobClient(server)
    jobs = server.add(50, after(90_000.0))
    async with Fleet(client, on_exit="leave", cadence=Cadence.fixed(10.0)) as fleet:
        for job in jobs[1:]:
            fleet.watch(job)
        old = fleet.watch(jobs[0], timeout=5.0)
        await old
        fleet.watch(jobs[0])
        await asyncio.sleep(20.0)
        server.broken = lambda request: refused(405) if "cancel" in request.path else None
        await old.cancel_run()
        await asyncio.sleep(100.0)
        (polls,) = client.dialect.polls
        assert RunRef("job", (jobs[0].id,)) in polls._cursors


async def test_clients_of_runs_that_have_ended_are_forgotten() -> None:
    server = JobServer()
    async with Fleet(JobClient(server)) as fleet:
        for job in server.add(20, after(5.0)):
            fleet.watch(job, client=JobClient(server))
        await outcomes(fleet)
        assert not fleet._hub.runner.collectives._members


@pytest.mark.parametrize("interval", [5.0, 20.0])
async def test_a_cadence_that_the_caller_chose_holds_for_pages_too(interval: float) -> None:
    server = JobServer()
    async with Fleet(JobClient(server), cadence=Cadence.fixed(interval)) as fleet:
        for job in server.add(100, after(200.0)):
            fleet.watch(job)
        ends = await outcomes(fleet)
    assert all(outcome.polls <= 201.0 / interval + 3 for outcome in ends)
