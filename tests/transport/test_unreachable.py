"""Which connection errors may pass, and which setting to change for the others."""

from __future__ import annotations

import socket
import ssl
from typing import Final

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from recording_server import DROP, RecordingServer, reply
from yarl import URL

from asyncruns import APIConnectionError, Client
from asyncruns.transport.unreachable import tls_where_plain, what_to_set

KEY: Final = ConnectionKey("host.example", 443, True, True, None, None, None)


def certificate_error(code: int) -> aiohttp.ClientError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_code = code
    return aiohttp.ClientConnectorCertificateError(KEY, error)


def handshake_error(reason: str) -> aiohttp.ClientError:
    return aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, f"[SSL: {reason}] words of OpenSSL (_ssl.c:1006)"))


FINAL: Final[list[tuple[BaseException, str]]] = [
    (certificate_error(18), "ssl=ssl.create_default_context(cafile="),
    (certificate_error(20), "SSL_CERT_FILE"),
    (certificate_error(10), "check this machine's clock"),
    (certificate_error(9), "check this machine's clock"),
    (certificate_error(62), "for another host"),
    (certificate_error(64), "for another host"),
    (handshake_error("WRONG_VERSION_NUMBER"), "write http:// in base_url"),
    (handshake_error("RECORD_LAYER_FAILURE"), "write http:// in base_url"),
    (handshake_error("TLSV1_ALERT_PROTOCOL_VERSION"), "no version or cipher of TLS in common"),
    (handshake_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "no version or cipher of TLS in common"),
    (aiohttp.ClientOSError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] words"), "load_cert_chain"),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "Name or service not known")), "host"),
    (aiohttp.ServerFingerprintMismatch(b"a", b"b", "host.example", 443), "fingerprint of the server"),
    (aiohttp.InvalidURL("http://"), "check base_url"),
]
PASSING: Final[list[BaseException]] = [
    handshake_error("UNEXPECTED_EOF_WHILE_READING"),
    handshake_error("TLSV1_ALERT_INTERNAL_ERROR"),
    aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
    aiohttp.ClientConnectorDNSError(KEY, OSError(None, "Could not contact DNS servers")),
    aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "Connect call failed")),
    aiohttp.ClientConnectorError(KEY, OSError(101, "Network is unreachable")),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientOSError(104, "Connection reset by peer"),
    aiohttp.ConnectionTimeoutError(),
    TimeoutError(),
]


@pytest.mark.parametrize(("error", "hint"), FINAL, ids=[f"{type(error).__name__}: {hint}" for error, hint in FINAL])
def test_an_error_that_does_not_pass_names_the_setting_to_change(error: BaseException, hint: str) -> None:
    assert hint in (what_to_set(error, has_answered=False) or "")


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_error_that_may_pass_names_no_setting(error: BaseException) -> None:
    assert what_to_set(error, has_answered=False) is None


@pytest.mark.parametrize("error", [error for error, _ in FINAL[:-1]], ids=repr)
def test_after_an_answer_the_same_errors_may_pass(error: BaseException) -> None:
    assert what_to_set(error, has_answered=True) is None


async def test_a_plain_http_port_is_not_mistaken_for_tls() -> None:
    async with RecordingServer() as server:
        assert await tls_where_plain(URL(server.base_url)) is None
        assert server.seen == []


async def test_a_server_that_only_drops_connections_may_recover() -> None:
    async with RecordingServer(DROP) as server, Client(server.base_url, max_retries=4) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.threads.retrieve("thread_1")
    assert caught.value.passes
    assert len(server.seen) == 5


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="an alert of TLS"),
        pytest.param(reply(400, "The plain HTTP request was sent to HTTPS port"), id="a page of nginx"),
    ],
)
async def test_a_server_that_demands_tls_in_its_answer_is_understood(answer: bytes) -> None:
    async with RecordingServer(answer) as server, Client(server.base_url) as client:
        with pytest.raises(Exception, match=r"TLS|HTTPS"):
            await client.threads.retrieve("thread_1")
    assert len(server.seen) == 1
