"""The client: owns the transport, offers the resources, and starts watches."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, overload
from urllib.parse import urlsplit

from msgspec import UNSET, UnsetType

from asyncruns.abc import AsyncOnly, Dialect, HasId, RunClient, RunEvents, Transport
from asyncruns.client.aliases import OtherNames
from asyncruns.client.options import (
    ApiKey,
    ClientOptions,
    HTTPLibrary,
    check_retries,
    chosen_auth,
    chosen_http,
    chosen_timeout,
    given_base_url,
    given_transport,
    own_headers,
    pair_of_environment,
    version_header,
    with_proxy_of_environment,
)
from asyncruns.dialects.given import given_run, no_run
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import VERSIONED_PATHS, Server
from asyncruns.resources.options import check_names
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.start_run import start_run, warn_of_unknown_tools
from asyncruns.resources.thread_lock import OnBusy, check_on_busy
from asyncruns.resources.threads import Threads
from asyncruns.transport.auth import (
    AZURE_SCOPE,
    ApiKeyAuth,
    Auth,
    BearerAuth,
    NoAuth,
    PortkeyAuth,
    TokenCredential,
    TokenProvider,
)
from asyncruns.transport.retry import RetryTransport
from asyncruns.transport.urls import check_base_url
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.watch.options import WatchOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.to_outcome import create_guard_for, watch_to_outcome
from asyncruns.wire import Message, Run

if TYPE_CHECKING:
    import aiohttp

    from asyncruns.resources.response_parameters import ResponseParameters
    from asyncruns.resources.responses import Responses
    from asyncruns.streams.response_stream import ResponseStream
    from asyncruns.streams.run_stream import RunStream
    from asyncruns.wire import ModelResponse

PAGE_SIZE: Final = 100
ANSWER_PAGES: Final = 100  # of one run's messages; a list that goes on after them is taken to have no end

AZURE_OPENAI_DOMAIN: Final = ".openai.azure.com"
AZURE_OPENAI_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
PORTKEY_BASE_URL: Final = "https://api.portkey.ai/v1"


class Client(AsyncOnly, OtherNames):
    """A client of one server; use it with `async with`, or call `close` at the end.

    One client serves many tasks of one event loop at once.

    Args:
        base_url: Where the API begins, such as `https://host.example/v1`. There is no default.
        auth: `BearerAuth`, `ApiKeyAuth`, `PortkeyAuth`; None for servers without keys.
        api_key: A key, or a function that returns one, async or not, instead of `auth=BearerAuth(key)`.
        version: The value of the header `OpenAI-Beta: assistants=...`, "v2" or "v1"; None sends no such header. It goes
            with requests about threads, runs and assistants, and with no others.
        default_headers: Sent with every request.
        default_query: Sent with every request, for instance `{"api-version": "v1"}`.
        organization: Sent as `OpenAI-Organization`.
        project: Sent as `OpenAI-Project`.
        request_timeout: Seconds for one request as a whole, 30 by default; None is for ever. A wait has its own
            `timeout=`.
        timeout: The same, by the name that users of the official client know.
        max_retries: How often a request is sent again, where that can do no harm. Looks of a watch are not counted: it
            has its own patience.
        validate: Whether what the documented server would refuse is refused here already, with the field and the rule:
            metadata, page sizes, token limits, numbers of tools. Lenient servers take more.
        session: An `aiohttp.ClientSession` to borrow; it is not closed here. Its proxy and `trust_env` settings count,
            and its middlewares run. Each request is sent once over it, too: aiohttp's own second try is off for them.
        proxy: The URL of an HTTP proxy.
        trust_env: Whether `HTTPS_PROXY`, `NO_PROXY` and `.netrc` count.
        ssl: An `ssl.SSLContext`, or False for no checks.
        http: The library to send with: "aiohttp", or "httptools" (`pip install 'asyncruns[fast]'`), with which a poll
            costs about a third of the CPU time; that is for clients that poll hundreds of runs. It sends requests over
            HTTP/1.1 itself, and hands streams, and everything through a `proxy`, a `session` or with `trust_env`, to
            aiohttp with the same options, over connections of its own. Both are safe to cancel at any point: the
            connection of that request is closed, and no other. Both tell alike whether a request may have acted.
        transport: What to send with, such as `asyncruns.testing.InMemoryTransport`, in place of the client's own. It is
            borrowed: not closed here. What configures the client's own, `base_url` and `version` among it, can't be
            given beside it; `max_retries` and `validate` can.

    Attributes:
        base_url: Where the API begins; "" with a `transport` that was given.

    Raises:
        ConfigurationError: No request could ever be sent like that, or an option would have no effect.
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
    ) -> None:
        check_retries(max_retries)
        self.base_url: str = ""
        self._own: Transport | None = None
        self._closing: asyncio.Task[None] | None = None  # while watches that leave are waited for
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
        host = urlsplit(self.base_url).hostname or ""
        self.transport: Transport = transport
        self.dialect: Dialect[Run] = ThreadRunDialect(host=host)
        retrying = RetryTransport(transport, max_retries=max_retries)
        server = self._server = Server(
            retrying, self.dialect, self.dialect.limits if validate else None, once=transport
        )
        self._open_watches: OpenWatches = server.open_watches  # of which `close` waits for those that leave
        self.assistants: Assistants = Assistants(server)
        self.threads: Threads = Threads(self, server)

    @cached_property
    def responses(self) -> Responses:
        """`client.responses`: create, retrieve, cancel, delete, and `.input_items`."""
        from asyncruns.resources.responses import Responses  # late: its many structs cost those who watch runs nothing

        return Responses(self._server)

    @classmethod
    def azure(
        cls,
        endpoint: str,
        *,
        api_version: str,
        credential: TokenCredential | TokenProvider | None = None,
        api_key: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> Client:
        """Make a client of Azure AI Foundry Agents (classic), or of Azure OpenAI.

        Args:
            endpoint: `https://RESOURCE.services.ai.azure.com/api/projects/PROJECT`, or
                `https://RESOURCE.openai.azure.com`, which is completed with `/openai`.
            api_version: Required by the server: "v1" or "2025-05-01" at Foundry, "2024-05-01-preview" at Azure OpenAI.
            credential: Of azure-identity, or a function that returns a token, async or not; renewed before it expires.
            api_key: Instead of a credential; sent as `api-key`.
            **options: As `Client` takes them.

        Raises:
            ConfigurationError: Neither or both of `credential` and `api_key` are given, or no `api_version`.
        """
        if (credential is None) is (api_key is None):
            raise ConfigurationError("Azure needs either credential= or api_key=")
        if not api_version:
            raise ConfigurationError('Azure needs an api_version=, such as "v1"')
        endpoint = check_base_url(endpoint)
        is_openai = (urlsplit(endpoint).hostname or "").endswith(AZURE_OPENAI_DOMAIN)
        if is_openai and not urlsplit(endpoint).path:
            endpoint += "/openai"
        auth: Auth = NoAuth()
        if credential is not None:
            auth = BearerAuth(credential, scope=AZURE_OPENAI_SCOPE if is_openai else AZURE_SCOPE)
        elif api_key is not None:
            auth = ApiKeyAuth(api_key)
        given = dict(options)
        given.setdefault("version", "v2" if is_openai else None)
        given["default_query"] = {"api-version": api_version, **(options.get("default_query") or {})}
        return cls(endpoint, auth=auth, **cast("ClientOptions", given))

    @classmethod
    def portkey(
        cls,
        api_key: str,
        *,
        virtual_key: str | None = None,
        config: str | Mapping[str, Any] | None = None,
        provider: str | None = None,
        bearer: str | None = None,
        custom_host: str | None = None,
        trace_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        base_url: str = PORTKEY_BASE_URL,
        **options: Unpack[ClientOptions],
    ) -> Client:
        """Make a client of the Portkey gateway; `PortkeyAuth` describes the parameters.

        Args:
            base_url: The gateway, where it is not the public one.
            **options: As `Client` takes them.
        """
        auth = PortkeyAuth(
            api_key,
            virtual_key=virtual_key,
            config=config,
            provider=provider,
            bearer=bearer,
            custom_host=custom_host,
            trace_id=trace_id,
            metadata=metadata,
        )
        return cls(base_url, auth=auth, **options)

    @classmethod
    def from_env(cls, **options: Unpack[ClientOptions]) -> Client:
        """Make a client from the environment.

        Reads `ASYNCRUNS_BASE_URL` with `ASYNCRUNS_API_KEY`, or else `OPENAI_BASE_URL` with `OPENAI_API_KEY`. The pairs
        are never mixed: a key only goes to the host that it was set for. `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
        `NO_PROXY` count, in either case, but not for this machine; `.netrc` does not. `proxy=` counts over them, and
        None is for no proxy; a `session` has its own setting.

        Args:
            **options: As `Client` takes them, but for `base_url`, `auth` and `api_key`.

        Raises:
            ConfigurationError: Neither pair is complete, and the message says what is missing; or the environment names
                a proxy of another kind than HTTP.
        """
        base_url, key = pair_of_environment()
        return cls(base_url, auth=BearerAuth(key), **with_proxy_of_environment(base_url, options))

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
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Any]:
        """Put a message on a thread, run the assistant on it, and watch the run to its end; or the same with a model.

        With `model` in place of `assistant_id`, there is no thread: a background response is created, with the
        definitions of `tools`, and watched (see `client.responses.watch`). When no answer to that comes, it is not
        created again but with `on_lost_submit="resend"`, since nothing can find it.

        What a lost answer was about is found and adopted, or created again when it is surely not there. Only a thread
        can't be found: another one is created, and an orphan without a run may stay at the server.

        Safe to cancel: a pending submit, or the pending create of the run, is waited for, for at most 5 s; what was
        created stays at the server, and the run goes on there, or is cancelled with `on_exit="cancel"`. A run that goes
        on although its caller was cancelled while it was created is named by a warning.

        Args:
            model: The model of a response, at servers that have them.
            assistant_id: The assistant. It must know the tools: create it with `tools=toolset.definitions()`, or give
                them as `parameters={"tools": ...}`.
            message: The user's text, or a list of content parts.
            thread_id: The thread; a new one by default.
            parameters: What else the run, or the response, shall be created with, `metadata` among it.
            on_busy: What to do while another run is active on the thread: "raise", or "wait" until it has ended; see
                `threads.runs.create`. That wait is not part of `timeout`, and another run may slip in between the
                message and the run.
            adopt: Whether message and run carry a pair `asyncruns_nonce` in their metadata, by which they are found
                when an answer is lost. The run does not where `parameters` gives 16 pairs already.
            **options: `tools`, `timeout` and the other options of `RunWatcher`.

        Raises:
            InvalidRequestError: Neither or both of `assistant_id` and `model` are given; nothing was sent.
            ThreadBusyError: Another run is active on the thread; the error names it.
            APIError: The thread, the message or the run could not be created. What happens later is in the outcome.
        """
        check_watch_options(options)
        if assistant_id is None or model is not None:
            return await self._run_model(model, assistant_id or thread_id, message, parameters, options)
        check_on_busy(on_busy)
        given: RunParameters = parameters or RunParameters()
        check_names(given, RunParameters)
        guard = create_guard_for(self, options)
        run = await start_run(
            self.threads, thread_id, assistant_id, message, given, on_busy=on_busy, adopt=adopt, guard=guard
        )
        warn_of_unknown_tools(run, options.get("tools"))
        return await self.watch(run, **options)

    async def _run_model(
        self, model: str | None, of_threads: str | None, message: Any, parameters: Any, options: WatchOptions
    ) -> AnyOutcome[ModelResponse]:
        if model is None or of_threads is not None:
            raise InvalidRequestError("Give either assistant_id, with or without thread_id, or model")
        return await self.responses.run(model, message, parameters, **options)

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
    async def watch(self, run: HasId | Mapping[str, Any], **options: Unpack[WatchOptions]) -> AnyOutcome[Any]: ...

    async def watch(
        self,
        run: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[Any]:
        """Watch a run to its end; `RunWatcher` describes the options, and shows what happens on the way.

        Safe to cancel: a submit on its way is waited for; the run goes on at the server, or is cancelled with
        `on_exit="cancel"`. With that, a wait that is given up gives what became of the run, and not `GaveUp`.

        Args:
            run: The run, or a response, or a `RunRef`, or the stream that `stream=True` gave; or else give `thread_id`
                and `run_id`. Of a run or a response of another client, such as openai or azure-ai-agents, or of its
                JSON as a dict, the ids are taken.

        Raises:
            InvalidRequestError: That names no run, or another watch follows this stream.
            APIError: The stream ended before it told which run it is of; what a watch meets later is in the outcome.
        """
        return await watch_to_outcome(self, run, options, thread_id=thread_id, run_id=run_id)

    def for_run(self, run: object) -> RunClient[Any]:
        """Give what a `Fleet` needs to watch this run, response or `RunRef`.

        Raises:
            InvalidRequestError: It is none of these; the message says what to give.
        """
        run = given_run(run)
        if self._speaks_of(run):
            return self
        alone = self.responses.alone
        _check_is_watched(run)
        return alone

    def _speaks_of(self, run: object) -> bool:
        if isinstance(run, RunRef | RunEvents):
            return run.dialect == self.dialect.name
        return run is None or isinstance(run, Run)

    async def answer(self, ref: RunRef) -> list[Message]:
        """Fetch the messages that a run wrote, oldest first. Safe to cancel.

        Raises:
            APIError: They could not be fetched, or fill more than 100 pages.
        """
        thread_id, run_id = ref.ids
        listed = self.threads.messages.list(thread_id, run_id=run_id, order="asc", limit=PAGE_SIZE)
        listed = listed.at_most(ANSWER_PAGES)
        # Some servers take no notice of run_id.
        return [found async for found in listed if found.role != "user" and (found.run_id or run_id) == run_id]

    async def close(self) -> None:
        """Close the connections, but for those of a borrowed session or transport. May be called twice.

        Waits for watches that are being left, as long as that takes, some seconds mostly: they may still owe the server
        a cancel. Watches with `on_exit="cancel"` that go on are left as well, since they can't go on after this, unless
        the transport is borrowed. Safe to cancel, and to call in a tool or a handler of such a watch: closing then goes
        on in the background, for as long.
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
    from asyncruns.wire import ModelResponse  # late, as the responses

    if not isinstance(run, RunRef | RunEvents | ModelResponse):
        raise no_run(run, "What is watched is a run, a response or a RunRef, or thread_id and run_id")
