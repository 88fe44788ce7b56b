"""Watches thousands of runs in one process, under one budget of requests: what callers use.

There is no task per run: each run is a lifecycle with a place in the schedule (`member.py`, `schedule.py`), and one
owned task polls the runs that are due (`runner.py`). Behind this facade is a hub, which all watches share (`hub.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Unpack, cast, overload

from msgspec import UNSET, UnsetType

from asyncruns.abc import AsyncOnly, HasId, Journal, RunClient
from asyncruns.dialects.given import check_client, with_own_id
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.budget import check_budget
from asyncruns.fleet.create_request import ARGUMENTS, CreateOptions, CreateRequest
from asyncruns.fleet.hub import Hub, check_own_options
from asyncruns.fleet.listener import Listener
from asyncruns.fleet.member import Member
from asyncruns.fleet.settings import OPTIONS_OF_FLEETS
from asyncruns.fleet.statistics import Statistics, statistics_of
from asyncruns.fleet.watch_handle import Watch
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import Wish, ref_of
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.resources.webhooks import WebhookEvent
from asyncruns.streams.event_stream import EventStream
from asyncruns.tools import Toolset
from asyncruns.watch.begin_recording import checked_journal
from asyncruns.watch.handover import token_alone
from asyncruns.watch.logs import FLEET_LOG, warn_of_unresumed
from asyncruns.watch.observers import Observer
from asyncruns.watch.open_watches import open_watches_of
from asyncruns.watch.options import SharedOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run
from asyncruns.wire.codec import Object

if TYPE_CHECKING:
    from asyncruns.resources.response_parameters import ResponseParameters
    from asyncruns.wire import ModelResponse

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W", bound=Object)

ADDED_AT_ONCE: Final = 16  # runs added in one pass of the event loop, at some 20 microseconds each


class Fleet(AsyncOnly, Generic[R]):
    """Watch many runs, under one budget of requests, with one set of tools.

    Use it with `async with`. Leaving the block waits for all runs; see `on_exit`. If the block is left by an exception
    or a cancellation, "drain" leaves the runs as they are; "cancel" still cancels them. Pending submits are always
    waited for, for at most 5 s or as long as "cancel" waits.

    The fleet learns how long runs of an assistant and model take, and polls first the runs that have probably been over
    for longest. Submits and cancels go before all polls; creates alternate with polls. A 429 or a small
    `x-ratelimit-remaining-requests` slows the whole fleet down; it recovers gradually.

    To save memory, only the parts of a response that the watch needs are kept: `run` of a `GaveUp` is usually None, and
    its `status` is the last one that was seen.

    Args:
        client: A `Client`, or another client that `RunWatcher` accepts.
        requests_per_second: The most requests in every second: polls, submits and cancels, what `run` creates, and the
            messages that outcomes fetch. The default of 100 polls 200 runs every 2 s; it is lowered automatically when
            the server refuses more. With None, only the server's refusals limit the rate. If the server enforces a
            limit, pass a tenth less: requests come closer together on the network, and at the full rate some 2 % would
            be refused, for no gain.
        max_in_flight: The most requests in flight at once. A client has 100 connections.
        on_outcome: Called with each outcome. All observers of a fleet are called one after the other, so start slow
            work in a task of its own: while observers are far behind, only the newest status of a run is kept.
            Exceptions that an observer raises are logged.
        on_exit: What leaving the block does with runs that have not ended:

            - "drain" waits until they are created and end, and all observers have been called, or one of these takes
              more than 2 s.
            - "leave" leaves them as they are.
            - "cancel" cancels them, and the newest 10,000 of those that were given up or need the caller. It waits at
              most 5 s plus the time that the budget needs for a cancel and a poll of each. If the server has slowed the
              fleet down, that time is at most 10 minutes, or what it would be at the full rate if that is more. The
              outcome of a run that could not be cancelled has a `cancel_error`; observers get it, and a warning is
              logged.

            "leave" and "cancel" wait at most 2 s for observers. A warning is logged if not all of them could be called.
            `Client.close` waits for a fleet that is being left.
        journal: A journal that was opened, such as `SQLiteJournal(path)`: each run that is watched is written down soon
            after it was added (see `Watch.recorded`), and each call before it begins, so that another process can
            `resume` what this one leaves when it dies. That `run` is asked for one is written down before anything is
            sent. A watch with `observe_only` is not written down. A run that is watched several times is written down
            once, with the label of the first watch. An outcome is forgotten when it was delivered: when `on_outcome` or
            `on_terminal` has returned, a caller got it by awaiting the watch, or a reader of the fleet has taken its
            next step. One that needs its caller is kept until its run ends, or `Watch.cancel`. By default the journal
            of the client, if it has one; None for none.
        **options: The options of `RunWatcher`, for all runs: `tools`, `on_requires_action`, `on_approval`, `timeout`,
            `max_outage`, `max_unknown_status`, `max_rounds`, `observe_only`, `keep_tool_choice`, `context`, `label`,
            `output_type`, `on_lost_submit`, `on_event`, `on_status`, `on_terminal`; and `max_concurrent_calls`, for all
            runs together. By default, `cadence` is `Cadence.learned()`, with pauses of up to 5 minutes for batches.

    Raises:
        InvalidRequestError: An option is invalid; the message says what is allowed.
    """

    def __init__(
        self,
        client: RunClient[R],
        *,
        requests_per_second: float | None = 100.0,
        max_in_flight: int = 64,
        on_outcome: Observer | None = None,
        on_exit: Literal["drain", "leave", "cancel"] = "drain",
        journal: Journal | UnsetType | None = UNSET,
        **options: Unpack[SharedOptions],
    ) -> None:
        check_watch_options(options, SharedOptions, whose="This fleet", others=OPTIONS_OF_FLEETS)
        check_budget(requests_per_second, max_in_flight)
        check_client(client, "Fleet")
        if on_outcome is not None and not callable(on_outcome):
            raise InvalidRequestError(f"on_outcome must be a function of the outcome; got {type(on_outcome).__name__}")
        if on_exit not in ("drain", "leave", "cancel"):
            raise InvalidRequestError(f'on_exit must be "drain", "leave" or "cancel"; got {on_exit!r}')
        self._hub: Hub[R] = Hub(
            client,
            requests_per_second=requests_per_second,
            max_in_flight=max_in_flight,
            on_outcome=on_outcome,
            on_exit=on_exit,
            journal=checked_journal(open_watches_of(client).journal if isinstance(journal, UnsetType) else journal),
            options=options,
        )

    # Entering and leaving

    async def __aenter__(self) -> Fleet[R]:
        await self._hub.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hub.exit(error)

    async def drain(self) -> None:
        """Wait until no run is being created or watched, and nothing adds runs. Safe to cancel: the fleet goes on.

        What adds runs is `add_many`, `run_many`, and the block of a `keep_open`.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop; or this was called by one of its tools or
                handlers, or by a task within `keep_open`, which would wait for itself.
        """
        await self._hub.drain()

    async def record(self, path: str | os.PathLike[str], *, labels: bool = False) -> None:
        """Write what the watches do that begin from now on to a file, until the fleet is left.

        The file is JSON lines without arguments, outputs and messages; `asyncruns timeline PATH -o runs.html` makes a
        picture of it: when which run had which status, its calls and polls, and how late its end was noticed.
        `asyncruns.timeline.TimelineFile` says what is written when; it is the same for a client, and for single
        watches. Safe to cancel: nothing is recorded then.

        Args:
            path: The file. It is created for its owner alone; what an earlier process has written to it stays.
            labels: Whether labels are written, if they are plain JSON. Default False: they may be secret.

        Raises:
            ConfigurationError: The file holds something else, another process writes to it, or it cannot be opened.
            InvalidRequestError: This fleet records already; or it is not running, or in another event loop.
        """
        await self._hub.record(path, labels=labels)

    # Adding runs

    @overload
    def watch(self, run: RunRef, *, client: RunClient[T], **options: Unpack[SharedOptions]) -> Watch[T]: ...

    @overload
    def watch(
        self,
        run: RunRef | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        client: RunClient[R] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[R]: ...

    @overload
    def watch(
        self, *, response_id: str, client: RunClient[Any] | None = None, **options: Unpack[SharedOptions]
    ) -> Watch[Any]: ...

    @overload
    def watch(
        self, *, batch_id: str, client: RunClient[Any] | None = None, **options: Unpack[SharedOptions]
    ) -> Watch[Any]: ...

    @overload
    def watch(
        self, *, token: str, client: RunClient[Any] | None = None, **options: Unpack[SharedOptions]
    ) -> Watch[Any]: ...

    @overload
    def watch(
        self, run: EventStream[T, Any], *, client: RunClient[T] | None = None, **options: Unpack[SharedOptions]
    ) -> Watch[T]: ...

    @overload
    def watch(self, run: W, **options: Unpack[SharedOptions]) -> Watch[W]: ...

    @overload
    def watch(self, run: T, *, client: RunClient[T], **options: Unpack[SharedOptions]) -> Watch[T]: ...

    @overload
    def watch(
        self,
        run: HasId | Mapping[str, Any],
        *,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[Any]: ...

    def watch(
        self,
        run: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        response_id: str | None = None,
        batch_id: str | None = None,
        token: str | None = None,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[Any]:
        """Start to watch a run, and return a `Watch` to await, iterate over or cancel. Returns at once.

        Tools, handlers and observers see the context variables of the caller, each call in a copy.

        A run that is already being watched is not polled twice: the new watch shares its polls, and of the options only
        the observers count, so the label and the `output_type` stay those of the first watch. The same holds if the
        other watch was cancelled while its submit was pending, until 5 s after the response: its tools have run, and do
        not run again. An observer that several watches of a run share, such as one of the fleet, is called once for all
        of them.

        Of a stream, the events that show the run replace most of its polls, and subscribers of the watch get its text.
        While it is open it holds one of the client's connections, of which there are 100. `ref` has no ids until the
        stream names its run: see `Watch.created`. If it ends before that, the outcome is `GaveUp` with
        `Reason.NOT_CREATED`.

        Args:
            run: The run, a response, a batch, a `RunRef`, or the stream that `stream=True` returned; otherwise pass
                `thread_id` and `run_id`, `response_id` or `batch_id`.
            thread_id: The thread of the run, when `run` is not given.
            run_id: The run, when `run` is not given.
            response_id: The response, when `run` is not given.
            batch_id: The batch, when `run` is not given. An id that begins with "msgbatch_" is of a message batch.
            token: What `token` of a watch or of an outcome returned, to go on with that watch, perhaps of another
                process; see `RunWatcher.token`. The label is that of the other watch. It is claimed in the background:
                until then `ref` has no ids (see `Watch.created`). If a living process watches the run, or the journal
                does not have the watch, the outcome is `GaveUp` with `Reason.TAKEN_OVER`, and its `cause` says which.
            client: The client for this run, instead of the fleet's: another client, such as `Client.anthropic()` for a
                message batch, or for a response `client.responses.continued(parameters)`. All share one budget.
            **options: As for the fleet, for this run only. `max_concurrent_calls` applies in addition to the fleet's; a
                `cadence` of None means the fleet's.

        Raises:
            InvalidRequestError: The arguments do not identify a run, or an option is invalid; or the fleet was not
                entered, was left, or was entered in another event loop. From another thread, use
                `loop.call_soon_threadsafe(fleet.watch, run)`.
        """
        if token is not None:
            given = {"thread_id": thread_id, "run_id": run_id, "response_id": response_id, "batch_id": batch_id}
            token_alone(token, run=run, **given)
            return Watch(self._hub, *self._hub.go_on(token, client, options))
        ids = {"thread_id": thread_id, "run_id": run_id}
        run = with_own_id(run, response_id, batch_id, **ids)
        member, listener = self._hub.add_run(run, ids, client, options)
        return Watch(self._hub, member, listener)

    async def resume(
        self,
        *,
        context_factory: Callable[[RunRef, Any], object] | None = None,
        toolsets: Iterable[Toolset] = (),
        **options: Unpack[SharedOptions],
    ) -> list[Watch[Any]]:
        """Watch the runs again that processes which have ended had left in the journal; return their watches.

        Each has its label again. It is polled once, and goes on from what the server shows:

        - Outputs that were recorded are submitted, if the run still asks for them; no call runs for them.
        - A call that had begun, and has no output, is treated as its tool says: see `if_interrupted` of `Toolset`. The
          calls of a handler are answered with an error that says that the outcome is not known.
        - An outcome that was not delivered is delivered, perhaps a second time.
        - For a response, an earlier process may have ended while outputs were being submitted. Then the outcome is
          `GaveUp` with `Reason.SUBMIT_LOST`, unless `on_lost_submit` is "resend".
        - A run that `run` was asked for, and that was not created, is created as it was asked for; what was created of
          it is found, after 5 s for what may be in transit. Its ref has no ids until then. A response cannot be found:
          if its create was about to be sent, the outcome is `GaveUp` with `Reason.NOT_CREATED`, and an
          `APIConnectionError` as its `cause`, unless `on_lost_submit` is "resend".

        What cannot be written down, such as tools and handlers, is that of this fleet. The time of a watch, and
        `max_rounds`, count anew. Runs that another living process watches are left to it; one that the client cannot
        watch, such as a response with a client for batches, stays in the journal, and a warning is logged. Safe to
        cancel: the watches that were taken up go on.

        Args:
            context_factory: Called with the ref and the label of each; returns its `context`. The ref of a run that is
                still to be created has no ids.
            toolsets: Where the watches whose tools had a name (`Toolset(name=...)`) find them, besides `tools`. A watch
                whose toolset is not there stays in the journal, with a warning.
            **options: As for `watch`, for all of them.

        Raises:
            InvalidRequestError: The fleet has no journal, or is not running; or an option is invalid.
            JournalError: The journal could not be read.
        """
        self._hub.check_goes_on()
        check_own_options(options)
        records = self._hub.runner.records
        if records is None:
            raise InvalidRequestError("This fleet has no journal to resume from: Fleet(client, journal=...)")
        watches: list[Watch[Any]] = []
        with self._hub.adding():
            async with records.resuming(await records.claim()) as claimed:
                for record in claimed:
                    self._hub.check_goes_on()
                    own: SharedOptions = options
                    if context_factory is not None:
                        own = {**options, "context": context_factory(ref_of(record), record.label)}
                    try:
                        watches.append(Watch(self._hub, *self._hub.resume(record, own, toolsets)))
                    except InvalidRequestError as error:
                        warn_of_unresumed(FLEET_LOG, ref_of(record), error)
                    if len(watches) % ADDED_AT_ONCE == 0:
                        await asyncio.sleep(0)
        return watches

    async def add_many(
        self,
        runs: Iterable[Any] | AsyncIterable[Any],
        *,
        at_most: int = 10_000,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> int:
        """Watch all runs of an iterable, pausing while `at_most` are being watched; return how many runs there were.

        The event loop stays responsive, unlike with ten thousand calls of `watch` in a row. Safe to cancel: runs that
        were added are still watched.

        Args:
            runs: Runs, responses or `RunRef`s. An async generator is always closed at the end.
            at_most: The most runs watched at once by the whole fleet, including those whose outcomes wait for a reader.
            client: The client for these runs, as for `watch`.
            **options: As for `watch`.

        Raises:
            InvalidRequestError: An item is not a run, or the fleet was left in the meantime; the runs before it were
                added.
            JournalError: The fleet has a journal, and not all watches could be written; they go on, and this is tried
                again.
        """
        if isinstance(runs, str | bytes | Mapping) or not isinstance(runs, Iterable | AsyncIterable):
            raise InvalidRequestError(
                f"add_many takes an iterable of runs; got {type(runs).__name__}. For one run: fleet.watch(run)"
            )
        _check_at_most(at_most)
        self._hub.check_goes_on()
        added, listener = 0, None
        last = len(runs) if isinstance(runs, Sized) else None
        with self._hub.adding():
            async with contextlib.aclosing(_each(runs)) as each:
                async for run in each:
                    _, listener = self._hub.add_run(run, {}, client, options, listener)
                    added += 1
                    if added % ADDED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    # Before the next run is taken, not before it is added: it may be created by being taken.
                    if added != last:
                        await self._hub.room_below(at_most)
            if self._hub.runner.records is not None:
                await self._hub.runner.records.all_added()
        return added

    # Creating runs

    @overload
    def run(
        self,
        *,
        assistant_id: str,
        message: str | Iterable[Mapping[str, Any]],
        thread_id: str | None = None,
        parameters: RunParameters | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = True,
        key: str | None = None,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[Run]: ...

    @overload
    def run(
        self,
        *,
        model: str,
        message: str | Iterable[Mapping[str, Any]],
        parameters: ResponseParameters | None = None,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[ModelResponse]: ...

    @overload
    def run(self, **request: Unpack[CreateRequest]) -> Watch[Any]: ...

    def run(
        self,
        *,
        message: str | Iterable[Mapping[str, Any]],
        client: RunClient[Any] | None = None,
        **request: Any,
    ) -> Watch[Any]:
        """Create a run or a response as `Client.run` does, and watch it. Returns a `Watch` at once.

        Every request for that is within the budget of the fleet; creates and polls take turns. A create that the server
        refuses for its rate (429) is repeated for a minute. One that fails is an outcome: `GaveUp` with
        `Reason.NOT_CREATED`, and the error as its `cause`. Its `label` tells which one that is, as its `ref` has no
        ids. If the answer to the create was lost, its cause says so, and the run may exist.

        Until the run is created, the ref of the watch has no ids; `await watch.created()` returns it with them. The
        create sees the context variables of the caller, as tools do.

        Nothing is lost silently: if the watch is cancelled while the run is being created, or the fleet is left, the
        answer is awaited for at most 5 s. With `on_exit="cancel"` a run that was created is cancelled then; otherwise a
        warning names it. "drain" waits for the creates, and then for their runs; otherwise, creates that were not sent
        yet finish as `GaveUp` when the fleet is left.

        With a journal, nothing is sent before that has what it takes to ask for the run again: see `Client.run`. If it
        cannot be written for `max_outage`, the outcome is `GaveUp` with `Reason.NOT_CREATED`. What is left with "leave"
        before its run exists is created by `resume`.

        Args:
            message: As for `Client.run`.
            client: The `Client` that creates and watches this run, instead of the fleet's; of the same server.
            **request: What `Client.run` takes (`assistant_id` or `model`, `thread_id`, `parameters`, `on_busy`,
                `adopt`, `key`), and the options of `watch`. If a run with the `key` is watched by the fleet already,
                this watch shares it.

        Raises:
            InvalidRequestError: An argument is invalid, and nothing will be sent; or the client cannot create runs; or
                the fleet was not entered, was left, or was entered in another event loop.
        """
        return Watch(self._hub, *self._create({**request, "message": message, "client": client}))

    def _create(self, request: Mapping[str, Any], shared: Listener | None = None) -> tuple[Member, Listener]:
        """Create a run as `run` does, and watch it; `Hub.add_create` describes `shared` and the result."""
        if "message" not in request:
            raise InvalidRequestError("it has no `message`")
        options = dict(request)
        client = options.pop("client", None)
        arguments = {name: options.pop(name) for name in ARGUMENTS & request.keys()}
        return self._hub.add_create(arguments, client, cast("SharedOptions", options), shared)

    async def run_many(
        self,
        requests: Iterable[CreateRequest] | AsyncIterable[CreateRequest],
        *,
        at_most: int = 10_000,
        **common: Unpack[CreateOptions],
    ) -> int:
        """Create a run for each request and watch it, as `run` does; return how many requests there were.

        The iterable is read as the budget allows creates, and while fewer than `at_most` runs are created or watched;
        one request is read ahead. The event loop stays responsive. Safe to cancel: what was begun goes on.

        Args:
            requests: Dictionaries of the keyword arguments of `run`. An async generator is always closed at the end.
            at_most: The most runs created and watched at once by the whole fleet, including those whose outcomes wait
                for a reader.
            **common: Keyword arguments for all of them; those of a request take precedence.

        Raises:
            InvalidRequestError: A request is invalid (the message has its number), or the fleet was left in the
                meantime; the requests before it go on.
            JournalError: The fleet has a journal, and not all requests could be written; they go on, and this is tried
                again.
        """
        if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable | AsyncIterable):
            raise InvalidRequestError(
                f"run_many takes an iterable of dictionaries; got {type(requests).__name__}. For one: fleet.run(...)"
            )
        _check_at_most(at_most)
        self._hub.check_goes_on()
        count, listener = 0, None
        with self._hub.adding():
            async with contextlib.aclosing(_each(requests)) as each:
                async for request in each:
                    count += 1
                    await self._hub.room_below(at_most, queue=ADDED_AT_ONCE)
                    try:
                        _, listener = self._create({**common, **request}, listener)
                    except (InvalidRequestError, TypeError) as error:
                        raise InvalidRequestError(f"Request {count} is invalid: {error}") from error
                    if count % ADDED_AT_ONCE == 0:
                        await asyncio.sleep(0)
            if self._hub.runner.records is not None:
                await self._hub.runner.records.all_added()
        return count

    @contextlib.contextmanager
    def keep_open(self) -> Iterator[None]:
        """Keep iterations over the outcomes, and `drain`, going while the block is entered: more runs will come.

        A producer holds it while it adds runs one by one, so that a consumer does not end in between, when all runs
        have just ended::

            async def produce():
                with fleet.keep_open():
                    async for job in queue:
                        fleet.run(assistant_id="asst_1", message=job.text, label=job)

            producing = asyncio.create_task(produce())
            async for outcome in fleet: ...

        May be entered several times, and by several tasks. A consumer that enters it around its own iteration reads
        until the fleet is left, which ends the iteration in any case. `add_many` and `run_many` need no such block.
        Leaving the fleet with "drain" waits for the blocks of other tasks, but not for one of the task that leaves.

        Raises:
            InvalidRequestError: The fleet was not entered, was left, or was entered in another event loop.
        """
        self._hub.check_goes_on()
        with self._hub.adding():
            yield

    def poll_now(self, run: object) -> bool:
        """Poll a run at once, before all others, as far as the budget allows: a webhook says that it has ended, say.

        If a poll is in flight, another one follows it, unless that shows the end. Does not wait.

        Given the events of webhooks, the fleet learns that these announce the ends of runs of this kind. It polls them
        at a tenth of the usual pace then, until it sees an end whose webhook does not come within 10 s. So pass all
        events, also repeats, and those of runs that have ended.

        A run that this fleet does not watch may be watched by another process that has the same journal: that is asked
        in the background to poll it. So a webhook may arrive at any worker.

        Args:
            run: The run in any form that `RunRef.of` takes, or its id; or the event of a webhook about it. Other
                processes are not asked about an id alone.

        Returns:
            Whether this fleet is watching the run.

        Raises:
            InvalidRequestError: This is none of these; or the fleet was not entered, or was left, or was
                entered in another event loop.
        """
        self._hub.check_goes_on()
        runner = self._hub.runner
        ref = run.ref if isinstance(run, WebhookEvent) else run if isinstance(run, str) else RunRef.of(run)
        if ref is None:  # an event about something else
            return False
        member = runner.roster.watched(ref)
        if isinstance(run, WebhookEvent) and run.is_end and isinstance(ref, RunRef):
            runner.announced(ref)
        elif member is not None:
            member.poll_now()
        if member is None and isinstance(ref, RunRef):
            runner.ask(ref, Wish.POLL)
        return member is not None

    def cancel_run(self, run: object) -> bool:
        """Ask the server to cancel a run, as `Watch.cancel_run` does, whichever process watches it. Does not wait.

        A run that this fleet does not watch may be watched by another process that has the same journal: that is asked
        in the background. To cancel a run that nothing watches, use the client.

        Args:
            run: The run in any form that `RunRef.of` takes, or its id. Other processes are not asked about an id alone.

        Returns:
            Whether this fleet is watching the run.

        Raises:
            InvalidRequestError: This is none of these; or the fleet was not entered, or was left, or was
                entered in another event loop.
        """
        self._hub.check_goes_on()
        runner, ref = self._hub.runner, run if isinstance(run, str) else RunRef.of(run)
        member = runner.roster.watched(ref)
        if member is not None:
            member.grant(Wish.CANCEL)
        elif isinstance(ref, RunRef):
            runner.ask(ref, Wish.CANCEL)
        return member is not None

    # Outcomes

    async def __aiter__(self) -> AsyncIterator[AnyOutcome[R]]:
        """Iterate over the outcomes as they come, until no run is being created or watched, and nothing adds runs.

        If other tasks add runs later, they say so with `keep_open`.

        Outcomes from before the iteration are included, unless they were delivered: to `on_outcome`, `on_terminal`, or
        a caller that awaited the watch or read its events to the end. Until then they are kept; while no caller
        iterates, only the newest 50,000 are kept, and a warning is logged when older ones are discarded. If there are
        several readers, each outcome goes to one of them. The iteration may be stopped, and started again.

        Raises:
            InvalidRequestError: The fleet was not entered.
            Exception: The error that broke the fleet, if there was one.
        """
        self._hub.task.check_entered()
        async with contextlib.aclosing(self._hub.outcomes.read(self._hub.goes_on)) as outcomes:
            async for outcome in outcomes:
                yield outcome
        await self._hub.write_delivered()
        if self._hub.task.is_done:
            self._hub.task.raise_failure()

    # State

    def statistics(self) -> Statistics:
        """Return the state of the fleet in numbers.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop.
        """
        self._hub.task.check_is_here()
        return statistics_of(self._hub.runner, self._hub.outcomes)

    @property
    def is_running(self) -> bool:
        """Whether the fleet is running, so that runs can be watched."""
        return self._hub.is_running

    def __repr__(self) -> str:
        runner = self._hub.runner
        counts = f"{runner.roster.active} active, {self._hub.outcomes.ended} ended, {runner.polls} polls"
        in_flight = runner.schedule.budget.in_flight
        return f"<Fleet {counts}, {in_flight} in flight{'' if self.is_running else ', not running'}>"


def _check_at_most(at_most: int) -> None:
    if at_most < 1:
        raise InvalidRequestError(f"at_most must be 1 or more; got {at_most!r}")


async def _each(runs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if not isinstance(runs, AsyncIterable):
        for run in runs:
            yield run
        return
    try:
        async for run in runs:
            yield run
    finally:
        if isinstance(runs, AsyncGenerator):
            await runs.aclose()
