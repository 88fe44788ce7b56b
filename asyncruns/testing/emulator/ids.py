"""Ids like the real ones; an emulator that receives the same requests makes the same ids."""

from __future__ import annotations

import hashlib
import string
from typing import Final

_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 24


class Ids:
    """Makes ids from a counter that is hashed, so that they look random and never repeat."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, prefix: str) -> str:
        """Return the next id: the prefix, such as `run`, then `_` and 24 letters and digits."""
        number = int.from_bytes(self._digest(prefix)[:24], "big")  # 192 bits; 24 characters of 62 need 143
        text = ""
        for _ in range(_LENGTH):
            number, place = divmod(number, len(_ALPHABET))
            text += _ALPHABET[place]
        return f"{prefix}_{text}"

    def new_request_id(self) -> str:
        """Return the next `x-request-id`."""
        return f"req_{self._digest('req')[:16].hex()}"

    def _digest(self, prefix: str) -> bytes:
        self._count += 1
        return hashlib.sha256(f"{prefix} {self._count}".encode()).digest()
