"""Removes the client's credentials from texts that are shown or kept: servers and libraries quote them in errors."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from itertools import chain
from typing import Final
from urllib.parse import unquote, urlsplit

from asyncruns.http import Request
from asyncruns.transport.auth import SECRET_NAME, Auth

_SHORTEST_SECRET: Final = 4  # shorter ones are left: they would occur by chance all over a text
_SHORTEST_ANYWHERE: Final = 12  # shorter ones, such as "test", are removed only where they are whole words


class Redactor:
    """Removes the credentials of one transport from texts, with "***" in their place.

    Args:
        auth: Its `secrets()` are removed; called for each text, since tokens change.
        constants: Headers and query parameters of all requests. Those whose names match `SECRET_NAME` are credentials.
        proxy: The URL of the proxy, whose password is one, too.
    """

    def __init__(self, auth: Auth, constants: Iterable[tuple[str, str]], proxy: str | None) -> None:
        self._auth = auth
        self._secrets = _credentials(chain(constants, _passwords(proxy)))

    def body(self, text: bytes, request: Request) -> bytes:
        """Return bytes without credentials, neither those of the client nor those of the request."""
        for secret in (*self._auth.secrets(), *self._secrets, *_credentials(chain(request.headers, request.query))):
            sought = secret.encode("utf-8", "replace")
            if len(secret) >= _SHORTEST_ANYWHERE:
                text = text.replace(sought, b"***")
            elif len(secret) >= _SHORTEST_SECRET:
                text = re.sub(rb"(?<![\w-])" + re.escape(sought) + rb"(?![\w-])", b"***", text)
        return text

    def text(self, text: str, request: Request) -> str:
        """Return a text without credentials."""
        return self.body(text.encode("utf-8", "surrogateescape"), request).decode("utf-8", "replace")

    def showable(self, error: BaseException, request: Request) -> BaseException | None:
        """Return the error, to be chained, or None if a traceback would show a credential with it."""
        return error if self.text(str(error), request) == str(error) else None


def _credentials(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the values that are credentials by their names; for `Bearer x` also x, which servers quote alone."""
    values = [value for name, value in pairs if SECRET_NAME.search(name)]
    return tuple(chain(values, (value.split()[-1] for value in values if " " in value.strip())))


def _passwords(proxy: str | None) -> list[tuple[str, str]]:
    """Return a proxy's password as written in the URL, percent-decoded, and as sent (in base64, with the user).

    Without a password, the user name may be a token and is treated like one.
    """
    parts = urlsplit(proxy or "")
    written = parts.password or parts.username
    if not written:
        return []
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    sent = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [("password", text) for text in (written, unquote(written), sent)]
