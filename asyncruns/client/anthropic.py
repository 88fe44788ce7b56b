"""The server and the key of Anthropic's API. A key of the environment is only sent to the server of the environment."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import urlsplit

from asyncruns.errors import ConfigurationError
from asyncruns.transport.urls import check_base_url

ANTHROPIC_API_URL: Final = "https://api.anthropic.com/v1"
_VERSION: Final = re.compile(r"/v\d+/?$")
ANTHROPIC_VERSION: Final = "2023-06-01"  # https://docs.anthropic.com/en/api/versioning


def anthropic_server(base_url: str | None, api_key: str | None) -> tuple[str, str]:
    """Return the base URL and the key; what is None is read from the environment.

    Raises:
        ConfigurationError: There is no key; or the URL is not valid.
    """
    key = api_key
    if key is None and base_url is None:
        key = os.environ.get("ANTHROPIC_API_KEY")
    if key is None:
        raise ConfigurationError(
            "Client.anthropic needs api_key=, or the environment variable ANTHROPIC_API_KEY, which is only sent to the "
            "server of the environment. For a server without keys, pass any text"
        )
    url = check_base_url(base_url or os.environ.get("ANTHROPIC_BASE_URL", "").strip() or ANTHROPIC_API_URL)
    # As for the official client, it is the URL without the version; ours may have it.
    return (url if _VERSION.search(urlsplit(url).path) else f"{url}/v1"), key
