"""Certificates of an authority that is trusted only by `trusting_context`: one right certificate and two wrong ones.

Made with openssl for these tests; the valid ones expire in 2126.
"""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Final

AUTHORITY: Final = """\
-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIUF0x9HHwxY9h5JNwCAF7lulGQhrswCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSYXV0aG9yaXR5IG9mIHRlc3RzMCAXDTI2MTEyOTEzMzU1MloY
DzIxMjYxMTA1MTMzNTUyWjAdMRswGQYDVQQDDBJhdXRob3JpdHkgb2YgdGVzdHMw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQePXx8Yr2Ig+tvES/dTxi4isefCGYR
da9V+xQr0+JWgwhdscioRYAK8AJMvfpUh0aUOKMepWBC72rdQ7KX3ecbo2MwYTAd
BgNVHQ4EFgQU1ab900h3pJNujrnEulvXyvpHadEwHwYDVR0jBBgwFoAU1ab900h3
pJNujrnEulvXyvpHadEwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAgQw
CgYIKoZIzj0EAwIDSAAwRQIgY3edofAeA6NF8t0Sddwgth75XqKzQlPBMFkUtMI9
N4cCIQCL3VyTWDdvvNgWpmcYh+5zOxONuX9MHhpiyJW/F3Cdog==
-----END CERTIFICATE-----
"""
_KEY: Final = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIPmx+mlzKO2gmtS4gw+5LgYFtTxW2o3mnnugznwLgaj2oAoGCCqGSM49
AwEHoUQDQgAETuvTeQD0WscWiJ0CCQ6v8PJ+EHM8m7c6lj3I2r/wBjklnsC4SF23
gbadCm8s7wD6k2d0OJjJJhJKHaThGPx4tQ==
-----END EC PRIVATE KEY-----
"""
_CERTIFICATES: Final = {
    "right": """\
-----BEGIN CERTIFICATE-----
MIIBnTCCAUKgAwIBAgIUM4HSqbLqNpI08W6ddf7oYs6k4tYwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSYXV0aG9yaXR5IG9mIHRlc3RzMCAXDTI2MTEyOTEzMzU1MloY
DzIxMjYxMTA1MTMzNTUyWjAPMQ0wCwYDVQQDDARnb29kMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAETuvTeQD0WscWiJ0CCQ6v8PJ+EHM8m7c6lj3I2r/wBjklnsC4
SF23gbadCm8s7wD6k2d0OJjJJhJKHaThGPx4taNsMGowHQYDVR0RBBYwFIcEfwAA
AYIMaG9zdC5leGFtcGxlMAkGA1UdEwQCMAAwHQYDVR0OBBYEFBqyc9UHOtHqNomF
+EwmKKQHaomWMB8GA1UdIwQYMBaAFNWm/dNId6STbo65xLpb18r6R2nRMAoGCCqG
SM49BAMCA0kAMEYCIQDknjq5NFVn8gCJrWy2gLwbzQX1Uj/X8cPosmX873w1xQIh
AI3R059G6q4ymN13PYQ0B2T883knXl1Wh92l0xQaUong
-----END CERTIFICATE-----
""",
    "for another host": """\
-----BEGIN CERTIFICATE-----
MIIBmDCCAT6gAwIBAgIUM4HSqbLqNpI08W6ddf7oYs6k4tcwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSYXV0aG9yaXR5IG9mIHRlc3RzMCAXDTI2MTEyOTEzMzU1MloY
DzIxMjYxMTA1MTMzNTUyWjAQMQ4wDAYDVQQDDAVvdGhlcjBZMBMGByqGSM49AgEG
CCqGSM49AwEHA0IABE7r03kA9FrHFoidAgkOr/DyfhBzPJu3OpY9yNq/8AY5JZ7A
uEhdt4G2nQpvLO8A+pNndDiYySYSSh2k4Rj8eLWjZzBlMBgGA1UdEQQRMA+CDW90
aGVyLmV4YW1wbGUwCQYDVR0TBAIwADAdBgNVHQ4EFgQUGrJz1Qc60eo2iYX4TCYo
pAdqiZYwHwYDVR0jBBgwFoAU1ab900h3pJNujrnEulvXyvpHadEwCgYIKoZIzj0E
AwIDSAAwRQIgdm4dxpNK27Tt549PoOYcQn51EUU/WiQJzTxol3K5F/sCIQDndRDy
ifQvuOjW51BBrxRbRKQf1yrnf9uNX8owM7vSEQ==
-----END CERTIFICATE-----
""",
    "expired": """\
-----BEGIN CERTIFICATE-----
MIIBfTCCASKgAwIBAgIBdzAKBggqhkjOPQQDAjAdMRswGQYDVQQDDBJhdXRob3Jp
dHkgb2YgdGVzdHMwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAwWjASMRAw
DgYDVQQDDAdleHBpcmVkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETuvTeQD0
WscWiJ0CCQ6v8PJ+EHM8m7c6lj3I2r/wBjklnsC4SF23gbadCm8s7wD6k2d0OJjJ
JhJKHaThGPx4taNeMFwwDwYDVR0RBAgwBocEfwAAATAJBgNVHRMEAjAAMB0GA1Ud
DgQWBBQasnPVBzrR6jaJhfhMJiikB2qJljAfBgNVHSMEGDAWgBTVpv3TSHekk26O
ucS6W9fK+kdp0TAKBggqhkjOPQQDAgNJADBGAiEAsCwiH8OHgQ2G1XTNgAF7Nj6D
RP6+5E8AnCh9SETLNOcCIQC5vlp9iQH83DndWS7N4d7Mj1g5rPJz2I5IupEdG2hT
mQ==
-----END CERTIFICATE-----
""",
}


def server_context(kind: str) -> ssl.SSLContext:
    """Return the context of a server with one of the certificates: "right", "for another host" or "expired"."""
    return with_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), kind)


def with_certificate(context: ssl.SSLContext, kind: str) -> ssl.SSLContext:
    """Load one of the certificates into a context, of a server or of a client, and return it."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # a key can only be loaded from a file
        file.write(_KEY + _CERTIFICATES[kind])
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context


def trusting_context() -> ssl.SSLContext:
    """Return the context of a client that trusts only this authority."""
    return ssl.create_default_context(cadata=AUTHORITY)
