"""The webhooks of an emulator: when a response in the background or a batch ends, a signed event is delivered.

https://platform.openai.com/docs/guides/webhooks describes them, and https://www.standardwebhooks.com the signature. It
is made here without the client's library, so that each checks the other. The signature has the real time, by which
receivers judge it, whatever the loop's clock says.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.timeline import reached, whole

log: Final = logging.getLogger("asyncruns.testing")

KEY_PREFIX: Final = "whsec_"
DELIVERIES: Final = 10  # of a webhook that the receiver does not answer with 2xx: within 511 s, and then no more
FIRST_PAUSE_S: Final = 1.0  # it doubles each time
DELIVERY_TIMEOUT_S: Final = 10.0

OnWebhook = Callable[[bytes, dict[str, str]], object]
"""Receives the body and the headers of a webhook."""


class Announced(Protocol):
    """A response or a batch."""

    id: str

    @property
    def announces(self) -> bool:
        """Whether its end is announced by a webhook."""
        ...

    def end(self) -> tuple[str, float]:
        """Return the terminal status and its time."""
        ...


class WebhookSigner:
    """Signs webhooks; without a secret, makes one.

    Raises:
        ValueError: If the secret is not "whsec_" and base64.
    """

    def __init__(self, secret: str | None) -> None:
        self.secret: str = secret or KEY_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        try:
            self._key = base64.b64decode(self.secret.removeprefix(KEY_PREFIX), validate=True)
        except ValueError:
            self._key = b""
        if not self._key or not self.secret.startswith(KEY_PREFIX):
            raise ValueError(f"webhook_secret must be {KEY_PREFIX!r} and base64")

    def headers(self, webhook_id: str, body: bytes) -> dict[str, str]:
        """Return the headers of a webhook that is sent now."""
        at = str(int(time.time()))
        digest = hmac.new(self._key, b".".join((webhook_id.encode(), at.encode(), body)), hashlib.sha256).digest()
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": webhook_id, "webhook-timestamp": at, "webhook-signature": signature}


class EmulatedWebhooks:
    """Makes a webhook for each response in the background and each batch when it ends.

    Args:
        announced: Those of the emulator by their ids, by the name of their kind.
        ids: Makes the ids.
        now: Returns the server's time in epoch seconds.
        deliver: Called with the id and the body of each webhook.
    """

    def __init__(
        self,
        announced: Mapping[str, Mapping[str, Announced]],
        ids: Ids,
        now: Callable[[], float],
        deliver: Callable[[str, bytes], object],
    ) -> None:
        self._announced = announced
        self._ids = ids
        self._now = now
        self._deliver = deliver
        self._made: set[str] = set()  # the ids of those that have theirs
        self._timers: set[asyncio.TimerHandle] = set()

    def changed(self, body: Body) -> None:
        """Plan the webhook of what was created or cancelled; do nothing for objects that have none."""
        kind = str(body.get("object"))
        if (one := self._announced.get(kind, {}).get(str(body.get("id")))) is not None and one.announces:
            self._plan(kind, one)

    def plan_all(self) -> None:
        """Plan the webhooks of all that have none yet."""
        for kind, by_id in self._announced.items():
            for one in by_id.values():
                if one.announces:
                    self._plan(kind, one)

    def stop(self) -> None:
        """Make no more webhooks."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _plan(self, kind: str, one: Announced) -> None:
        after = one.end()[1] - self._now()
        if one.id in self._made or after == math.inf:
            return

        def make() -> None:
            self._timers.discard(timer)
            self._make(kind, one)

        timer = asyncio.get_running_loop().call_later(max(after, 0.0), make)
        self._timers.add(timer)

    def _make(self, kind: str, one: Announced) -> None:
        status, ended = one.end()
        # A cancel may have come in between, or it was deleted.
        if one.id in self._made or one.id not in self._announced[kind] or not reached(self._now(), ended):
            return
        self._made.add(one.id)
        event = {
            "object": "event",
            "id": self._ids.new("evt"),
            "type": f"{kind}.{status}",
            "created_at": whole(ended),
            "data": {"id": one.id},
        }
        self._deliver(self._ids.new("wh"), msgspec.json.encode(event))


class WebhookSender:
    """Sends webhooks to a URL, again and again until the receiver answers with 2xx.

    Raises:
        ValueError: If the URL is not one of HTTP.
    """

    def __init__(self, url: str, signer: WebhookSigner) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("webhook_url must begin with http:// or https://")
        self._url = url
        self._signer = signer
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, webhook_id: str, body: bytes) -> None:
        """Begin to send a webhook."""
        task = asyncio.get_running_loop().create_task(self._send(webhook_id, body))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def stop(self) -> None:
        """Stop sending; what was not delivered is lost."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, webhook_id: str, body: bytes) -> None:
        pause = FIRST_PAUSE_S
        # A session for each webhook: the emulator may be used in one event loop after the other.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DELIVERY_TIMEOUT_S)) as session:
            for _ in range(DELIVERIES - 1):
                if await self._is_taken(session, webhook_id, body):
                    return
                await asyncio.sleep(pause)
                pause *= 2
            if not await self._is_taken(session, webhook_id, body):
                log.warning("The webhook %s was sent %d times, and never answered with 2xx", webhook_id, DELIVERIES)

    async def _is_taken(self, session: aiohttp.ClientSession, webhook_id: str, body: bytes) -> bool:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "asyncruns-emulator",
            **self._signer.headers(webhook_id, body),
        }
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                return 200 <= answer.status < 300
        return False
