"""A transport that downloads one content, and breaks off as a test says; and readers of such a content."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from multidict import CIMultiDict

from asyncruns import APIConnectionError
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response

PIECE = 7  # bytes


def lost(request: Request) -> APIConnectionError:
    return APIConnectionError("it broke", sent=True, method=request.method, path=request.path)


class Pieces(ByteStream):
    """Some bytes in small pieces, and then the end, or a broken connection."""

    def __init__(self, request: Request, status: int, headers: Mapping[str, str], body: bytes, *, breaks: bool) -> None:
        self.status = status
        self.headers = CIMultiDict(headers)
        self._request, self._body, self._breaks = request, body, breaks
        self.is_closed = False

    async def read(self) -> bytes:
        assert not self.is_closed
        piece, self._body = self._body[:PIECE], self._body[PIECE:]
        if not piece and self._breaks:
            raise lost(self._request)
        return piece

    async def aclose(self) -> None:
        self.is_closed = True


class Downloads(Transport):
    """Returns a content.

    Args:
        content: The content.
        breaks: How many bytes of each answer, in order, come before the connection breaks; then none does.
        ranges: What the server does with a range: "exact", "earlier" (it begins 3 bytes before), "ignored", "unsaid"
            (without the header), "later", "short" (at most 10 bytes), "empty", or "refused".
        before: An answer, or an error, for each request, in order, that takes the place of the content; None is none.
    """

    def __init__(
        self,
        content: bytes,
        breaks: Sequence[int] = (),
        ranges: str = "exact",
        before: Sequence[Response | Callable[[Request], Exception] | None] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.content, self.ranges, self.headers = content, ranges, headers or {}
        self.breaks, self.before = list(breaks), list(before)
        self.requests: list[Request] = []
        self.streams: list[Pieces] = []

    @property
    def asked(self) -> list[str | None]:
        """The ranges of the requests."""
        return [dict(request.headers).get("Range") for request in self.requests]

    async def send(self, request: Request) -> Response:
        raise AssertionError("not a download")

    async def download(self, request: Request) -> Response | ByteStream:
        self.requests.append(request)
        instead = self.before.pop(0) if self.before else None
        if isinstance(instead, Response):
            return instead
        if instead is not None:
            raise instead(request)
        asked = re.fullmatch(r"bytes=(\d+)-", dict(request.headers).get("Range", ""))
        start = int(asked[1]) if asked and self.ranges != "ignored" else 0
        if asked and (start >= len(self.content) or self.ranges == "refused") and self.ranges != "ignored":
            return Response(416, CIMultiDict({"Content-Range": f"bytes */{len(self.content)}"}), b"")
        start = max(start + {"earlier": -3, "later": 1}.get(self.ranges, 0), 0) if asked else 0
        headers = dict(self.headers)
        if asked and self.ranges not in ("ignored", "unsaid"):
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        body, breaks = self.content[start:], bool(self.breaks)
        if breaks:
            body = body[: self.breaks.pop(0)]
        if asked and self.ranges in ("short", "empty"):
            body, breaks = body[: 10 if self.ranges == "short" else 0], False
        status = 206 if asked and self.ranges != "ignored" else 200
        self.streams.append(Pieces(request, status, headers, body, breaks=breaks))
        return self.streams[-1]

    async def aclose(self) -> None:
        pass
