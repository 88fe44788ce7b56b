"""The body of an upload, as aiohttp sends it: piece by piece, with a known length, in a task of aiohttp's.

It must not leave anything open: when a request is over, however it ended, nothing reads its body any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from asyncruns._loop import until_done
from asyncruns.http import Upload, pieces_of


class UploadPayload(aiohttp.Payload):
    """Sends an upload, from its beginning each time that it is written.

    Args:
        upload: The upload.
        moved: Called when the connection has accepted a piece, with the number of bytes so far.

    Attributes:
        failure: What the upload raised, or None. aiohttp reports only that the connection failed.
        is_sent: Whether its last bytes may have been sent.
    """

    def __init__(self, upload: Upload, moved: Callable[[int], object]) -> None:
        super().__init__(upload, content_type=upload.content_type)
        self._upload = upload
        self._moved = moved
        self._task: asyncio.Task[object] | None = None
        self._rests: asyncio.Future[None] | None = None  # done when nothing reads the body any more
        self.failure: Exception | None = None
        self.is_sent: bool = not upload.size

    @property
    def size(self) -> int:
        """The length in bytes, which aiohttp sends as `Content-Length`."""
        return self._upload.size

    @property
    def autoclose(self) -> bool:
        """True: there is nothing to close besides what `write` opens and closes."""
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse to return the body as a whole."""
        raise TypeError("an upload is not held in memory")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the whole body; aiohttp calls this in a task."""
        self._task = asyncio.current_task()
        rests = self._rests = asyncio.get_running_loop().create_future()
        try:
            sent = 0
            async with aclosing(pieces_of(self._upload)) as pieces:
                while (piece := await self._next(pieces)) is not None:
                    sent += len(piece)
                    self.is_sent = self.is_sent or sent == self.size
                    await writer.write(piece)
                    self._moved(sent)
        finally:
            self._task = None
            rests.set_result(None)

    async def _next(self, pieces: AsyncGenerator[bytes]) -> bytes | None:
        try:
            return await anext(pieces, None)
        except Exception as error:
            self.failure = error
            raise

    async def stop(self) -> None:
        """Stop sending, as after an answer that came early, and wait until the body is closed."""
        if self._task is not None:
            self._task.cancel()
        if self._rests is not None:
            await until_done(self._rests)
