"""Makes texts of servers safe to show: no character moves the cursor, changes a colour or reorders a line."""

from __future__ import annotations

import re
from typing import Final

# Escaped are: control characters (C0, DEL, C1) except tabs and line ends; characters that reorder the text around them
# (https://trojansource.codes); line and paragraph separators; the byte order mark, annotation characters and other
# invisible tags; halves of surrogate pairs. Characters that scripts need stay: joiners, variation selectors, no-break
# spaces, and the direction marks of Hebrew, Arabic and Persian, which affect only the characters beside them; so do the
# tags of a flag (https://www.unicode.org/reports/tr51/#valid-emoji-tag-sequences).
_UNSAFE: Final = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|"
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]|\r(?!\n)"
)


def visible(text: str) -> str:
    """Return a text with the characters that control a terminal as escapes, such as `\\x1b`; lines and tabs stay."""
    return _UNSAFE.sub(_escape, text)


def on_one_line(text: str) -> str:
    """Return a text as `visible` does, but on one line, with single spaces."""
    return visible(" ".join(text.split()))


def visible_json(text: str) -> str:
    """Return equivalent JSON text, in which the characters that `visible` escapes are JSON escapes."""
    return _UNSAFE.sub(_json_escape, text)


def _escape(found: re.Match[str]) -> str:
    if found["flag"]:
        return found[0]
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    if found["flag"]:
        return found[0]
    # JSON escapes UTF-16 code units: U+E0001 becomes \udb40\udc01.
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
