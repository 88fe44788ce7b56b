"""A create whose answer got lost: find by a nonce what it made, and adopt it; else create again.

Theory. After a timeout, a dropped connection, a 5xx or a body that is none, a POST has acted or not, and the wire knows
no key that would make a repetition harmless. But it keeps metadata
(https://platform.openai.com/docs/api-reference/runs/createRun#runs_createrun-metadata), so the object carries a nonce,
and a lost answer is answered by looking::

    the nonce is listed                           adopt it, as if the create had returned it
    not listed, over the span that replicas lag   it had no effect: create again, with the same bytes
    "already has an active run", when repeated    poll that run: ours is adopted, another's is in the way
    else                                          nobody can tell: raise, never create again

"Else" is a list that does not answer, does not exist or cannot be read to its end, and an object of that time without
any metadata at a server that shows none: it may be ours, with the nonce stripped. The first page is enough where it
shows the newest first; some servers take no notice of the order. What remains is a server that acts on a request so
late that the lag is over; a run finds the thread locked then, mostly, a message may stand there twice.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct

from asyncruns._loop import loop_time
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    ThreadBusyError,
)
from asyncruns.http import Request, Response, join_path, server_time
from asyncruns.lifecycle import Policy
from asyncruns.lifecycle.ledger import SUBMIT_LAG_S
from asyncruns.lifecycle.patience import Patience
from asyncruns.resources.base import RawResponse, Server, decoded
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.pages import REFUSED_PAGE, Paging
from asyncruns.resources.patient_reads import options_of_polls, poll, wait_for_next
from asyncruns.resources.thread_lock import poll_at_holder
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.wire import Message, Page, Run
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.visible import on_one_line, visible

Item = TypeVar("Item", bound=Run | Message)

log: Final = logging.getLogger("asyncruns.transport")

NONCE_KEY: Final = "asyncruns_nonce"
"""The key of the pair by which what was created is found."""

TRIES: Final = 3
SEARCH_S: Final = 60.0  # so long the looks for what was created may fail
CLOCK_MARGIN_S: Final = 5.0  # `Date` and `created_at` may be of two machines
NEWEST: Final = 100  # as many as a page can hold: some servers take no notice of the order
SEARCH_PAGES: Final = 20  # a list that goes on after them cannot be searched

_UNSURE: Final = frozenset({408, 409, 425})  # beside 5xx: the server may have acted


# Decisions


def is_lost(error: APIError) -> bool:
    """Tell whether a request that changes something may have done so, although it failed."""
    if isinstance(error, APIConnectionError):
        return error.sent
    if isinstance(error, APIStatusError):
        return error.status >= 500 or (error.status in _UNSURE and not isinstance(error, ThreadBusyError))
    return isinstance(error, APIResponseValidationError)


def with_nonce(metadata: object, pairs: int) -> tuple[Any, str | None]:
    """Put a nonce into metadata, and give both; no nonce where there is no room, nor into what is no metadata.

    A nonce that is there already came along with a copy, and names another object: it is replaced.
    """
    given = metadata or {}
    if not isinstance(given, Mapping) or len({*given, NONCE_KEY}) > pairs:
        return metadata, None
    nonce = uuid.uuid4().hex
    return {**given, NONCE_KEY: nonce}, nonce


class Finding(Struct, Generic[Item], frozen=True):
    """What some items say of ours: which it is, or which it may be."""

    ours: Item | None = None
    maybe: Item | None = None


def find(
    items: Iterable[Item], nonce: str, is_like_ours: Callable[[Item], bool], not_before: float | None
) -> Finding[Item]:
    """Look for our item.

    Args:
        is_like_ours: Whether an item that lost its metadata may be ours.
        not_before: When the create was sent, by the server's clock; None where it has none.
    """
    bare: list[Item] = []
    keeps_metadata = False
    for item in items:
        metadata = item.metadata or {}
        if metadata.get(NONCE_KEY) == nonce:
            return Finding(ours=item)
        keeps_metadata = keeps_metadata or bool(metadata)
        created = epoch_seconds(item.created_at)
        is_old = created is not None and not_before is not None and created < not_before - CLOCK_MARGIN_S
        if not is_old and is_like_ours(item):
            bare.append(item)
    return Finding(maybe=bare[0] if bare and not keeps_metadata else None)


def shows_newest(items: Sequence[Run | Message]) -> bool:
    """Tell whether a page surely has the newest first: what was created last is on it then."""
    times = [time for item in items if (time := epoch_seconds(item.created_at)) is not None]
    return len(times) == len(items) and times == sorted(times, reverse=True) and times[0] > times[-1]


# What is done about it


class Creation(Generic[Item]):
    """One item of a thread that is created once, whatever becomes of the answers.

    Args:
        send: Sends the create, with the nonce in it.
        type_: What it makes.
        segments: The path where such items are created and listed.
        nonce: What it carries; None for nothing, and then a lost answer is only explained.
        is_like_ours: See `find`.
        raw: Whether `send` gives a `RawResponse`.
        options: The call's own, which the polls are sent with.
        guard: Awaits each try, with the search after it; no other is begun when the caller is cancelled.
    """

    def __init__(
        self,
        server: Server,
        send: Callable[[], Awaitable[Item]],
        type_: type[Item],
        segments: tuple[str, ...],
        *,
        nonce: str | None,
        is_like_ours: Callable[[Item], bool],
        raw: bool,
        options: CallOptions,
        guard: CreateGuard | None = None,
    ) -> None:
        self._guard = guard
        self._server, self._send, self._type, self._segments = server, send, type_, segments
        self._nonce, self._is_like_ours, self._raw = nonce, is_like_ours, raw
        self._options = options_of_polls(options)
        self._lost: APIError | None = None  # the last answer that was
        self._began = 0.0  # when the first create was sent whose answer was lost
        self._seen: dict[str, Item] = {}
        self._found: Finding[Item] = Finding()  # on the pages that were read last
        self._tries = 0

    async def attempt(self) -> Item:
        """Create it, or adopt what an earlier try created.

        Safe to cancel; it may then exist or not. May be called again after a ThreadBusyError.

        Raises:
            ThreadBusyError: Another run holds the thread.
            APIError: The server refused it; or an answer was lost and what became of it can't be told, which the
                message then says.
        """
        while self._tries < TRIES:
            trying = self._try()
            made = await (trying if self._guard is None else self._guard.keep(trying, self._find_cut_off))
            if made is not None:
                return made
            self._tries += 1
        raise cast("APIError", self._lost).extend(f"It is not listed, after any of {TRIES} tries.")

    async def _try(self) -> Item | None:
        """Create it once, or find it; give None when the answer was lost and it is surely not there."""
        if self._lost is None:
            self._began = loop_time()
        try:
            made = await self._send()
            if self._raw:  # a body that is none is an answer that was lost
                cast("RawResponse[Item]", made).parse()
        except ThreadBusyError as busy:
            if (found := await self._our_run(busy)) is None:
                raise
        except APIError as error:
            if not is_lost(error):
                raise
            self._lost = error
            if (found := await self._search(error)) is None:
                return None
        else:
            return made
        return await self._adopt(found, cast("APIError", self._lost))

    async def _find_cut_off(self) -> Item | None:
        """Find what a create made whose own task was cancelled; None when it is surely not there."""
        path = self._path()
        error = APIConnectionError(
            f"POST {path} was cut off: its task was cancelled", sent=True, method="POST", path=path
        )
        return await self._search(error)

    async def _search(self, lost: APIError) -> Item | None:
        """Look through the list, over the span that replicas lag.

        Raises:
            APIError: The one given: it can't be told what became of it.
        """
        if self._nonce is None:
            raise self._unsure(lost, "nothing marks it: its metadata is full, or given as extra_body")
        patience = _patience()
        until = patience.started + SUBMIT_LAG_S
        while True:
            asked_at = loop_time()
            try:
                finding = await self._poll_through(patience, until)
            except APIError as error:
                raise self._unsure(lost, f"the list gives no answer: {error}") from error
            if finding.ours is not None:
                return finding.ours
            if asked_at >= until:
                return self._conclude(lost, finding)
            await wait_for_next(patience)

    async def _poll_through(self, patience: Patience, until: float) -> Finding[Item]:
        """Look through all pages of the list, or the first one where that shows the newest.

        Raises:
            APIError: A page could not be read, or there is no end of them.
        """
        paging: Paging[Item] = Paging()
        while True:
            query = {"limit": NEWEST, "order": "desc", "after": paging.after}
            request = make_request("GET", self._path(), query, None, self._options)
            try:
                page, finding = await poll(self._server, request, self._read_page, patience, not_found_until=until)
            except REFUSED_PAGE:
                if not paging.is_guess:
                    raise
                return self._found
            paging.take(page)
            self._found = finding
            if finding.ours is not None or not page.data or shows_newest(page.data):
                return finding
            if paging.after is None and page.has_more is not True:
                return finding
            if paging.after is None or paging.pages >= SEARCH_PAGES:
                raise APIError(f"it has no end after {paging.pages} pages")

    async def _our_run(self, busy: ThreadBusyError) -> Item | None:
        """Give the run that holds the thread, if it is the one that a lost answer was about."""
        if self._lost is None or self._type is not Run:
            return None
        request = poll_at_holder(busy, self._options)
        patience = _patience()
        until = patience.started + SUBMIT_LAG_S
        try:
            finding = await poll(self._server, request, self._read_item, patience, not_found_until=until)
        except APIError as error:
            raise self._unsure(self._lost, f"{busy.active_run_id} can't be polled: {error}") from error
        return self._conclude(self._lost, finding)

    def _conclude(self, lost: APIError, finding: Finding[Item]) -> Item | None:
        if finding.maybe is not None:
            raise self._unsure(lost, f"{finding.maybe.id} may be it, but shows no metadata")
        return finding.ours

    def _unsure(self, lost: APIError, why: str) -> APIError:
        advice = f"Look through GET {self._path()}, newest first, before you create it again."
        return lost.extend(visible(f"It may have been created ({why}). {advice}"))

    async def _adopt(self, found: Item, lost: APIError) -> Item:
        log.info("The answer to POST %s was lost; %s is what it made", self._path(), on_one_line(found.id))
        if not self._raw:
            return found
        request = make_request("GET", self._path(found.id), None, None, self._options)
        patience = _patience()
        until = patience.started + SUBMIT_LAG_S
        try:
            return cast("Item", await poll(self._server, request, self._read_raw, patience, not_found_until=until))
        except APIError as error:
            raise lost.extend(visible(f"It was created, as {found.id}, which can't be read: {error}")) from error

    def _path(self, *more: str) -> str:
        return join_path(*self._segments, *more)

    def _read_page(self, request: Request, response: Response) -> tuple[Page[Item], Finding[Item]]:
        type_: type[Page[Item]] = Page[self._type]  # type: ignore[name-defined]  # a page of what is made
        page = decoded(request, response, type_)
        return page, self._find(page.data, response)

    def _read_item(self, request: Request, response: Response) -> Finding[Item]:
        return self._find([decoded(request, response, self._type)], response)

    def _read_raw(self, request: Request, response: Response) -> RawResponse[Item]:
        return RawResponse(request, response, self._type)

    def _find(self, items: Iterable[Item], response: Response) -> Finding[Item]:
        now = server_time(response.headers)
        not_before = None if now is None else now - (loop_time() - self._began)
        self._seen.update({item.id: item for item in items})
        return find(self._seen.values(), self._nonce or "", self._is_like_ours, not_before)


def _patience() -> Patience:
    patience = Patience(Policy(timeout=SEARCH_S, max_outage=None))
    patience.begin(loop_time())
    return patience
