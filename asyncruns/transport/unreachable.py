"""Recognizes connection errors that waiting does not cure, and says which setting to change.

Examples are a wrong scheme, an untrusted certificate and an unknown host. If the server has answered before, it was
reached with the same settings, so most of these errors may pass after all: the name cannot be resolved for a while, or
a network that requires a login answers with a certificate of its own. Most are therefore final only before the first
answer.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

PROBE_TIMEOUT_S: Final = 1.0

_TRUST: Final = (
    "This machine does not trust the server's certificate: pass the authority that signed it, such as "
    "ssl=ssl.create_default_context(cafile=...), or set SSL_CERT_FILE"
)
_OTHER_HOST: Final = "The server's certificate is for another host: use the host that it is for in base_url"
_OTHER_TIME: Final = (
    "The server's certificate is not valid at this time: check this machine's clock, or renew the certificate"
)
_PLAIN_PORT: Final = "This port does not speak TLS: write http:// in base_url, or the port for https"
_TLS_PORT: Final = "This port speaks TLS: write https:// in base_url, or the port for http"
_NO_SHARED_TLS: Final = (
    "Server and client have no version or cipher of TLS in common: pass an ssl.SSLContext that allows the server's "
    "as ssl="
)
_CLIENT_CERTIFICATE: Final = (
    "The server wants a client certificate, or another one: pass an ssl.SSLContext with load_cert_chain() as ssl="
)
_FINGERPRINT: Final = "The fingerprint of the server's certificate is not the one passed as ssl="
_NAME: Final = "There is no such host: check the host in base_url, and in proxy= if there is one"
_URL: Final = "This is not an HTTP URL: check base_url"
_PROXY_LOGIN: Final = "The proxy wants a login: pass it as proxy=http://USER:PASSWORD@HOST:PORT"

# OpenSSL's X509_V_ERR_...: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_BY_VERIFY_CODE: Final[Mapping[int, str]] = {9: _OTHER_TIME, 10: _OTHER_TIME, 62: _OTHER_HOST, 64: _OTHER_HOST}
# OpenSSL's names for errors of a handshake. Errors that are not listed, such as a connection that ends in the middle of
# the handshake, may pass.
_BY_SSL_REASON: Final[Mapping[str, str]] = {
    "WRONG_VERSION_NUMBER": _PLAIN_PORT,
    "RECORD_LAYER_FAILURE": _PLAIN_PORT,
    "PACKET_LENGTH_TOO_LONG": _PLAIN_PORT,
    "HTTP_REQUEST": _PLAIN_PORT,
    "UNSUPPORTED_PROTOCOL": _NO_SHARED_TLS,
    "NO_PROTOCOLS_AVAILABLE": _NO_SHARED_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_SHARED_TLS,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_SHARED_TLS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_SHARED_TLS,
    "DH_KEY_TOO_SMALL": _NO_SHARED_TLS,
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": _NO_SHARED_TLS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _CLIENT_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _CLIENT_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _CLIENT_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _CLIENT_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _CLIENT_CERTIFICATE,
}
_SSL_REASON: Final = re.compile(r"\[SSL: (\w+)\]")
_TLS_ALERT: Final = r"\x15\x03"  # the first bytes of a TLS alert, as an HTTP parser quotes them (escaped)
_MAY_BE_KNOWN_LATER: Final = re.compile(r"temporar|try again|time(?:d )?out|contact|refused|failure", re.I)
_PROXY_AUTHENTICATION_REQUIRED: Final = 407


def what_to_set(error: BaseException, *, has_answered: bool) -> str | None:
    """Return which setting to change if waiting does not help, or None if the error may pass.

    Args:
        error: The exception that aiohttp or the loop raised.
        has_answered: Whether the server has answered before, with the same settings.
    """
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return _URL
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _PROXY_LOGIN if error.status == _PROXY_AUTHENTICATION_REQUIRED else None
    if has_answered:
        return None
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _BY_VERIFY_CODE.get(getattr(error.certificate_error, "verify_code", 0), _TRUST)
        case ssl.SSLCertVerificationError():
            return _BY_VERIFY_CODE.get(error.verify_code, _TRUST)
        case aiohttp.ServerFingerprintMismatch():
            return _FINGERPRINT
        case aiohttp.ClientConnectorDNSError():
            return None if _may_be_known_later(error.os_error) else _NAME
        case socket.gaierror():
            return None if _may_be_known_later(error) else _NAME
        case aiohttp.ClientOSError() | ssl.SSLError():
            reason = _SSL_REASON.search(str(error))
            return _BY_SSL_REASON.get(reason[1]) if reason else None
        case aiohttp.ClientResponseError() if _TLS_ALERT in error.message:
            return _TLS_PORT
        case ConnectionError() if _TLS_ALERT in str(error):
            return _TLS_PORT
        case _:
            return None


def _may_be_known_later(error: OSError) -> bool:
    """Return whether the lookup of a name failed without proving that the name does not exist."""
    if isinstance(error, socket.gaierror):
        return error.errno not in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return _MAY_BE_KNOWN_LATER.search(str(error)) is not None


async def tls_where_plain(url: URL) -> str | None:
    """Return which setting to change if a port that is used without TLS speaks TLS; otherwise None.

    Many servers close a connection without an answer if the client does not begin with TLS; only a handshake can show
    that.

    Safe to cancel. Takes at most 1 s; only the handshake is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no data is sent that another could read
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    except (OSError, TimeoutError):
        return None
    writer.transport.abort()
    return _TLS_PORT
