"""`client.webhooks`: checks that a webhook comes from the server, and says what it is about.

The scheme is that of https://www.standardwebhooks.com, and its library `standardwebhooks` checks the signatures. What
OpenAI sends is described at https://platform.openai.com/docs/guides/webhooks. Nothing here does I/O.

No secret may appear in a message, a repr or a log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from asyncruns.errors import ConfigurationError, InvalidRequestError, InvalidWebhookSignatureError
from asyncruns.lifecycle.values import RunRef
from asyncruns.resources.webhook_secrets import given_secrets, keys_of, secrets_of_environment
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.names import BATCH, RESPONSE
from asyncruns.wire.plain import Plain

if TYPE_CHECKING:
    from standardwebhooks import Webhook

IDS_KEPT: Final = 10_000  # of webhooks that were delivered, at some 150 bytes each
_ENDS: Final = ("completed", "failed", "cancelled", "incomplete", "expired")
# The objects whose webhooks are about something to poll, and our names of their dialects.
_POLLED: Final = {"response": RESPONSE, "batch": BATCH}


Payload = str | bytes | bytearray | memoryview
"""The body of a request, as it was received."""


class RequestHeaders(Protocol):
    """The headers of a request, as any web framework has them."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Return the names and values."""
        ...


class WebhookEvent(Plain, frozen=True, kw_only=True):
    """What a webhook says. A server may send types and fields that are not known here.

    Attributes:
        id: The id of the event. A webhook that is sent again has the same one.
        type: What happened, such as "response.completed", "response.failed" or "batch.completed".
        created_at: When it happened, in epoch seconds of the server; None if the webhook does not say.
        data: What the server says about it. For a response or a batch, that is its id.
        ref: The ref of the run to poll: `fleet.poll_now(event)`. None if the event is not about one.
        is_repeat: Whether this webhook was passed to this client before. Servers send a webhook again if the receiver
            did not answer 2xx in time, so a repeat does not mean that it was handled.
    """

    id: str
    type: str
    created_at: float | None
    data: dict[str, Any]
    ref: RunRef | None
    is_repeat: bool

    @property
    def is_end(self) -> bool:
        """Whether it says that a run has ended."""
        return self.ref is not None and self.type.rpartition(".")[2] in _ENDS


class Webhooks:
    """Checks and reads webhooks. Its methods do not wait, and may be called from any thread."""

    def __init__(self, secrets: tuple[str, ...] | None = None) -> None:
        self._secrets = secrets
        self._delivered: OrderedDict[str, None] = OrderedDict()  # ids, the oldest first

    def unwrap(
        self,
        payload: str | bytes | bytearray | memoryview,
        headers: RequestHeaders,
        *,
        secret: str | Sequence[str] | None = None,
    ) -> WebhookEvent:
        """Check the signature of a webhook, and return its event.

        The ids of the newest 10,000 webhooks are remembered, for `is_repeat`.

        Args:
            payload: The body of the request, exactly as it was received.
            headers: The headers of the request; the case of their names does not matter.
            secret: The secret of the endpoint, with or without "whsec_", or several of which one must fit; by default
                the `webhook_secret` of the client, or else the environment variable OPENAI_WEBHOOK_SECRET.

        Raises:
            InvalidWebhookSignatureError: The signature is missing or wrong, or was made more than 300 s ago or ahead.
                Answer the request with 400.
            InvalidRequestError: The payload is not the body as it was received, or is not a JSON object.
            ConfigurationError: There is no secret, or it is unusable; or `standardwebhooks` is not installed.
        """
        self.verify_signature(payload, headers, secret=secret)
        try:
            body = msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequestError(f"The body of this webhook is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise InvalidRequestError("The body of this webhook is not a JSON object")
        return _event(body, self._note(_lowered(headers)["webhook-id"]))

    def verify_signature(
        self,
        payload: str | bytes | bytearray | memoryview,
        headers: RequestHeaders,
        *,
        secret: str | Sequence[str] | None = None,
    ) -> None:
        """Check the signature of a webhook, as `unwrap` does, which describes the arguments and the errors."""
        if not isinstance(payload, str | bytes | bytearray | memoryview):
            raise InvalidRequestError(
                f"payload must be the raw body of the request, as bytes or str; got {type(payload).__name__}. A body "
                "that was parsed cannot be checked, as its signature is for the bytes that were sent"
            )
        if not callable(getattr(headers, "items", None)):
            raise InvalidRequestError(
                "headers must be those of the request, with an items(), or a dict of names to values; got "
                f"{type(headers).__name__}"
            )
        secrets = (self._secrets or secrets_of_environment()) if secret is None else given_secrets(secret)
        body = payload if isinstance(payload, str | bytes) else bytes(payload)
        _check(body, _lowered(headers), [key for one in secrets for key in keys_of(one)])

    def _note(self, id_: str) -> bool:
        """Remember the id of a webhook; return whether it was known."""
        is_known = self._delivered.pop(id_, self) is None
        self._delivered[id_] = None  # now the newest
        if len(self._delivered) > IDS_KEPT:
            self._delivered.popitem(last=False)
        return is_known


def _check(payload: str | bytes, headers: dict[str, str], keys: list[bytes]) -> None:
    webhook, refused = _library()
    reason = ""
    for key in keys:
        try:
            webhook(key).verify(payload, headers, json_parse=False)
        except refused as error:
            reason = str(error)
        except ValueError:  # a header that is not of the scheme, or a body that is not UTF-8
            reason = "It is malformed"
        else:
            return
    raise InvalidWebhookSignatureError(
        f"The signature of this webhook is not valid: {reason}. Check that the body is passed exactly as it was "
        "received, that the secret is that of this endpoint, and that the clock is right"
    )


def _library() -> tuple[type[Webhook], type[Exception]]:
    """Return the class that checks signatures, and the error that it raises."""
    try:
        from standardwebhooks import Webhook, WebhookVerificationError  # late, as it may not be installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Webhooks need standardwebhooks, which is not installed: pip install 'asyncruns[webhooks]'"
        ) from error
    return Webhook, WebhookVerificationError


def _lowered(headers: RequestHeaders) -> dict[str, str]:
    """Return headers by their names in lower case; one whose value is no text counts as missing."""
    texts = ((_text(name), _text(value)) for name, value in headers.items())
    return {name.lower(): value for name, value in texts if name is not None and value is not None}


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def _event(body: dict[str, Any], is_repeat: bool) -> WebhookEvent:
    id_, type_, data = body.get("id"), body.get("type"), body.get("data")
    kind = type_ if isinstance(type_, str) else ""
    about = data if isinstance(data, dict) else {}
    dialect, of = _POLLED.get(kind.partition(".")[0]), about.get("id")
    return WebhookEvent(
        id=id_ if isinstance(id_, str) else "",
        type=kind,
        created_at=epoch_seconds(body.get("created_at")),
        data=about,
        ref=RunRef(dialect, (of,)) if dialect and isinstance(of, str) and of else None,
        is_repeat=is_repeat,
    )
