"""The client of one server: it owns the transport, offers the resources, and starts watches.

It must not close what it borrowed (a session, a transport), nor connections that a watch still needs to cancel its run.
"""

from __future__ import annotations

import asyncio
import copy
import ssl as ssl_module
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, overload
from urllib.parse import urlsplit

from msgspec import UNSET, UnsetType

from asyncruns.abc import AsyncOnly, Dialect, HasId, Journal, RunClient, Telemetry, Transport
from asyncruns.client.aliases import OtherNames
from asyncruns.client.options import (
    ApiKey,
    HTTPLibrary,
    check_retries,
    chosen_auth,
    chosen_http,
    chosen_timeout,
    given_base_url,
    given_transport,
    own_headers,
    version_header,
)
from asyncruns.client.servers import KnownServers
from asyncruns.dialects.given import given_run, with_own_id
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import Wish
from asyncruns.lifecycle.run_shapes import dialect_and_ids, no_run
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import VERSIONED_PATHS, Server
from asyncruns.resources.batch_group import BatchGroup
from asyncruns.resources.new_run import NewRun, followed_create
from asyncruns.resources.recorded_creates import run_to_outcome
from asyncruns.resources.run_parameters import RunParameters, with_response_format
from asyncruns.resources.start_run import StartOfRun
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.resources.threads import Threads
from asyncruns.resources.webhook_secrets import given_secrets
from asyncruns.resources.webhooks import WebhookEvent
from asyncruns.streams.event_stream import EventStream, source_of
from asyncruns.timeline.telemetries import given_telemetry
from asyncruns.tools import Toolset
from asyncruns.transport.auth import (
    Auth,
)
from asyncruns.transport.followed import FollowedTransport
from asyncruns.transport.retry import RetryTransport
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry
from asyncruns.watch.begin_recording import begin_as_created, checked_journal
from asyncruns.watch.handover import Token, token_alone
from asyncruns.watch.holders import ask_watch
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.watch.options import SharedOptions, WatchOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.resume import release_unentered, resumed_watchers
from asyncruns.watch.to_outcome import create_guard_for, watch_to_outcome
from asyncruns.watch.watcher import RunWatcher
from asyncruns.wire import Message, Run
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE

if TYPE_CHECKING:
    import aiohttp

    from asyncruns.resources.batches import Batches
    from asyncruns.resources.files import Files
    from asyncruns.resources.group_outcome import GroupOutcome
    from asyncruns.resources.message_batches import MessageBatches
    from asyncruns.resources.response_parameters import ResponseParameters
    from asyncruns.resources.responses import Responses
    from asyncruns.resources.webhooks import Webhooks
    from asyncruns.streams.response_stream import ResponseStream
    from asyncruns.streams.run_stream import RunStream
    from asyncruns.wire import Batch, MessageBatch, ModelResponse

PAGE_SIZE: Final = 100
_AS_PARAMETER: Final = 'it is a parameter of the run: pass parameters={"{name}": ...}'
ANSWER_PAGES: Final = 100  # of one run's messages; a server with more is taken to repeat its pages for ever


class Client(AsyncOnly, KnownServers, OtherNames):
    """An asyncio client of one server, for threads, runs, assistants, responses and batches.

    Use it with `async with`, or call `close` at the end. Many tasks of one event loop may share it::

        async with Client("https://host.example/v1", api_key=key) as client:
            outcome = await client.run(assistant_id="asst_1", message="Hello", tools=toolset)
            print(await outcome.text())

    A global client that is never closed may be used by one `asyncio.run` after another: its connections are closed at
    the end of each. Two event loops at a time, in two threads, need a client each.

    `Client.azure`, `Client.anthropic`, `Client.portkey` and `Client.from_env` create clients for particular servers,
    and `Client.from_openai` one with the settings of an official client.

    Args:
        base_url: The URL under which the API is, such as `https://host.example/v1`. There is no default.
        auth: `BearerAuth`, `ApiKeyAuth` or `PortkeyAuth`. Default None: no credential is sent.
        api_key: A key, or a function that returns one, async or not; short for `auth=BearerAuth(api_key)`.
        version: The value of the header `OpenAI-Beta: assistants=...`, "v2" (default) or "v1"; None sends no such
            header. Only requests about threads, runs and assistants have it.
        default_headers: Headers of every request.
        default_query: Query parameters of every request, for example `{"api-version": "v1"}`.
        organization: The header `OpenAI-Organization`.
        project: The header `OpenAI-Project`.
        request_timeout: Seconds for one request as a whole; for files and streams, for each pause in which no bytes
            are sent or received. Default 30; None is no limit. A watch has a separate `timeout`.
        timeout: The same as `request_timeout`, under the name that it has in the official client.
        max_retries: How many times a failed request is sent again, if that can do no harm. Default 2. Polls, submits
            and cancels of a watch are not affected: the watch decides when to repeat them.
        validate: Whether requests that the documented API refuses raise here, before they are sent, with the field and
            the rule: metadata, page sizes, token limits, numbers of tools. Default True; use False for servers that
            accept more.
        session: An `aiohttp.ClientSession` of the event loop that uses the client, to borrow; it is not closed here.
            Its proxy and `trust_env` settings apply, and its middlewares run. aiohttp's own second attempt is off for
            the requests of this client.
        proxy: The URL of an HTTP proxy.
        trust_env: Whether `HTTPS_PROXY`, `NO_PROXY` and `.netrc` apply. Default False.
        ssl: An `ssl.SSLContext` or `aiohttp.Fingerprint`; False turns off certificate checks. Default True.
        http: The library to send with: "aiohttp" (the default), or "httptools" (`pip install 'asyncruns[fast]'`), with
            which a poll costs about a third of the CPU time: for clients that poll hundreds of runs. It sends requests
            over HTTP/1.1 itself, and passes streams, and everything with a `proxy`, a `session` or `trust_env`, to
            aiohttp with the same options, over connections of its own. With both, cancelling a request closes its
            connection and no other, and errors say alike whether a request may have acted.
        transport: An `asyncruns.abc.Transport` to send with, such as `asyncruns.testing.InMemoryTransport`. It is
            borrowed: not closed here. Of the other options only `max_retries`, `validate`, `webhook_secret`,
            `journal` and `telemetry` can be given with it.
        webhook_secret: The secret that webhooks are checked with, or several of which one must fit, as while a secret
            is being replaced. By default the environment variable OPENAI_WEBHOOK_SECRET, as in the official client.
        journal: A journal that was opened, such as `SQLiteJournal(path)`: every watch of this client writes down before
            its first poll which run it watches, and then each call, output and submit. What `run` is asked for is
            written down before anything is sent. If the process dies, `resume`, or that of a fleet, takes up what is
            left. An outcome that a caller gets is forgotten. It is borrowed: not closed here.
        telemetry: Follows what this client does, such as `asyncruns.otel.OpenTelemetry()`, which makes traces and
            metrics of it, or `TimelineFile(path)`; or several of them. Default None.

    Attributes:
        base_url: The URL under which the API is; "" if a `transport` was given.
        transport: Sends each request once.
        dialect: Makes and reads the requests of a watch.
        assistants: Assistants: create, retrieve, update, list, delete.
        threads: Threads, with `threads.messages`, `threads.runs` and `threads.runs.steps`.

    Raises:
        ConfigurationError: An option is unusable, or would have no effect.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        auth: Auth | None = None,
        api_key: ApiKey | None = None,
        version: str | None = "v2",
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str] | None = None,
        organization: str | None = None,
        project: str | None = None,
        request_timeout: float | UnsetType | None = UNSET,
        timeout: float | UnsetType | None = UNSET,
        max_retries: int = 2,
        validate: bool = True,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: ssl_module.SSLContext | aiohttp.Fingerprint | bool = True,
        http: HTTPLibrary = "aiohttp",
        transport: Transport | None = None,
        webhook_secret: str | Sequence[str] | None = None,
        journal: Journal | None = None,
        telemetry: Telemetry | Sequence[Telemetry] | None = None,
    ) -> None:
        check_retries(max_retries)
        self.base_url: str = ""
        self._own: Transport | None = None
        self._closing: asyncio.Task[None] | None = None  # set while `close` waits for watches that are being left
        if transport is None:
            transport = self._own = chosen_http(http)(
                given_base_url(base_url),
                auth=chosen_auth(auth, api_key),
                headers=own_headers(default_headers, organization, project),
                version_headers=version_header(version),
                versioned_paths=VERSIONED_PATHS,
                query=default_query,
                request_timeout=chosen_timeout(request_timeout, timeout),
                session=session,
                proxy=proxy,
                trust_env=trust_env,
                ssl=ssl,
            )
            self.base_url = transport.base_url
        else:
            given_transport(
                transport,
                base_url=(base_url, None),
                auth=(auth, None),
                api_key=(api_key, None),
                version=(version, "v2"),
                default_headers=(default_headers, None),
                default_query=(default_query, None),
                organization=(organization, None),
                project=(project, None),
                request_timeout=(request_timeout, UNSET),
                timeout=(timeout, UNSET),
                session=(session, None),
                proxy=(proxy, None),
                trust_env=(trust_env, False),
                ssl=(ssl, True),
                http=(http, "aiohttp"),
            )
        followed = given_telemetry(telemetry)
        guarded = None if followed is None else GuardedTelemetry(followed)
        if guarded is not None:
            transport = FollowedTransport(transport, guarded)
        host = urlsplit(self.base_url).hostname or ""
        self.transport: Transport = transport
        self.dialect: Dialect[Run] = ThreadRunDialect(host=host)
        retrying = RetryTransport(transport, max_retries=max_retries)
        server = self._server = Server(
            retrying,
            self.dialect,
            self.dialect.limits if validate else None,
            once=transport,
            max_retries=max_retries,
        )
        self._webhook_secrets = None if webhook_secret is None else given_secrets(webhook_secret)
        self._open_watches: OpenWatches = server.open_watches  # `close` waits for those that are being left
        self._open_watches.journal = checked_journal(journal)
        self._open_watches.telemetry = guarded
        self._open_watches.server = self.base_url
        self.assistants: Assistants = Assistants(server)
        self.threads: Threads = Threads(self, server)

    @cached_property
    def responses(self) -> Responses:
        """Responses: create, retrieve, cancel, delete, run, watch, and `responses.input_items`."""
        from asyncruns.resources.responses import Responses  # imported late: its many structs take time to import

        return Responses(self._server)

    @cached_property
    def batches(self) -> Batches:
        """Batches of OpenAI's wire: create, retrieve, list, cancel, watch."""
        from asyncruns.fleet.group_watch import watch_group
        from asyncruns.resources.batches import Batches  # late, as the responses: few programs use all wires

        return Batches(self._server, watch_group)

    @cached_property
    def message_batches(self) -> MessageBatches:
        """Batches of Anthropic's wire: create, retrieve, list, cancel, delete, watch."""
        from asyncruns.resources.message_batches import MessageBatches

        return MessageBatches(self._server)

    @cached_property
    def files(self) -> Files:
        """Files: create, retrieve, list, delete, content."""
        from asyncruns.resources.files import Files

        return Files(self._server)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Webhooks of this server: `unwrap` checks the signature of one, and returns its event."""
        from asyncruns.resources.webhooks import Webhooks

        return Webhooks(self._webhook_secrets)

    @overload
    async def run(
        self,
        *,
        assistant_id: str,
        message: str | Iterable[Mapping[str, Any]],
        thread_id: str | None = None,
        parameters: RunParameters | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = True,
        key: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Run]: ...

    @overload
    async def run(
        self,
        *,
        model: str,
        message: str | Iterable[Mapping[str, Any]],
        parameters: ResponseParameters | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[ModelResponse]: ...

    async def run(
        self,
        *,
        message: str | Iterable[Mapping[str, Any]],
        assistant_id: str | None = None,
        model: str | None = None,
        thread_id: str | None = None,
        parameters: Any = None,
        on_busy: OnBusy = "raise",
        adopt: bool = True,
        key: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Any]:
        """Send a message to an assistant or a model, watch the run until it ends, and return the outcome.

        With `assistant_id`, the message is added to a thread and a run is started on it. With `model`, a background
        response is created, with the definitions of `tools`; there is no thread (see `client.responses.watch`).

        With a journal, what it takes to ask for the run is written down before anything is sent, and kept until the run
        is created: after a crash `resume` creates it, or finds what was created of it. So nothing is created twice; of
        a response whose create was being sent, the outcome says that it may exist, or it is created again with
        `on_lost_submit="resend"`. A run on a given thread gets a `key` of its own then if it has none, and
        `extra_headers` are refused: they may be credentials.

        If an answer of the server is lost, a message or a run that was created is found and adopted; it is created
        again only if it is certainly not there. A thread can't be found: another one is created, and an orphan without
        a run may remain at the server. A response can't be found either: it is created again only with
        `on_lost_submit="resend"`.

        Safe to cancel: a pending submit, or the pending create of the run, is awaited for at most 5 s. What was created
        remains at the server; the run goes on there, or is cancelled with `on_exit="cancel"`. If the caller is
        cancelled while the run is created, and the run goes on, a warning names it. With a journal, `resume` goes on
        with it, and creates one whose create had not begun.

        Args:
            assistant_id: The assistant. It must know the tools: create it with `tools=toolset.definitions()`, or pass
                them as `parameters={"tools": ...}`.
            model: The model of a response, for servers with the Responses API.
            message: The user's text, or a list of content parts.
            thread_id: The thread. Default None: a new one.
            parameters: Further parameters of the run or the response, such as `metadata`: a dict of type
                `RunParameters` or `ResponseParameters`.
            on_busy: What to do if another run is active on the thread: "raise" (default), or "wait" until it has ended;
                see `threads.runs.create`. That wait is not part of `timeout`. Another run may still start between the
                message and the run.
            key: A string of 1 to 512 characters that makes the call safe to repeat, also by another process after a
                crash: the run and its message get it in their metadata, as `asyncruns_key`. If the thread has a run
                with this key, that one is watched, whatever its status, and nothing is created; if it has only the
                message, the run is created. Needs `thread_id`. What it cannot promise: of two processes that call
                this at the very same moment, both may add their message, and on a server that lets a thread have
                two active runs, both may start a run; and a server that keeps no metadata finds nothing.
            adopt: Whether message and run get a pair `asyncruns_nonce` in their metadata, by which they are found if an
                answer is lost. Default True. The run gets none if `parameters` has 16 pairs already, the limit.
            **options: `tools`, `timeout` and the other options of `RunWatcher`, with the defaults stated there. The
                strict JSON Schema of `output_type` is sent, for an answer that `outcome.parsed()` reads; its JSON must
                be an object.

        Returns:
            The outcome: `Completed`, `Failed`, `Cancelled`, `Expired`, `Incomplete`, `NeedsCaller` or `GaveUp`. How the
            run ends is never raised; `outcome.text()` and `outcome.unwrap()` raise if it is not completed.

        Raises:
            InvalidRequestError: Neither or both of `assistant_id` and `model` are given, or an option is unusable, or
                the run can have no `key`; nothing was sent.
            JournalError: The journal could not be written, so what comes next was not sent.
            NotOwnerError: The run that has the `key` is watched by another process with the same journal.
            ThreadBusyError: Another run is active on the thread; the error names it.
            APIError: The thread, the message, the run or the response could not be created. What fails later is in the
                outcome.
        """
        new = self._new_run(
            options,
            message=message,
            assistant_id=assistant_id,
            model=model,
            thread_id=thread_id,
            parameters=parameters,
            on_busy=on_busy,
            adopt=adopt,
            key=key,
        )
        return await run_to_outcome(new, options)

    def _new_run_again(
        self, creating: Mapping[str, Any], options: SharedOptions, once: Transport | None = None
    ) -> NewRun:
        """Return the run or the response that a journal says was asked for; `_new_run` describes the other arguments.

        Raises:
            InvalidRequestError: It does not say enough, or this client cannot create it.
        """
        creator = self if once is None else self._through(once)
        if creating.get("dialect") == self.dialect.name and isinstance(creating.get("parameters"), dict):
            start = StartOfRun.asked_again(creating, options.get("tools"))
            try:
                return self._new_run_of(start, creator)
            except TypeError as error:  # a newer version has written a parameter that this one does not know
                raise InvalidRequestError(f"This version cannot create the run as it was asked for: {error}") from error
        if creating.get("dialect") == RESPONSE and isinstance(creating.get("parameters"), dict):
            return self.responses._new_run_with(creating["parameters"], options, creator.responses)
        raise InvalidRequestError(f"This client creates no run of the kind {creating.get('dialect')!r}")

    def _new_run_of(self, start: StartOfRun, creator: Client) -> NewRun:
        start.check(self._server.limits)
        return NewRun(self, followed_create(self, partial(start.run, creator.threads)), start.to_ask_again)

    def _new_run(
        self,
        options: SharedOptions,
        once: Transport | None = None,
        *,
        whose: str = "client.run",
        known: type = WatchOptions,
        message: str | Iterable[Mapping[str, Any]],
        assistant_id: str | None = None,
        model: str | None = None,
        thread_id: str | None = None,
        parameters: Any = None,
        on_busy: OnBusy = "raise",
        adopt: bool = True,
        key: str | None = None,
    ) -> NewRun:
        """Return the run or the response that `run` creates; that describes the other arguments.

        Args:
            options: The options of its watch.
            once: If given, the create is sent through this transport; see `Server.through`.
            whose: What has these options, as the beginning of a message.
            known: The class whose annotations are the known options.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.
        """
        check_watch_options(options, known, whose=whose, elsewhere=_parameters_of(model))
        if isinstance(message, bytes | Mapping) or not isinstance(message, Iterable):
            raise InvalidRequestError(f"message must be a text, or a list of parts; got {type(message).__name__}")
        content = message if isinstance(message, str) else list(message)  # may be sent twice
        creator = self if once is None else self._through(once)
        if assistant_id is None or model is not None:
            model = _model_alone(model, assistant_id=assistant_id, thread_id=thread_id, key=key)
            return self.responses._new_run(model, content, parameters, options, creator.responses)
        start = StartOfRun(
            assistant_id=assistant_id,
            content=content,
            parameters=_with_output_type(parameters or {}, options.get("output_type")),
            thread_id=thread_id,
            on_busy=on_busy,
            adopt=adopt,
            key=key,
            tools=options.get("tools"),
        )
        return self._new_run_of(start, creator)

    def _through(self, once: Transport) -> Client:
        """Return this client, with all requests sent through another transport; see `Server.through`."""
        view = copy.copy(self)
        for name in ("responses", "batches", "message_batches", "files"):
            vars(view).pop(name, None)
        view._own = None
        view._server = server = self._server.through(once)
        view.transport = once
        view.assistants, view.threads = Assistants(server), Threads(view, server)
        return view

    @overload
    async def watch(
        self,
        run: Run | RunRef | RunStream | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Run]: ...

    @overload
    async def watch(
        self, run: ModelResponse | ResponseStream, **options: Unpack[WatchOptions]
    ) -> AnyOutcome[ModelResponse]: ...

    @overload
    async def watch(self, *, response_id: str, **options: Unpack[WatchOptions]) -> AnyOutcome[ModelResponse]: ...

    @overload
    async def watch(self, run: Batch, **options: Unpack[WatchOptions]) -> AnyOutcome[Batch]: ...

    @overload
    async def watch(self, run: BatchGroup, **options: Unpack[WatchOptions]) -> GroupOutcome: ...

    @overload
    async def watch(self, run: MessageBatch, **options: Unpack[WatchOptions]) -> AnyOutcome[MessageBatch]: ...

    @overload
    async def watch(self, *, batch_id: str, **options: Unpack[WatchOptions]) -> AnyOutcome[Any]: ...

    @overload
    async def watch(self, *, token: str, **options: Unpack[WatchOptions]) -> AnyOutcome[Any]: ...

    @overload
    async def watch(self, run: HasId | Mapping[str, Any], **options: Unpack[WatchOptions]) -> AnyOutcome[Any]: ...

    async def watch(
        self,
        run: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        response_id: str | None = None,
        batch_id: str | None = None,
        token: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Any] | GroupOutcome:
        """Watch a run until it ends, answer its tool calls, and return the outcome.

        To see events on the way, use `RunWatcher`, which takes the same options.

        Safe to cancel: a pending submit is awaited for at most 5 s; the run goes on at the server, or is cancelled with
        `on_exit="cancel"`. With the latter, the run is also cancelled if the watch would finish as `GaveUp` or
        `NeedsCaller`, and the outcome is what became of it, usually `Cancelled`.

        Args:
            run: A run, a response, a batch, a `BatchGroup`, a `RunRef`, or the stream that `stream=True` returned. One
                of another client, such as openai, anthropic or azure-ai-agents, or its JSON as a dict, is watched by
                its ids. If omitted, pass `thread_id` and `run_id`, `response_id` or `batch_id`.
            thread_id: The thread of the run, when `run` is not given.
            run_id: The run, when `run` is not given.
            response_id: The response, when `run` is not given.
            batch_id: The batch, when `run` is not given. An id that begins with "msgbatch_" is of a message batch.
            token: What `token` of a watch or of an outcome returned, to go on with that watch, perhaps of another
                process; see `RunWatcher.token`.
            **options: `tools`, `timeout` and the other options of `RunWatcher`, with the defaults stated there.

        Returns:
            The outcome: `Completed`, `Failed`, `Cancelled`, `Expired`, `Incomplete`, `NeedsCaller` or `GaveUp`; of a
            group, a `GroupOutcome`. How the run ends is never raised; `outcome.text()` and `outcome.unwrap()` raise if
            it is not completed.

        Raises:
            InvalidRequestError: The arguments do not name a run, or an option is unusable, or another watch reads this
                stream.
            APIError: The stream ended, or `timeout` passed, before the stream named its run. What fails later is in the
                outcome.
            NotOwnerError: A living process that has the same journal watches the run; or the watch of the token was
                delivered or forgotten.
            JournalError: The client has a journal, and it could not be read or written.
        """
        if token is not None:
            ids = {"thread_id": thread_id, "run_id": run_id, "response_id": response_id, "batch_id": batch_id}
            token_alone(token, run=run, **ids)
            return await watch_to_outcome(self, None, options, token=token)
        if isinstance(run, BatchGroup):
            return await self.batches.watch(run, **options)
        run = with_own_id(run, response_id, batch_id, thread_id=thread_id, run_id=run_id)
        return await watch_to_outcome(self, run, options, thread_id=thread_id, run_id=run_id)

    async def resume(
        self,
        *,
        context_factory: Callable[[RunRef, Any], object] | None = None,
        toolsets: Iterable[Toolset] = (),
        **options: Unpack[WatchOptions],
    ) -> list[RunWatcher[Any]]:
        """Take up the watches that processes which have ended had left in the journal; return a watcher for each.

        Nothing happens until a watcher is entered; then its run is polled once, and it goes on from what the server
        shows, as `Fleet.resume` describes. Each has its `ref` and `label`::

            for watcher in await client.resume(tools=tools):
                async with watcher:
                    outcome = await watcher.wait()

        A run that was still to be created is created now; if that fails, it stays in the journal, with a warning.
        Many watches are better taken up by a fleet, which polls them under one budget. Those that this process has not
        entered when the client is closed are left in the journal again; until then no other process gets them. Those
        that a living process watches are left to it, and those that this client cannot watch stay in the journal, with
        a warning in the log. Safe to cancel: none is taken up then.

        Args:
            context_factory: Called with the ref and the label of each; returns its `context`.
            toolsets: Where the watches whose tools had a name (`Toolset(name=...)`) find them, besides `tools`. A watch
                whose toolset is not there stays in the journal, with a warning.
            **options: As for `watch`, for all of them; the label is that of the journal.

        Raises:
            InvalidRequestError: The client has no journal; or an option is invalid.
            JournalError: The journal could not be read or written.
        """
        return await resumed_watchers(self, options, context_factory, self._create_again, toolsets)

    async def _create_again(self, recorder: WatchRecorder, options: WatchOptions) -> tuple[RunClient[Any], Any]:
        """Create a run that a journal says was asked for; return the client that watches it, and the run."""
        if recorder.record.creating is None:
            raise InvalidRequestError(
                "The codec of the journal has dropped what it takes to ask for it; Fleet.resume() tells that, and "
                "forgets it"
            )
        new = self._new_run_again(recorder.record.creating, options)
        run = await new.create(create_guard_for(new.client, options, recorder))
        recorder.created(new.client.dialect.identify(run, {}))
        await begin_as_created(recorder)
        return new.client, run

    async def poll_now(self, run: object) -> bool:
        """Poll a run at once that is watched with the journal of this client, in this process or in another.

        A webhook may so arrive at any worker: pass its event. Safe to cancel; the run is then polled or not.

        Args:
            run: The run in any form that `RunRef.of` takes; or the event of a webhook about it.

        Returns:
            Whether a living process watches the run; False also for an event about something else.

        Raises:
            InvalidRequestError: This is none of these, or the client has no journal.
            JournalError: The journal could not be read or written.
        """
        return await self._ask_watch(run, Wish.POLL)

    async def cancel_run(self, run: object) -> bool:
        """Ask the process that watches a run with the journal of this client, this one or another, to cancel it.

        That stops its tools and goes on as `RunWatcher.cancel_run` does; a watch that was resumed, and is not entered
        yet, cancels the run when it is. Safe to cancel; the process is then asked or not. To cancel a run that nothing
        watches, use `threads.runs.cancel` or `responses.cancel`.

        Args:
            run: The run in any form that `RunRef.of` takes.

        Returns:
            Whether a living process watches the run.

        Raises:
            InvalidRequestError: This is no run, or the client has no journal.
            JournalError: The journal could not be read or written.
        """
        return await self._ask_watch(run, Wish.CANCEL)

    async def _ask_watch(self, run: object, wish: Wish) -> bool:
        journal = self._open_watches.journal
        if journal is None:
            raise InvalidRequestError(
                "This client has no journal, which says what watches a run: Client(journal=...). Without one, use "
                "poll_now() and cancel_run() of the watcher or the fleet"
            )
        if isinstance(run, WebhookEvent) and run.ref is None:
            return False
        return await ask_watch(journal, RunRef.of(run), wish)

    def for_run(self, run: object) -> RunClient[Any]:
        """Return the client for runs of this kind: this client for a run on a thread, others for responses and batches.

        A `Fleet` uses it, so that one client serves all kinds.

        Raises:
            InvalidRequestError: It is not a run, a response, a batch, a stream or a `RunRef`; the message says what to
                pass.
        """
        if isinstance(run, Token):
            run.check_has_all()
            alone = self.for_run(run.ref)
            return alone if run.parameters is None else self.responses.continued(run.parameters)
        run = given_run(run)
        kind = self._kind_of(run)
        if kind == self.dialect.name:
            return self
        if kind == BATCH:
            return self.batches.alone
        if kind == MESSAGE_BATCH:
            return self.message_batches.alone
        alone = self.responses.alone
        _check_is_watched(run)
        return alone

    def _kind_of(self, run: object) -> str | None:
        """Return the name of the dialect of a run, as far as it shows."""
        if run is None or isinstance(run, Run):
            return self.dialect.name
        if isinstance(run, EventStream):
            return source_of(run).dialect
        if isinstance(run, RunRef):
            return run.dialect
        found = dialect_and_ids(run)
        return found[0] if found else None

    async def answer(self, ref: RunRef) -> list[Message]:
        """Fetch the messages that a run on a thread wrote, oldest first. Safe to cancel.

        Raises:
            APIError: They could not be fetched, or fill more than 100 pages of 100.
        """
        thread_id, run_id = ref.ids
        listed = self.threads.messages.list(thread_id, run_id=run_id, order="asc", limit=PAGE_SIZE)
        listed = listed.at_most(ANSWER_PAGES)
        # Some servers ignore the parameter run_id, and return the messages of the whole thread.
        return [found async for found in listed if found.role != "user" and (found.run_id or run_id) == run_id]

    async def close(self) -> None:
        """Close the connections, except those of a borrowed session or transport. May be called twice.

        First waits for watches that are being left, since they may still have to cancel their runs; that usually takes
        a few seconds. Open watches with `on_exit="cancel"` are made to leave too, as they could not go on afterwards,
        unless the transport is borrowed. Safe to cancel, and to call in a tool or a handler of such a watch: closing
        then continues in the background.
        """
        if not self._open_watches.is_empty:
            if self._closing is None or self._closing.done():
                self._closing = asyncio.create_task(self._close(), name="asyncruns close")
            await asyncio.wait({self._closing})
        else:
            await self._close()

    async def _close(self) -> None:
        try:
            await self._open_watches.finished(ends=self._own is not None)
            await release_unentered(self._open_watches)
        finally:
            if self._own is not None:
                await self._own.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Client {self.base_url or repr(self.transport)}>"


def _check_is_watched(run: object) -> None:
    from asyncruns.wire import ModelResponse  # imported late, like the responses

    if not isinstance(run, RunRef | EventStream | ModelResponse):
        raise no_run(run, "Pass a run, a response, a batch, a stream or a RunRef, or thread_id and run_id")


def _model_alone(model: str | None, **others: str | None) -> str:
    if others.pop("key") is not None and model is not None:
        raise InvalidRequestError(
            "key= needs assistant_id= and thread_id=: responses cannot be listed, so none could be found by a key. "
            "With Client(journal=...), a create that a crash cut off is not sent again"
        )
    if model is None or any(given is not None for given in others.values()):
        raise InvalidRequestError(
            "Pass either assistant_id=, with or without thread_id=, or model= alone; for another model than the "
            'assistant\'s, pass parameters={"model": ...}'
        )
    return model


def _with_output_type(parameters: Mapping[str, Any], output_type: type[object] | None) -> RunParameters:
    if "output_type" in parameters:
        raise InvalidRequestError("Pass output_type as output_type=, not in the parameters")
    given = {name: list(value) if isinstance(value, Iterator) else value for name, value in parameters.items()}
    return cast("RunParameters", with_response_format({**given, "output_type": output_type}))


def _parameters_of(model: str | None) -> tuple[Container[str], str]:
    """Return the names of the parameters of a run or, with a model, of a response; and how to pass one of them."""
    if model is None:
        return RunParameters.__annotations__, _AS_PARAMETER
    from asyncruns.resources.response_parameters import ResponseParameters  # late: most programs use one wire

    return ResponseParameters.__annotations__, _AS_PARAMETER
