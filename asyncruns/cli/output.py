"""All output of the command line. Control characters are made visible, so that a terminal does not execute them."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final

import msgspec

from asyncruns.wire.secret_fields import without_secret_fields
from asyncruns.wire.shown_text import on_one_line as on_one_line
from asyncruns.wire.shown_text import visible, visible_json

MOST_SHOWN: Final = 2000  # characters of one text on one line: a server may send millions


def say(text: str = "") -> None:
    """Print text and flush, so that it appears at once even in a pipe or a file."""
    print(visible(text), flush=True)


def say_json(value: Any) -> None:
    """Print a value as JSON on one line."""
    print(visible_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))), flush=True)


def plain_object(resource: Any) -> Any:
    """Return an object of a server as plain values, without the credentials of MCP servers in it."""
    return msgspec.json.decode(without_secret_fields(msgspec.json.encode(resource.to_dict())))


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """Return a text on one line, and cut; it says how much is missing."""
    text = on_one_line(text)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more: --json)"


def complain(text: str) -> None:
    """Print an error or a warning on one line of stderr."""
    print(f"asyncruns: {on_one_line(text)}", file=sys.stderr, flush=True)


class _Complaints(logging.Handler):
    """Prints log records of libraries, which may quote a server."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Line by line: `complain` joins lines, which would make a traceback unreadable.
            for line in self.format(record).splitlines():
                complain(line)
        except Exception:
            self.handleError(record)


def complain_of_warnings() -> None:
    """Print warnings and errors of all loggers, unless logging is already configured."""
    # At the root, since warnings of asyncio and aiohttp may quote a server as well.
    if not logging.root.handlers:
        handler = _Complaints(logging.WARNING)
        logging.root.addHandler(handler)


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number and a noun: "1 run", "2 runs"; `several` is its plural, if it does not just end in "s"."""
    return f"{number} {one}" if number == 1 else f"{number} {several or one + 's'}"
