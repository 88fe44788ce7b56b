"""Finds the fields of JSON that are credentials by their names, such as the headers of an MCP server.

What is shown or kept must not have them. It works on bytes, so that a body that is not JSON, or a part of one, is
changed in nothing else.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_SECRET_FIELD: Final = re.compile(
    rb'("[\w-]*(?:authorization|api[_-]?key|passwor[dt]|secret|(?:access|refresh|bearer|auth)[_-]?token|cookie)"\s*:\s*)'
    + _STRING,
    re.IGNORECASE,
)
# Of an MCP server: whatever it authenticates with.
_HEADERS_FIELD: Final = re.compile(rb'("headers"\s*:\s*)\{[^{}"]*(?:' + _STRING + rb'[^{}"]*)*\}')
_URL_FIELD: Final = re.compile(rb'("server_url"\s*:\s*)(' + _STRING + rb")")


def without_secret_fields(body: bytes) -> bytes:
    """Return a body without the values of JSON fields that are credentials by their names.

    Of the URL of an MCP server, the scheme, host and port are left: users, paths and queries may be credentials.
    """
    body = _HEADERS_FIELD.sub(rb'\1{"***": "***"}', _SECRET_FIELD.sub(rb'\1"***"', body))
    return _URL_FIELD.sub(lambda found: found[1] + _placed(found[2]), body)


def _placed(quoted: bytes) -> bytes:
    try:
        url = urlsplit(msgspec.json.decode(quoted, type=str))
        host = url.netloc.rpartition("@")[2]
    except ValueError:
        return b'"***"'
    if url.geturl() == f"{url.scheme}://{host}":
        return quoted
    return msgspec.json.encode(f"{url.scheme}://{host}/***" if host else "***")
