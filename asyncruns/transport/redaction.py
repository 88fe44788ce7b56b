"""Takes our credentials out of what is shown or kept: servers and libraries echo them in their error texts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from itertools import chain
from typing import Final
from urllib.parse import unquote, urlsplit

from asyncruns.http import Request
from asyncruns.transport.auth import SECRET_NAME, Auth

_SHORTEST_SECRET: Final = 4  # a shorter one would blot out half of every text
_SHORTEST_ANYWHERE: Final = 12  # a shorter one, such as "test", is only taken out where it stands as a word


class Redactor:
    """Knows the credentials of one transport.

    Args:
        auth: What it gives out is secret.
        constants: Headers and query parameters of all requests, some of which may be credentials by their names.
        proxy: Its password is one, too.
    """

    def __init__(self, auth: Auth, constants: Iterable[tuple[str, str]], proxy: str | None) -> None:
        self._auth = auth
        self._secrets = _credentials(chain(constants, _passwords(proxy)))

    def body(self, text: bytes, request: Request) -> bytes:
        """Give bytes without our credentials, those of the request included."""
        for secret in (*self._auth.secrets(), *self._secrets, *_credentials(chain(request.headers, request.query))):
            sought = secret.encode("utf-8", "replace")
            if len(secret) >= _SHORTEST_ANYWHERE:
                text = text.replace(sought, b"***")
            elif len(secret) >= _SHORTEST_SECRET:
                text = re.sub(rb"(?<![\w-])" + re.escape(sought) + rb"(?![\w-])", b"***", text)
        return text

    def text(self, text: str, request: Request) -> str:
        """Give a text without our credentials."""
        return self.body(text.encode("utf-8", "surrogateescape"), request).decode("utf-8", "replace")

    def showable(self, error: BaseException, request: Request) -> BaseException | None:
        """Give the error, to be chained, unless a traceback would show a credential with it."""
        return error if self.text(str(error), request) == str(error) else None


def _credentials(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Give the values that their names call credentials; of `Bearer x`, the x too, which servers echo alone."""
    values = [value for name, value in pairs if SECRET_NAME.search(name)]
    return tuple(chain(values, (value.split()[-1] for value in values if " " in value.strip())))


def _passwords(proxy: str | None) -> list[tuple[str, str]]:
    """Return a proxy's password as it is written, as it is meant and as it is sent; a token in the user's place too."""
    parts = urlsplit(proxy or "")
    written = parts.password or parts.username
    if not written:
        return []
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    sent = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [("password", text) for text in (written, unquote(written), sent)]
