"""Responses, for servers whose runs are responses: https://platform.openai.com/docs/api-reference/responses"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Final, Literal, Unpack, cast, overload

from asyncruns.dialects.errors import status_error
from asyncruns.dialects.given import given_run
from asyncruns.errors import APIConnectionError, APIError, InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import RunRef
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.base import PageCall, RawCalls, Resource, Server
from asyncruns.resources.new_run import NewRun, followed_create, written_down
from asyncruns.resources.options import CallOptions
from asyncruns.resources.recorded_creates import run_to_outcome
from asyncruns.resources.response_client import ResponseClient
from asyncruns.resources.response_parameters import ResponseParameters, with_text_format
from asyncruns.resources.run_parameters import split_options
from asyncruns.streams.response_stream import ResponseStream
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.options import SharedOptions, WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.to_outcome import watch_to_outcome
from asyncruns.wire import Deleted, ModelResponse, ResponseItem
from asyncruns.wire.names import RESPONSE

_NO_LIST: Final = (404, 405)
CREATE_TRIES: Final = 3  # each lost answer may leave an orphan, so few
LOST_CREATE: Final = "The process ended while the response was being created, so the answer was lost."
NOT_FOUND_AGAIN: Final = "It may exist, but cannot be found without its id."


class _Responses(Resource):
    """The base class of both resources of responses."""

    _tools_limit: ClassVar[str | None] = None

    def _error(self, request: Request, response: Response) -> Exception:
        # The dialect of the `Server` is that of threads, and would look for a busy thread in the error.
        return status_error(request, response)


class InputItems(_Responses):
    """`client.responses.input_items`. The method also takes the `CallOptions`."""

    def list(
        self,
        response_id: str,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        include: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[ResponseItem]:
        """List the input items of a response: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: First ("asc") or last ("desc") item first; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page, if the server supports it.
            include: What else to send, such as "message.input_image.image_url". Sent as `include[]`.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before, "include": include}
        item = cast("type[ResponseItem]", ResponseItem)  # a union, which type checkers do not accept as a type
        return self._list(item, "responses", response_id, "input_items", query=query, options=options)


class RawResponses(RawCalls):
    """`client.responses.with_raw_response`."""

    input_items: RawCalls


class Responses(_Responses):
    """`client.responses`, with `.input_items`. Every method also takes the `CallOptions`."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.input_items: InputItems = InputItems(server)

    @cached_property
    def alone(self) -> ResponseClient:
        """The client for watches without `continue_with`: follow-ups repeat the echoed parameters. Can be shared."""
        return ResponseClient(_retrieving, self._server, None)

    def continued(self, continue_with: Mapping[str, Any] | None = None) -> ResponseClient:
        """Return a client for a watcher or fleet of responses whose follow-ups need other parameters than they echo.

        Args:
            continue_with: As in `watch`.

        Raises:
            InvalidRequestError: `continue_with` is not valid.
        """
        return ResponseClient(_retrieving, self._server, continue_with)

    async def watch(
        self,
        response: ModelResponse | ResponseStream | RunRef | str,
        *,
        continue_with: ResponseParameters | None = None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[ModelResponse]:
        """Watch a response to its end; the outputs of each round of calls create a follow-up response.

        A follow-up inherits nothing, so it is created with the parameters of the first response. The outcome's `refs`
        are those of all responses. If the answer to the create of a follow-up is lost, it is not known whether it
        exists, and an orphan cannot be found: the watch gives up, or, with `on_lost_submit="resend"`, sends the same
        request again. Tools are not run again.

        Safe to cancel: leaving waits for a pending follow-up; the response goes on at the server, or is cancelled with
        `on_exit="cancel"`.

        Args:
            response: The response, a `RunRef`, the id, or the stream of a response.
            continue_with: The parameters that it was created with, including `extra_headers` and the like, which polls
                use, too. By default those that the response echoes, but some servers omit or hide some of them: pass
                this with MCP tools, a template (`prompt`) or `include`, and for an `output_type` if the server does not
                echo `text`. An `output_type` here is sent, and one beside it only reads the text.
            **options: See `RunWatcher`.

        Raises:
            InvalidRequestError: `response` is not a response, or an option is not valid.
        """
        if isinstance(response, str) and response.startswith(("run_", "thread_")):
            given_run(response)  # raises: it is the id of a run or thread
        client = self.continued(continue_with)
        run = RunRef(client.dialect.name, (response,)) if isinstance(response, str) else response
        return await watch_to_outcome(client, run, options)

    async def run(
        self,
        model: str,
        message: str | Iterable[Any],
        parameters: ResponseParameters | None,
        **options: Unpack[WatchOptions],
    ) -> AnyOutcome[ModelResponse]:
        """Create a response in the background, with the toolset's definitions, and watch it to its end.

        `client.run(model=...)` calls this. With `on_lost_submit="resend"`, the create is sent up to three times if its
        answer is lost; each lost one may leave an orphan. Safe to cancel, as `watch`.

        Args:
            model: As in `create`.
            message: The `input` of the response.
            parameters: See `ResponseParameters`.
            **options: See `RunWatcher`. The schema of `output_type` is sent with the response and each follow-up.

        Raises:
            InvalidRequestError: `parameters` has a model or input, or a format beside `output_type`; nothing was sent.
            APIError: The response could not be created, or it is not known whether it was.
        """
        return await run_to_outcome(self._new_run(model, message, parameters, options), options)

    def _new_run(
        self,
        model: str,
        message: str | Iterable[Any],
        parameters: ResponseParameters | None,
        options: SharedOptions,
        creator: Responses | None = None,
    ) -> NewRun:
        """Return the response that `run` creates.

        Args:
            model: The model.
            message: The `input` of the response.
            parameters: Its other parameters.
            options: Those of the watch.
            creator: Creates it in place of this resource, over another transport.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.
        """
        given_by_caller = parameters or {}
        for name, passed_as in (("model", "model="), ("input", "message="), ("output_type", "output_type=")):
            if name in given_by_caller:
                raise InvalidRequestError(f"Pass {name} as {passed_as}, not in the parameters")
        tools = options.get("tools")
        given: dict[str, Any] = {
            "model": model,
            "input": message if isinstance(message, str) else list(message),
            "store": True,
            **({"tools": tools.definitions(wire="responses")} if tools else {}),
            **{name: list(value) if isinstance(value, Iterator) else value for name, value in given_by_caller.items()},
            "output_type": options.get("output_type"),
            "background": True,  # last, since the parameters must not replace it: a watch polls
        }
        return self._new_run_with(with_text_format(given), options, creator)

    def _new_run_with(self, given: dict[str, Any], options: SharedOptions, creator: Responses | None = None) -> NewRun:
        """Return the response that is created with these parameters; `_new_run` describes the others."""
        tries = CREATE_TRIES if options.get("on_lost_submit") == "resend" else 1
        again = {name: value for name, value in given.items() if name != "input"}  # a follow-up's input: the outputs
        continue_with = cast("ResponseParameters", again)
        created = (creator or self)._created
        client = self.continued(continue_with)
        return NewRun(
            client,
            followed_create(client, partial(created, cast("ResponseParameters", given), tries)),
            partial(written_down, RESPONSE, {"parameters": given}),
        )

    @property
    def with_raw_response(self) -> RawResponses:
        """The same methods, returning a `RawResponse`; `.input_items` too."""
        return RawResponses(self)

    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, **parameters: Unpack[ResponseParameters]
    ) -> ModelResponse: ...

    @overload
    async def create(self, *, stream: Literal[True], **parameters: Unpack[ResponseParameters]) -> ResponseStream: ...

    @overload
    async def create(
        self, *, stream: bool, **parameters: Unpack[ResponseParameters]
    ) -> ModelResponse | ResponseStream: ...

    async def create(
        self, *, stream: bool | None = None, **parameters: Unpack[ResponseParameters]
    ) -> ModelResponse | ResponseStream:
        """Create a response.

        With `background=True`, the server answers at once, usually with the status `queued`, and works on. With
        `stream=True`, its events are returned as they happen; with both, a stream that broke can be reopened with
        `retrieve`.

        Safe to cancel. With `background=True` the response may then exist and go on, and cannot be found without its
        id. Without it, most servers discard the response.

        Args:
            stream: Whether to return a `ResponseStream` in place of the response; use it with `async with`.
            **parameters: See `ResponseParameters`.

        Raises:
            BadRequestError: The server refused a parameter, or the output of a call is missing.
            APIError: The server did not answer; after a timeout or a dropped connection the response may exist. The
                request is not repeated, since there is no list of responses to find out.
        """
        body, options = split_options(with_text_format(parameters), ResponseParameters)
        if stream:
            request = self._request("POST", "responses", body={**body, "stream": True}, options=options)
            return ResponseStream(request, await self._open_stream(request))
        return await self._ask(ModelResponse, "POST", "responses", body=body, options=options)

    @overload
    async def retrieve(
        self,
        response_id: str,
        *,
        include: Sequence[str] | None = None,
        stream: Literal[False] | None = None,
        starting_after: None = None,
        **options: Unpack[CallOptions],
    ) -> ModelResponse: ...

    @overload
    async def retrieve(
        self,
        response_id: str,
        *,
        include: Sequence[str] | None = None,
        stream: Literal[True],
        starting_after: int | None = None,
        **options: Unpack[CallOptions],
    ) -> ResponseStream: ...

    @overload
    async def retrieve(
        self,
        response_id: str,
        *,
        include: Sequence[str] | None = None,
        stream: bool,
        starting_after: int | None = None,
        **options: Unpack[CallOptions],
    ) -> ModelResponse | ResponseStream: ...

    async def retrieve(
        self,
        response_id: str,
        *,
        include: Sequence[str] | None = None,
        stream: bool | None = None,
        starting_after: int | None = None,
        **options: Unpack[CallOptions],
    ) -> ModelResponse | ResponseStream:
        """Fetch a response, or reopen its stream. Safe to cancel.

        Args:
            response_id: The response.
            include: As in `create`. Sent as `include[]`.
            stream: Whether to return a `ResponseStream` in place of the response, which must have been created with
                `background` and `stream`.
            starting_after: The `sequence_number` of the last event that was seen; by default all events are repeated.

        Raises:
            InvalidRequestError: `starting_after` without `stream=True`.
            NotFoundError: There is no such response, or the server no longer keeps it.
            APIError: The server did not answer.
        """
        query: dict[str, Any] = {"include": include}
        if stream:
            query |= {"stream": True, "starting_after": starting_after}
            request = self._request("GET", "responses", response_id, query=query, options=options)
            body = await self._open_stream(request)
            return ResponseStream(request, body, response_id=response_id, starting_after=starting_after)
        if starting_after is not None:
            raise InvalidRequestError("starting_after is for a stream; pass stream=True as well")
        return await self._ask(ModelResponse, "GET", "responses", response_id, query=query, options=options)

    async def cancel(self, response_id: str, **options: Unpack[CallOptions]) -> ModelResponse:
        """Request the cancellation of a response that was created with `background=True`.

        Safe to cancel; the cancellation may then take effect at the server or not.

        Raises:
            BadRequestError, ConflictError: The response has ended, or can't be cancelled. Some servers return the
                response unchanged instead.
            APIError: The server did not answer.
        """
        return await self._ask(ModelResponse, "POST", "responses", response_id, "cancel", options=options)

    async def delete(self, response_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete a response. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such response, or the server did not answer.
        """
        return await self._ask(Deleted, "DELETE", "responses", response_id, options=options)

    def list(
        self,
        *,
        model: str | None = None,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[ModelResponse]:
        """List the responses that a server keeps: `await` for one page, `async for` for all. Safe to cancel.

        Few servers have such a list: OpenAI has none, OGX has one.

        Args:
            model: Only responses of this model, if the server supports it.
            limit: Responses per page; OGX takes 1 to 100, by default 50.
            order: First ("asc") or last ("desc") response first; the server's default is "desc".
            after: Id of the response before the page.
            before: Id of the response after the page, if the server supports it.

        Raises:
            NotFoundError, APIStatusError: The server has no list of responses (404 or 405); the message says so.
            APIError: The server did not answer.
        """
        query = {"model": model, "limit": limit, "order": order, "after": after, "before": before}
        return self._list(ModelResponse, "responses", query=query, options=options)

    def _error(self, request: Request, response: Response) -> Exception:
        error = status_error(request, response)
        is_list = request.method == "GET" and request.path == "/responses"
        if is_list and response.status in _NO_LIST and "after" not in dict(request.query):
            error._extend("This server has no list of responses: keep the ids of those that are to be found again.")
        return error

    async def _created(self, parameters: ResponseParameters, tries: int, guard: CreateGuard) -> ModelResponse:
        """Create a response; after a lost answer, try again while there are tries left.

        A journal may say that the answer to an earlier process was lost.
        """
        if guard.recorder is not None and guard.recorder.record.submitting and tries < CREATE_TRIES:
            raise APIConnectionError(f"{LOST_CREATE} {NOT_FOUND_AGAIN}", sent=True)
        await guard.note()
        while True:
            tries -= 1
            try:
                return await guard.keep(self.create(**parameters))
            except APIError as error:
                if not is_lost(error):
                    raise
                if tries < 1:
                    raise error._extend(NOT_FOUND_AGAIN) from error.__cause__


def _retrieving(server: Server) -> Callable[..., Awaitable[ModelResponse]]:
    return Responses(server).retrieve
