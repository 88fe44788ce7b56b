"""Checks the URLs that are passed to a client. An error must not show a URL that may hold a credential."""

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
# Matches a path that ends with an endpoint by mistake: only ids and endpoints follow the version, as in
# /v1/threads/thread_1/runs. If anything else follows, as in /v1/threads/eu, it is taken for the path of a gateway.
_ENDPOINT: Final = re.compile(
    r"/v\d[^/]*(/(?:threads|assistants|responses|(?:chat/)?completions)"
    r"(?:/(?:runs|messages|steps|input_items|cancel|submit_tool_outputs|(?:thread|run|step|msg|asst|resp)_[^/]*))*)$"
)


def check_base_url(base_url: str) -> str:
    """Check a base URL and return it without a slash at its end.

    Raises:
        ConfigurationError: It is not an absolute HTTP URL; it has credentials, a query, a fragment or white space; or
            it ends with an endpoint.
    """
    if isinstance(base_url, enum.Enum) or hasattr(base_url, "scheme"):  # a member of an enum, or a URL object
        base_url = str(as_text(base_url))
    try:
        parts = urlsplit(base_url)
        host, has_login = parts.hostname, parts.username is not None or parts.password is not None
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError("base_url is not a URL; pass one such as https://host.example/v1") from None
    if has_login:
        raise ConfigurationError("base_url contains a user name or a password; pass credentials as auth=")
    if parts.scheme not in ("http", "https") or not host:
        # Not shown: it may be the key, passed in place of the URL.
        lacks = "it lacks http:// or https:// at its beginning; " if _LIKE_A_HOST.match(str(base_url)) else ""
        raise ConfigurationError(f"base_url must be an absolute URL; {lacks}pass one such as https://host.example/v1")
    if found := _ENDPOINT.search(parts.path.rstrip("/")):
        raise ConfigurationError(
            f"base_url ends with the endpoint {found[1]}: pass the URL up to the version of the API, such as "
            "https://host.example/v1"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url has a query or a fragment; pass constant query parameters as default_query=")
    if any(character.isspace() or ord(character) < 32 for character in base_url):
        raise ConfigurationError(f"base_url contains white space or control characters: {base_url!r}")
    try:
        url = URL(base_url)
        (url.raw_host or "").encode("idna")  # which the lookup of the host does, too
        return str(url).rstrip("/")
    except ValueError as error:
        raise ConfigurationError(
            f"base_url is not a URL ({error}); pass one such as https://host.example/v1"
        ) from error


def checked_proxy(proxy: str | None) -> str | None:
    """Return the URL of a proxy, or None if there is none.

    Raises:
        ConfigurationError: It is not an absolute HTTP URL.
    """
    if not proxy:
        return None
    if not _is_http(proxy):  # not shown: it may contain a password
        raise ConfigurationError("proxy must be the URL of an HTTP proxy, such as http://proxy.example:3128")
    return proxy


def proxy_of_environment(base_url: str) -> str | None:
    """Return the proxy that the environment names for a server, or None.

    `HTTP_PROXY` or `HTTPS_PROXY` is read, by the scheme of the URL, otherwise `ALL_PROXY`; also in lower case. Hosts in
    `NO_PROXY`, which the standard library interprets, are reached without a proxy, and so is this machine.

    Raises:
        ConfigurationError: The value is not the URL of an HTTP proxy.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    names = {host, parts.netloc.rpartition("@")[2]}  # NO_PROXY may name the port, too
    if _is_loopback(host) or any(proxy_bypass(name) for name in names):
        return None
    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy:
        return None
    if "://" not in proxy:  # curl accepts that, too
        proxy = f"http://{proxy}"
    if not _is_http(proxy):
        raise ConfigurationError(
            f"{scheme.upper()}_PROXY is not the URL of an HTTP proxy, such as http://proxy.example:3128: change it, "
            f"add {host} to NO_PROXY, or pass proxy= (None for no proxy)"
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
