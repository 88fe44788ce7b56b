"""A create whose answer was lost: find the created object by a nonce and adopt it; otherwise create it again.

After a timeout, a dropped connection, a 5xx or an undecodable body, it is not known whether a POST took effect, and the
API has no idempotency key that would make repeating it safe. But it keeps metadata
(https://platform.openai.com/docs/api-reference/runs/createRun#runs_createrun-metadata), so the object carries a nonce,
and after a lost answer the list of objects is searched for it::

    the nonce is listed                          adopt the object, as if the create had returned it
    not listed for 5 s, the assumed replica lag  the create had no effect: repeat it, with the same bytes
    "already has an active run" when repeated    poll that run: adopt ours; another one holds the thread
    any other result                             it is not known: raise, and never create again

"Any other result" is a list that cannot be read, does not exist or has no end, or an object without metadata that was
created at that time on a server that shows no metadata at all: it may be ours, with the nonce stripped.

The first page is enough if it lists the newest objects first; some servers ignore `order`, and then all pages are read.

One case remains: a server that acts on a request, or lists the object, only after these 5 s. A repeated run then
usually finds the thread locked; a message may be added twice, and a batch may run twice.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar, cast

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
from asyncruns.wire import Page, Run
from asyncruns.wire.common import Metadata, Time, epoch_seconds
from asyncruns.wire.shown_text import on_one_line, visible


class Listed(Protocol):
    """What a create makes, as the list shows it: a run, a message or a batch."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def created_at(self) -> Time:
        """When it was created."""
        ...

    @property
    def metadata(self) -> Metadata:
        """The pairs that it was created with, the nonce among them."""
        ...


Item = TypeVar("Item", bound=Listed)

log: Final = logging.getLogger("asyncruns.transport")

NONCE_KEY: Final = "asyncruns_nonce"
"""The metadata key of the nonce by which a created object is found."""

TRIES: Final = 3
SEARCH_S: Final = 60.0  # how long polls of the list, or of a run, may fail before the search gives up
CLOCK_MARGIN_S: Final = 5.0  # `Date` and `created_at` may come from two machines
NEWEST: Final = 100  # items per page, the most that the API allows: a server that ignores `order` needs few pages
NEWEST_FIRST: Final[Mapping[str, Any]] = MappingProxyType({"limit": NEWEST, "order": "desc"})
SEARCH_PAGES: Final = 20  # a longer list cannot be searched

_UNSURE: Final = frozenset({408, 409, 425})  # besides 5xx: the request may have taken effect


# Decisions


def is_lost(error: APIError) -> bool:
    """Return whether a request that changes something may have taken effect although it failed."""
    if isinstance(error, APIConnectionError):
        return error.sent
    if isinstance(error, APIStatusError):
        return error.status >= 500 or (error.status in _UNSURE and not isinstance(error, ThreadBusyError))
    return isinstance(error, APIResponseValidationError)


def with_nonce(metadata: object, pairs: int) -> tuple[Any, str | None]:
    """Return the metadata with a nonce added, and the nonce.

    If it is not a mapping, or has no room for another pair, it is returned unchanged, with None. A nonce that is there
    already was copied from another object, and is replaced.

    Args:
        metadata: The caller's metadata; None or UNSET for none.
        pairs: Number of pairs that the server allows.
    """
    given = metadata or {}
    if not isinstance(given, Mapping) or len({*given, NONCE_KEY}) > pairs:
        return metadata, None
    nonce = uuid.uuid4().hex
    return {**given, NONCE_KEY: nonce}, nonce


class Finding(Struct, Generic[Item], frozen=True):
    """The result of a search in some items.

    Attributes:
        ours: The item with our nonce, or None.
        maybe: An item without metadata that may be ours, or None.
    """

    ours: Item | None = None
    maybe: Item | None = None


def find(
    items: Iterable[Item], nonce: str, is_like_ours: Callable[[Item], bool], not_before: float | None
) -> Finding[Item]:
    """Search items for the one that carries our nonce.

    Args:
        items: All items that were read so far.
        nonce: The nonce.
        is_like_ours: Returns whether an item that lost its metadata may be ours.
        not_before: When the create was sent, by the server's clock; None if that is not known.
    """
    bare: list[Item] = []
    keeps_metadata = False  # if any item has metadata, the server does not strip it, so an item without is not ours
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


def shows_newest(items: Sequence[Listed]) -> bool:
    """Return whether a page certainly lists the newest items first, so that it has the item that was created last."""
    # If all times are equal they prove no order, and an item without a time may be of any age.
    times = [time for item in items if (time := epoch_seconds(item.created_at)) is not None]
    return len(times) == len(items) and times == sorted(times, reverse=True) and times[0] > times[-1]


# Actions


class Creation(Generic[Item]):
    """Creates one item, and not a second one if answers are lost; the module's docstring has the theory.

    Args:
        server: The server.
        send: Sends the create, with the nonce in its body.
        type_: The type of the item.
        segments: The path where such items are created and listed.
        nonce: The nonce; None if there is none, and then a lost answer is an error.
        is_like_ours: See `find`.
        raw: Whether `send` returns a `RawResponse`.
        options: The options of the call, which polls are sent with, too.
        query: The query that lists the newest items first.
        guard: Awaits each try and the search after it. No further try begins once the caller was cancelled.
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
        query: Mapping[str, Any] = NEWEST_FIRST,
        guard: CreateGuard | None = None,
    ) -> None:
        self._guard, self._query = guard, query
        self._server, self._send, self._type, self._segments = server, send, type_, segments
        self._nonce, self._is_like_ours, self._raw = nonce, is_like_ours, raw
        self._options = options_of_polls(options)
        self._lost: APIError | None = None  # the error of the last lost answer
        self._began = 0.0  # when the first create whose answer was lost was sent, on the loop's clock
        self._seen: dict[str, Item] = {}  # by id, all items that any poll returned: `find` judges by all of them
        self._found: Finding[Item] = Finding()  # as of the last page
        self._tries = 0

    async def attempt(self) -> Item:
        """Create the item, or adopt the one that an earlier try created.

        Safe to cancel; the item may then exist or not. May be called again after a ThreadBusyError.

        Raises:
            ThreadBusyError: Another run holds the thread.
            APIError: The server refused the request; or the answer was lost and it is not known whether the item
                exists, as the message then says.
        """
        while self._tries < TRIES:
            trying = self._try()
            made = await (trying if self._guard is None else self._guard.keep(trying, self._find_cut_off))
            if made is not None:
                return made
            self._tries += 1
        what = self._type.__name__.lower()
        raise cast("APIError", self._lost)._extend(
            f"The server does not list this {what}, so it was not created by any of {TRIES} tries."
        )

    async def _try(self) -> Item | None:
        """Try once; return the item, or None if the answer was lost and the item certainly does not exist."""
        if self._lost is None:
            self._began = loop_time()
        try:
            made = await self._send()
            if self._raw:  # an undecodable body counts as a lost answer, so decode it here
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
        """Return the item of a create whose own task was cancelled; None if it certainly does not exist."""
        path = self._path()
        error = APIConnectionError(
            f"POST {path} was cut off: its task was cancelled", sent=True, method="POST", path=path
        )
        return await self._search(error)

    async def _search(self, lost: APIError) -> Item | None:
        """Poll the list until it has the item; return None if it does not after 5 s, the assumed replica lag.

        Raises:
            APIError: `lost`, extended: it is not known whether the item exists.
        """
        if self._nonce is None:
            raise self._unsure(lost, "it carries no nonce: its metadata is full, or passed as extra_body")
        patience = _patience()
        until = patience.started + SUBMIT_LAG_S
        while True:
            requested_at = loop_time()
            try:
                finding = await self._poll_through(patience, until)
            except APIError as error:
                raise self._unsure(lost, f"the list can't be read: {error}") from error
            if finding.ours is not None:
                return finding.ours
            # Only a poll that was sent after the lag proves that the item does not exist.
            if requested_at >= until:
                return self._conclude(lost, finding)
            await wait_for_next(patience)

    async def _poll_through(self, patience: Patience, until: float) -> Finding[Item]:
        """Read pages of the list until one has the item or shows the newest items first, or the list ends.

        Raises:
            APIError: A page could not be read, or the list did not end within 20 pages.
        """
        paging: Paging[Item] = Paging()
        while True:
            query = {**self._query, "after": paging.after}
            request = make_request("GET", self._path(), query, None, self._options)
            try:
                page, finding = await poll(self._server, request, self._read_page, patience, not_found_until=until)
            except REFUSED_PAGE:
                # If the server did not say that there is another page, refusing its cursor means that there is none.
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
                raise APIError(f"it did not end after {paging.pages} pages")

    async def _our_run(self, busy: ThreadBusyError) -> Item | None:
        """Return the run that holds the thread if it is ours, created by a try whose answer was lost; otherwise None.

        Raises:
            APIError: The lost answer's error: it is not known whether the run is ours.
        """
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
            raise self._unsure(lost, f"{finding.maybe.id} may be it, but has no metadata")
        return finding.ours

    def _unsure(self, lost: APIError, why: str) -> APIError:
        advice = f"Check GET {self._path()}, newest first, before you create it again."
        return lost._extend(visible(f"It may have been created ({why}). {advice}"))

    async def _adopt(self, found: Item, lost: APIError) -> Item:
        log.info("The answer to POST %s was lost; adopting %s, which it created", self._path(), on_one_line(found.id))
        if not self._raw:
            return found
        # The caller wants a raw response: that of a GET stands in for the lost one.
        request = make_request("GET", self._path(found.id), None, None, self._options)
        patience = _patience()
        until = patience.started + SUBMIT_LAG_S
        try:
            return cast("Item", await poll(self._server, request, self._read_raw, patience, not_found_until=until))
        except APIError as error:
            raise lost._extend(visible(f"It was created, as {found.id}, which can't be read: {error}")) from error

    def _path(self, *more: str) -> str:
        return join_path(*self._segments, *more)

    def _read_page(self, request: Request, response: Response) -> tuple[Page[Item], Finding[Item]]:
        type_: type[Page[Item]] = Page[self._type]  # type: ignore[name-defined]  # a type made at run time
        page = decoded(request, response, type_)
        return page, self._find(page.data, response)

    def _read_item(self, request: Request, response: Response) -> Finding[Item]:
        return self._find([decoded(request, response, self._type)], response)

    def _read_raw(self, request: Request, response: Response) -> RawResponse[Item]:
        return RawResponse(request, response, self._type)

    def _find(self, items: Iterable[Item], response: Response) -> Finding[Item]:
        # When the create was sent, by the server's clock: its time now, minus the seconds since then by ours.
        now = server_time(response.headers)
        not_before = None if now is None else now - (loop_time() - self._began)
        self._seen.update({item.id: item for item in items})
        return find(self._seen.values(), self._nonce or "", self._is_like_ours, not_before)


def _patience() -> Patience:
    patience = Patience(Policy(timeout=SEARCH_S, max_outage=None))
    patience.begin(loop_time())
    return patience
