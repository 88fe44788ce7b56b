"""Makes texts of servers fit to be shown: no character moves a cursor, changes a colour, or reorders a line."""

from __future__ import annotations

import re
from typing import Final

# Control characters but for tabs and the ends of lines (C0, DEL, C1); what reorders the text around it
# (https://trojansource.codes); separators that end a line; invisible tags; halves of characters. What writing needs
# stays: joiners, variation selectors, spaces that do not break, the marks of direction of Hebrew, Arabic and Persian,
# which move nothing but what stands beside them; and the tags of a flag
# (https://www.unicode.org/reports/tr51/#valid-emoji-tag-sequences).
_UNSAFE: Final = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|"
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]|\r(?!\n)"
)


def visible(text: str) -> str:
    """Return a text with what a terminal would obey written as an escape, such as `\\x1b`; lines and tabs stay."""
    return _UNSAFE.sub(_escape, text)


def on_one_line(text: str) -> str:
    """Return a text as `visible` does, on one line, with single spaces."""
    return visible(" ".join(text.split()))


def visible_json(text: str) -> str:
    """Return JSON text that is the same JSON, with the characters that `visible` escapes as escapes of JSON."""
    return _UNSAFE.sub(_json_escape, text)


def _escape(found: re.Match[str]) -> str:
    if found["flag"]:
        return found[0]
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    if found["flag"]:
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
