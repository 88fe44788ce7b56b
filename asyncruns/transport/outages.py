"""Which trouble with a connection does not pass with time, and what to set then.

A server that has answered before was reached with these very settings: its name may be unknown for a while, and a
network that wants a login answers with a certificate of its own. So most kinds are final only before the first answer.
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
    "This machine does not trust the server's certificate: give the authority that signed it, such as "
    "ssl=ssl.create_default_context(cafile=...), or set SSL_CERT_FILE"
)
_OTHER_HOST: Final = "The server's certificate is for another host: write the host in base_url that it is for"
_OTHER_TIME: Final = "The server's certificate is not valid at this time: check this machine's clock, or renew it"
_PLAIN_PORT: Final = "This port does not speak TLS: write http:// in base_url, or give the port of https"
_TLS_PORT: Final = "This port speaks TLS: write https:// in base_url, or give the port of http"
_NO_SHARED_TLS: Final = (
    "Server and client have no version or cipher of TLS in common: give an ssl.SSLContext that allows the server's as "
    "ssl="
)
_CLIENT_CERTIFICATE: Final = (
    "The server wants a certificate of the client, or another one: give an ssl.SSLContext with load_cert_chain() as "
    "ssl="
)
_FINGERPRINT: Final = "The server's certificate has another fingerprint than the one that was given as ssl="
_NAME: Final = "There is no such host: check the host in base_url, and in proxy= if there is one"
_URL: Final = "This is no URL of HTTP: check base_url"
_PROXY_LOGIN: Final = "The proxy wants a login: give it as proxy=http://USER:PASSWORD@HOST:PORT"

# OpenSSL's X509_V_ERR_...: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_BY_VERIFY_CODE: Final[Mapping[int, str]] = {9: _OTHER_TIME, 10: _OTHER_TIME, 62: _OTHER_HOST, 64: _OTHER_HOST}
# What OpenSSL calls the errors of a handshake. Others, such as an end in the middle, may pass.
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
_TLS_ALERT: Final = r"\x15\x03"  # as a parser of HTTP shows it that expected an answer
_MAY_BE_KNOWN_LATER: Final = re.compile(r"temporar|try again|time(?:d )?out|contact|refused|failure", re.I)
_PROXY_AUTHENTICATION_REQUIRED: Final = 407


def what_to_set(error: BaseException, *, has_answered: bool) -> str | None:
    """Return what to set when waiting does not help; None when the trouble may pass.

    Args:
        error: What aiohttp, or the loop, raised.
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
    """Tell whether a name could not be looked up, which is not to say that there is none."""
    if isinstance(error, socket.gaierror):
        return error.errno not in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return _MAY_BE_KNOWN_LATER.search(str(error)) is not None


async def tls_where_plain(url: URL) -> str | None:
    """Return what to set when a port that is asked without TLS speaks TLS; None when it does not.

    Many servers close a connection on which something else than TLS comes, without a word; only a handshake tells.

    Safe to cancel. Takes 1 s at most; nothing is sent but the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent that could be read
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    except (OSError, TimeoutError):
        return None
    writer.transport.abort()
    return _TLS_PORT
