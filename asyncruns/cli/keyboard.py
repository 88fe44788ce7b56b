"""Reads single keys from the terminal, in the event loop. What it changes of the terminal is restored, always.

For POSIX only. It must never read from a terminal that is not in the foreground here: that would stop this process.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any, Final

ENTER: Final = "enter"
ESCAPE: Final = "escape"
BACKSPACE: Final = "backspace"
UP: Final = "up"
DOWN: Final = "down"
PAGE_UP: Final = "page up"
PAGE_DOWN: Final = "page down"
HOME: Final = "home"
END: Final = "end"
TAB: Final = "tab"
REDRAW: Final = "redraw"

_READ_AT_ONCE: Final = 1024
_NAMED: Final = {
    "\r": ENTER, "\n": ENTER, "\x1b": ESCAPE, "\x7f": BACKSPACE, "\x08": BACKSPACE, "\t": TAB, "\x0c": REDRAW,
    "\x1b[A": UP, "\x1bOA": UP, "\x1b[B": DOWN, "\x1bOB": DOWN, "\x1b[5~": PAGE_UP, "\x1b[6~": PAGE_DOWN,
    "\x1b[H": HOME, "\x1bOH": HOME, "\x1b[1~": HOME, "\x1b[F": END, "\x1bOF": END, "\x1b[4~": END,
}  # fmt: skip
_KEYS: Final = re.compile("\x1b\\[[0-9;?]*[@-~]|\x1bO.|.", re.DOTALL)


def keys_in(text: str) -> list[str]:
    """Return the keys that a text from a terminal stands for: characters, and names such as "up"."""
    found = ((key, _NAMED.get(key)) for key in _KEYS.findall(text))
    return [name or key for key, name in found if name or (len(key) == 1 and key.isprintable())]


class Keyboard:
    """Calls a function with the keys that are pressed.

    Args:
        descriptor: That of the terminal.
        pressed: Called with the keys of one read: several at once were probably pasted.
        closed: Called when the terminal is gone.
    """

    def __init__(self, descriptor: int, pressed: Callable[[list[str]], None], closed: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._pressed = pressed
        self._closed = closed
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._before: list[Any] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read keys, one by one and without showing them, while the block is entered. Ctrl-C stays a signal."""
        loop = asyncio.get_running_loop()
        self._before = termios.tcgetattr(self._descriptor)
        try:
            tty.setcbreak(self._descriptor, termios.TCSANOW)
            loop.add_reader(self._descriptor, self._read)
            yield
        finally:
            loop.remove_reader(self._descriptor)
            with contextlib.suppress(termios.error, OSError):  # the terminal is gone
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_AT_ONCE)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._closed()
        elif keys := keys_in(self._decoder.decode(data)):
            self._pressed(keys)


def is_in_foreground(descriptor: int) -> bool:
    """Return whether this process may read from and write to a terminal without being stopped."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except (AttributeError, OSError):
        return False


@contextlib.contextmanager
def terminal() -> Iterator[int | None]:
    """Yield the descriptor of the terminal to read keys from; None if there is none, or not in the foreground.

    It is standard input, or else the terminal of standard output.
    """
    descriptor, own = None, None
    if sys.stdin is not None and sys.stdin.isatty():
        descriptor = sys.stdin.fileno()
    else:
        with contextlib.suppress(OSError):
            # Not /dev/tty, which can't be waited for on macOS.
            descriptor = own = os.open(os.ttyname(sys.stdout.fileno()), os.O_RDONLY | os.O_NOCTTY)
    try:
        yield descriptor if descriptor is not None and is_in_foreground(descriptor) else None
    finally:
        if own is not None:
            os.close(own)
