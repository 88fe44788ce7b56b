"""Lists, page by page: what of a page is new, and where the next page begins. Servers say little of that, and lie.

`Paging` decides, without I/O; `PageCall` sends. The rules, which hold for every list::

    has_more is false                   the list ends
    has_more is true                    the next page is fetched
    has_more is missing or null         the next page is fetched: nothing says that there is none. It costs one request
                                        at the end, and a server that refuses that request has no further page
    a page without anything new         the list ends: the server repeats itself, or takes no notice of `after`
    no cursor, or one that was used     the list ends
    MOST_PAGES pages                    an error that names the cursor to go on from: no list is followed for ever
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from asyncruns.abc import AsyncOnly
from asyncruns.errors import APIResponseValidationError, BadRequestError, NotFoundError, UnprocessableEntityError
from asyncruns.wire import Page

T = TypeVar("T")

MOST_PAGES: Final = 1_000

REFUSED_PAGE: Final = (BadRequestError, NotFoundError, UnprocessableEntityError)
"""How servers refuse a cursor."""


class Paging(Generic[T]):
    """Goes through the pages of one list.

    Attributes:
        after: The cursor of the next page; None at the end of the list, and before its beginning.
        is_guess: Whether the server did not say that there is a next page.
        pages: How many pages were taken.
    """

    def __init__(self) -> None:
        self.after: str | None = None
        self.is_guess: bool = False
        self.pages: int = 0
        self._seen: set[str] = set()  # ids of items
        self._cursors: set[str] = set()

    def take(self, page: Page[T]) -> list[T]:
        """Return the items of the next page that no page before had, and set `after`."""
        self.pages += 1
        cursor = self._cursor(page)
        new: list[T] = []
        has_news = False
        for item in page.data:
            item_id = getattr(item, "id", None)
            if not item_id:
                # It can't be told from others; a page whose cursor is an old one is likely an old page.
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

    Each iteration begins anew. Safe to cancel. No item is returned twice. The iteration ends where a page brings
    nothing new, and where the server says that there is no more; a server that does not say whether there is more is
    asked once more than it has pages.

    Raises:
        APIResponseValidationError: While iterating: the list has more than 1,000 pages. The message says how to go on.
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
            # With `before`, "more" lies the other way, and there is no cursor that leads there.
            if paging.after is None or self._backwards:
                return
            if paging.pages >= self._most_pages:
                self._give_up(paging)

    def at_most(self, pages: int) -> PageCall[T]:
        """Return the same list, of which iterating follows no more pages than this."""
        return PageCall(self._fetch, backwards=self._backwards, path=self._path, most_pages=pages)

    def _give_up(self, paging: Paging[T]) -> NoReturn:
        raise APIResponseValidationError(
            f"GET {self._path} has more than {self._most_pages} pages, and is not followed further. Has the list an "
            f"end? If so, iterate again with after={paging.after!r}, and with limit=100 for fewer pages",
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
        # A query may hold a credential.
        return f"<PageCall GET {self._path}>"
