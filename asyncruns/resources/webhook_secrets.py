"""The secrets that webhooks are checked with: what callers give, and the keys in it. No message shows any of it."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from typing import Final

from asyncruns.errors import ConfigurationError

ENVIRONMENT: Final = "OPENAI_WEBHOOK_SECRET"
PREFIX: Final = "whsec_"
LEAST_KEY_BYTES: Final = 16  # of a secret without the prefix that may be base64; servers make 24 bytes or more


def given_secrets(secret: object) -> tuple[str, ...]:
    """Return the secrets that a caller gave: one, or several.

    Raises:
        ConfigurationError: They are not strings, or one is empty or was cut off.
    """
    secrets = (secret,) if isinstance(secret, str) else tuple(secret) if isinstance(secret, Sequence) else ()
    if not secrets or not all(isinstance(one, str) and one.strip() for one in secrets):
        raise ConfigurationError(
            "A webhook secret must be a non-empty string, or several in a list: check that the environment variable it "
            "is read from is set"
        )
    for one in secrets:
        if not any(keys_of(one)):
            raise ConfigurationError(f"A webhook secret has base64 after {PREFIX!r}: was this one cut off?")
    return secrets


def secrets_of_environment() -> tuple[str, ...]:
    """Return the secret in the environment, as the only one.

    Raises:
        ConfigurationError: There is none, or it is unusable.
    """
    secret = os.environ.get(ENVIRONMENT, "")
    if not secret.strip():
        raise ConfigurationError(
            f"There is no secret to check webhooks with: set {ENVIRONMENT}, or give webhook_secret= to the client"
        )
    return given_secrets(secret)


def keys_of(secret: str) -> Iterator[bytes]:
    """Yield the keys that a secret may stand for: base64 after "whsec_", or without the prefix a text or base64.

    The official client takes a secret without the prefix for a text, the library of Standard Webhooks for base64.
    """
    secret = secret.strip()
    text = secret.removeprefix(PREFIX)
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # the padding may be missing
    except binascii.Error:
        decoded = b""
    if text == secret:
        yield secret.encode()
        if len(decoded) >= LEAST_KEY_BYTES:
            yield decoded
    elif decoded:
        yield decoded
