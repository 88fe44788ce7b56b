"""Draws whole frames on a terminal, in place of what is there until it is left. Imports rich, for styles and widths.

Only the lines that have changed are written: frames are cheap, also over a slow connection. Control characters must
have been escaped before (see `output.on_one_line`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style

Line = Sequence[tuple[str, str]]  # texts, each with its style; "" for none

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # another screen, without a cursor, wrapping no line, empty
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR: Final = "\x1b[2J"
_REST_OF_LINE: Final = "\x1b[K"


class Canvas:
    """The screen of a terminal.

    Args:
        console: That of the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[str] = []
        self._size = (0, 0)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Use another screen while the block is entered, and return to the one before."""
        try:
            self._write(_ENTER)
            yield
        finally:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._write(_LEAVE)

    @property
    def size(self) -> tuple[int, int]:
        """The number of columns and of lines now."""
        return self._console.size

    def forget(self) -> None:
        """Draw the next frame as a whole: something else may have written to the terminal."""
        self._size = (0, 0)

    def draw(self, lines: Sequence[Line]) -> None:
        """Draw a frame, as far as it fits.

        Raises:
            BrokenPipeError: The terminal is gone.
        """
        width, height = size = self.size
        texts = [self.text_of(line, width) for line in lines[:height]]
        changes = []
        if size != self._size:
            changes.append(_CLEAR)
            self._shown, self._size = [], size
        texts += [""] * (len(self._shown) - len(texts))
        before = [*self._shown, *[""] * (len(texts) - len(self._shown))]
        for number, (text, old) in enumerate(zip(texts, before, strict=True), start=1):
            if text != old:
                changes.append(f"\x1b[{number};1H{text}{_REST_OF_LINE if _is_short(text) else ''}")
        self._shown = texts
        if changes:
            self._write("".join(changes))

    def text_of(self, line: Line, width: int) -> str:
        """Return a line as it is written: with the codes of its styles, and no wider than this."""
        written, left = [], width
        for text, style in line:
            if left <= 0:
                break
            part = fitted(text, left) if len(text) > left or not text.isascii() else text
            left -= len(part) if part.isascii() else cell_len(part)
            written.append(self._styled(part, style))
        # The rest of the line is cleared with it, unless it is full: the cursor would be on its last character.
        return "".join(written) + (" " if left > 0 else "")

    def _styled(self, text: str, style: str) -> str:
        if not style or self._console.color_system is None:
            return text
        return _style(style, self._console.no_color).render(text, color_system=self._console._color_system)

    def _write(self, text: str) -> None:
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except OSError as error:
            raise BrokenPipeError("The terminal is gone") from error


def line_with(text: str, style: str = "") -> Line:
    """Return a line of one text."""
    return [(text, style)]


def fitted(text: str, width: int) -> str:
    """Return a text that is at most so many columns wide: what does not fit is replaced by "…"."""
    if text.isascii():
        return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def padded(text: str, width: int) -> str:
    """Return a text that is exactly so many columns wide."""
    text = fitted(text, width)
    return text.ljust(width) if text.isascii() else text + " " * (width - cell_len(text))


def _is_short(text: str) -> bool:
    return text.endswith(" ") or not text


@cache
def _style(definition: str, no_color: bool) -> Style:
    style = Style.parse(definition)
    return style.without_color if no_color else style
