"""Lists, page by page: which items of a page are new, and where the next page begins.

`Paging` decides, without I/O; `PageCall` sends. What servers say about this is often missing or wrong, so these rules
hold for every list::

    has_more is false                   the list ends
    has_more is true                    fetch the next page
    has_more is missing or null         fetch the next page, since there may be one. This costs one request at the end;
                                        if the server refuses it, there is no further page
    a page without new items            the list ends: the server repeats itself, or ignores `after`
    no cursor, or a cursor used before  the list ends
    more than 1,000 pages               raise an error with the cursor to continue from: no iteration is endless
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from asyncruns.abc import AsyncOnly
from asyncruns.errors import APIResponseValidationError, BadRequestError, NotFoundError, UnprocessableEntityError
from asyncruns.wire import Page

T = TypeVar("T")

MOST_PAGES: Final = 1_000  # 100,000 items at 100 a page

REFUSED_PAGE: Final = (BadRequestError, NotFoundError, UnprocessableEntityError)
"""The errors with which servers refuse a cursor."""


class Paging(Generic[T]):
    """Keeps track of the pages of one list.

    Attributes:
        after: The cursor of the next page; None before the first page and at the end of the list.
        is_guess: Whether the server did not say if there is a next page.
        pages: Number of pages so far.
    """

    def __init__(self) -> None:
        self.after: str | None = None
        self.is_guess: bool = False
        self.pages: int = 0
        self._seen: set[str] = set()  # ids of items
        self._cursors: set[str] = set()

    def take(self, page: Page[T]) -> list[T]:
        """Return the items of the next page that were on no earlier page, and set `after`."""
        self.pages += 1
        cursor = self._cursor(page)
        new: list[T] = []
        has_news = False
        for item in page.data:
            item_id = getattr(item, "id", None)
            if not item_id:
                # Without an id, whether the item is new can't be checked. A page with an old cursor is likely an old
                # page, so its items are dropped.
                if self.pages == 1 or cursor is not None:
                    new.append(item)
                    has_news = has_news or bool(page.last_id)
            elif item_id not in self._seen:
                self._seen.add(item_id)
                has_news = True
                new.append(item)
        self.is_guess = not isinstance(page.has_more, bool)
        goes_on = has_news and page.has_more is not False
        self.after = cursor if goes_on else None
        if cursor is not None:
            self._cursors.add(cursor)
        return new

    def _cursor(self, page: Page[T]) -> str | None:
        last = getattr(page.data[-1], "id", None) if page.data else None
        return next((found for found in (page.last_id, last) if found and found not in self._cursors), None)


class PageCall(AsyncOnly, Generic[T]):
    """A list: `await` it for one page, or iterate over it with `async for` for all items of all pages.

    Each iteration starts at the first page. Safe to cancel. No item is yielded twice. The iteration ends when a page
    has nothing new, or when the server says that there is no more. If the server does not say whether there is more,
    one request after the last page finds out.

    Raises:
        APIResponseValidationError: While iterating: the list has more than 1,000 pages. The message says how to
            continue.
    """

    def __init__(
        self,
        fetch: Callable[[str | None], Any],
        *,
        backwards: bool = False,
        path: str = "",
        most_pages: int = MOST_PAGES,
    ) -> None:
        self._fetch: Callable[[str | None], Awaitable[Page[T]]] = fetch
        self._backwards = backwards
        self._path = path
        self._most_pages = most_pages

    def __await__(self) -> Generator[Any, None, Page[T]]:
        page: Generator[Any, None, Page[T]] = self._fetch(None).__await__()
        return page

    async def __aiter__(self) -> AsyncIterator[T]:
        paging: Paging[T] = Paging()
        while True:
            try:
                page = await self._fetch(paging.after)
            except REFUSED_PAGE:
                if not paging.is_guess:
                    raise
                return
            for item in paging.take(page):
                yield item
            # With `before`, further items come before this page, and `after` cannot reach them.
            if paging.after is None or self._backwards:
                return
            if paging.pages >= self._most_pages:
                self._give_up(paging)

    def at_most(self, pages: int) -> PageCall[T]:
        """Return the same list with another limit: iterating over more than `pages` pages raises an error."""
        return PageCall(self._fetch, backwards=self._backwards, path=self._path, most_pages=pages)

    def _give_up(self, paging: Paging[T]) -> NoReturn:
        raise APIResponseValidationError(
            f"GET {self._path} has more than {self._most_pages} pages; iterating stops here, in case it is endless. "
            f"To continue, iterate again with after={paging.after!r}, and with limit=100 for fewer pages",
            status=200,
            body=b"",
            method="GET",
            path=self._path,
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            what = "await it first, or iterate with `async for`: `page = await ...list()`"
            hint = f": {what}" if name in Page.__struct_fields__ else ""
            raise AttributeError(f"a {type(self).__name__} has no {name!r}{hint}", name=name, obj=self)

    def __repr__(self) -> str:
        # Without the query, which may contain a credential.
        return f"<PageCall GET {self._path}>"
