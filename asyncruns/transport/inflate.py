"""Bodies that come compressed, made whole in bounds: a few bytes may stand for gigabytes."""

from __future__ import annotations

import zlib
from typing import Final

GZIP: Final = zlib.MAX_WBITS | 16
ZLIB: Final = zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS
INFLATED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_DEFLATED: Final = 8  # the method in the first byte of zlib's format


def inflate(coding: str, data: bytes, limit: int) -> bytes:
    """Return a body decompressed; of one that is larger than the limit, one byte more than that.

    Args:
        coding: One of `INFLATED`.
        data: The body as it came, whole.
        limit: In bytes.

    Raises:
        zlib.error: It is not whole, or something else.
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
            raise zlib.error("the compressed body is not whole")
        data = stream.unused_data  # of gzip, another member may follow
    return parts[0] if len(parts) == 1 else b"".join(parts)
