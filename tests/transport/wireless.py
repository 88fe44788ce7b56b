"""A connection of the lean transport without a socket: tests feed it the bytes that a server would send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncruns.transport.httptools_connection import BodyTooLarge, Connection, RawAnswer

MAX_BODY: Final = 4096


class Wire:
    """In place of both the asyncio transport and the pool: records what happens to the connection."""

    def __init__(self) -> None:
        self.is_released = False
        self.is_lost = False
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def released(self, connection: Connection) -> None:
        assert not self.is_released
        self.is_released = True

    def lost(self, connection: Connection) -> None:
        assert not self.is_lost
        self.is_lost = True

    def gone(self, connection: Connection) -> None:
        pass


class Loop:
    """The part of an event loop that a connection uses."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=_LOOP)

    def time(self) -> float:
        return 0.0


_LOOP: Final = asyncio.new_event_loop()
_LOOP.close()  # nothing runs in it


def answer_to(pieces: Iterable[bytes], *, ends: bool = True) -> tuple[RawAnswer | type[Exception], bool]:
    """Send a request; return the answer to it, or the type of the error, and whether the connection stays open.

    Args:
        pieces: What the server sends.
        ends: Whether the server closes the connection afterwards.
    """
    wire = Wire()
    loop: Any = Loop()
    connection = Connection(wire, loop, MAX_BODY)
    transport: Any = wire
    connection.connection_made(transport)
    waiter = connection.request(b"GET / HTTP/1.1\r\n\r\n", 0.0, is_last=False)
    for piece in pieces:
        if piece and not wire.is_aborted:
            connection.data_received(piece)
    stays_open = not wire.is_aborted
    assert wire.is_lost == wire.is_aborted
    if ends and not wire.is_aborted:
        connection.eof_received()
        connection.connection_lost(None)
        assert wire.is_aborted
    if not waiter.done():
        assert not ends, "the request would never end"
        waiter.set_exception(TimeoutError())
    error = waiter.exception()
    if error is None:
        status, _, body, _ = answer = waiter.result()
        assert 200 <= status <= 999
        assert len(body) <= MAX_BODY
        return answer, stays_open
    assert isinstance(error, OSError | BodyTooLarge)
    return type(error), False


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Split data at some places, modulo its length."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def check_any_bytes(data: bytes, places: Sequence[int]) -> None:
    """Check that the result for any bytes does not depend on how they are split."""
    whole, _ = answer_to([data])
    parts, _ = answer_to(cut(data, places))
    if isinstance(whole, tuple) and isinstance(parts, tuple):
        assert (whole[0], list(whole[1].items()), whole[2]) == (parts[0], list(parts[1].items()), parts[2])
    else:
        assert isinstance(whole, tuple) == isinstance(parts, tuple), (whole, parts)
