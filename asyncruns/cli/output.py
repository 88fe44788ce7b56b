"""Lines for people. What a server sent is cleaned of what a terminal would obey."""

from __future__ import annotations

import sys


def say(line: str = "") -> None:
    """Print a line at once, so that it is there when the output is a pipe or a file."""
    print(line, flush=True)


def complain(text: str) -> None:
    """Print an error or a warning on one line of stderr."""
    print(f"asyncruns: {on_one_line(text)}", file=sys.stderr, flush=True)


def on_one_line(text: str) -> str:
    """Give a text as one line that moves no cursor and changes no colour."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Replace control characters, but for the ends of lines and tabs."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def counted(number: int, what: str) -> str:
    """Give a number and a noun: "1 run", "2 runs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
