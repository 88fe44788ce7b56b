"""Checks the URLs that a client is given. What may hold a credential is not shown in an error."""

from __future__ import annotations

import enum
import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from asyncruns.errors import ConfigurationError
from asyncruns.http import as_text

_LIKE_A_HOST: Final = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?(?:/|$)")
# Behind an endpoint stand ids and endpoints only: where anything else does, it is the path of a gateway.
_ENDPOINT: Final = re.compile(
    r"/v\d[^/]*(/(?:threads|assistants|responses|(?:chat/)?completions)"
    r"(?:/(?:runs|messages|steps|input_items|cancel|submit_tool_outputs|(?:thread|run|step|msg|asst|resp)_[^/]*))*)$"
)


def check_base_url(base_url: str) -> str:
    """Check and normalise a base URL: without a slash at its end.

    Raises:
        ConfigurationError: It is no absolute HTTP URL, or carries credentials, a query or a fragment, which have their
            own places.
    """
    if isinstance(base_url, enum.Enum) or hasattr(base_url, "scheme"):  # a member's value, or a URL object
        base_url = str(as_text(base_url))
    try:
        parts = urlsplit(base_url)
        host, has_login = parts.hostname, parts.username is not None or parts.password is not None
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError("base_url is no URL; give one such as https://host.example/v1") from None
    if has_login:
        raise ConfigurationError("base_url holds a user name or a password; give credentials as auth=")
    if parts.scheme not in ("http", "https") or not host:
        # Not shown, for it may be the key, given in the URL's place.
        lacks = "it lacks http:// or https:// at its beginning; " if _LIKE_A_HOST.match(str(base_url)) else ""
        raise ConfigurationError(f"base_url must be an absolute URL; {lacks}give one such as https://host.example/v1")
    if found := _ENDPOINT.search(parts.path.rstrip("/")):
        raise ConfigurationError(
            f"base_url ends with the endpoint {found[1]}: give where the API begins, up to the version, such as "
            "https://host.example/v1"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url has a query or a fragment; constant query parameters go to default_query=")
    if any(character.isspace() or ord(character) < 32 for character in base_url):
        raise ConfigurationError(f"base_url has white space in it: {base_url!r}")
    try:
        url = URL(base_url)
        (url.raw_host or "").encode("idna")  # as the name's poll-up will do
        return str(url).rstrip("/")
    except ValueError as error:
        raise ConfigurationError(f"base_url is no URL ({error}); give one such as https://host.example/v1") from error


def checked_proxy(proxy: str | None) -> str | None:
    """Give a proxy's URL; None for none.

    Raises:
        ConfigurationError: It is no absolute HTTP URL.
    """
    if not proxy:
        return None
    if not _is_http(proxy):  # not shown, for there may be a password in it
        raise ConfigurationError("proxy must be the URL of an HTTP proxy, such as http://proxy.example:3128")
    return proxy


def proxy_of_environment(base_url: str) -> str | None:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY` names for a server, in either case; or None.

    `NO_PROXY` names hosts that are reached without, as the standard library reads it; this machine always is.

    Raises:
        ConfigurationError: It is no HTTP proxy.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    names = {host, parts.netloc.rpartition("@")[2]}  # with the port, too
    if _is_loopback(host) or any(proxy_bypass(name) for name in names):
        return None
    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy:
        return None
    if "://" not in proxy:  # as curl takes it
        proxy = f"http://{proxy}"
    if not _is_http(proxy):
        raise ConfigurationError(
            f"{scheme.upper()}_PROXY is no URL of an HTTP proxy, such as http://proxy.example:3128: change it, name "
            f"{host} in NO_PROXY, or give proxy=, where None is for no proxy"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_http(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        return False
