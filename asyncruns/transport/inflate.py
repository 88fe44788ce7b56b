"""Decompresses bodies up to a limit: a few compressed bytes may expand to gigabytes."""

from __future__ import annotations

import zlib
from typing import Final

GZIP: Final = zlib.MAX_WBITS | 16
ZLIB: Final = zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS
INFLATED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_DEFLATED: Final = 8  # the method in the first byte of the zlib format; without it, the data is raw


def inflate(coding: str, data: bytes, limit: int) -> bytes:
    """Return a body decompressed. If it is larger than the limit, return its first `limit + 1` bytes.

    Args:
        coding: One of `INFLATED`.
        data: The whole body, as received.
        limit: Maximum number of bytes, decompressed.

    Raises:
        zlib.error: The data is incomplete, or is not compressed in this way.
    """
    parts: list[bytes] = []
    left = limit + 1
    while data and left:
        kind = GZIP if coding != "deflate" else ZLIB if data[0] & 0xF == _DEFLATED else RAW
        stream = zlib.decompressobj(kind)
        part = stream.decompress(data, left)
        parts.append(part)
        left -= len(part)
        if not stream.eof and left:
            raise zlib.error("the compressed body is incomplete")
        data = stream.unused_data  # another gzip member may follow
    return parts[0] if len(parts) == 1 else b"".join(parts)
