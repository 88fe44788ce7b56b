"""Webhooks from the emulator to a receiver: when they come, what they say, and how they are repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from aiohttp import web
from batch_doors import Door, lines_of

from asyncruns import BearerAuth, Cadence, Client, Fleet, InvalidWebhookSignatureError, WebhookEvent
from asyncruns._loop import loop_time
from asyncruns.testing import BatchScenario, Emulator, InMemoryTransport, Scenario
from asyncruns.testing.emulator.webhooks import DELIVERIES

SLOW = Scenario(queued=0.0, working=5.0)


class Receiver:
    """A little web application that receives webhooks, and answers with these statuses, and then with 204."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, Any]] = []
        self.webhooks: list[tuple[bytes, Any]] = []
        self.times: list[float] = []
        self.on_webhook: Callable[[bytes, Any], object] = lambda body, headers: None
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.webhooks.append((body, request.headers))
        self.bodies.append(msgspec.json.decode(body))
        self.times.append(loop_time())
        self.on_webhook(body, request.headers)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    @property
    def types(self) -> list[str]:
        return [body["type"] for body in self.bodies]


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    app = web.Application()
    app.router.add_post("/hooks", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def emulating(receiver: Receiver, scenario: Scenario = SLOW) -> AsyncIterator[tuple[Emulator, Client]]:
    async with Emulator(scenario, webhook_url=receiver.url) as emulator:
        client = Client(emulator.base_url, auth=BearerAuth("any-key"), webhook_secret=emulator.webhook_secret)
        async with client:
            yield emulator, client


async def begun(client: Client, **parameters: Any) -> str:
    all_parameters: dict[str, Any] = {"model": "m", "input": "Hi", "background": True, **parameters}
    response = await client.responses.create(**all_parameters)
    return str(response.id)


@pytest.mark.parametrize("end", ["completed", "failed", "incomplete"])
async def test_an_end_in_the_background_is_announced_when_it_comes(end: Any) -> None:
    async with receiving() as receiver, emulating(receiver, Scenario(working=5.0, end=end)) as (_, client):
        response_id = await begun(client)
        await begun(client, background=False)
        await asyncio.sleep(4.0)
        assert receiver.bodies == []
        await asyncio.sleep(1.5)
        (body,) = receiver.bodies
        assert set(body) == {"object", "id", "type", "created_at", "data"}
        assert (body["object"], body["type"], body["data"]) == ("event", f"response.{end}", {"id": response_id})
        assert body["id"].startswith("evt_")
        event = client.webhooks.unwrap(*receiver.webhooks[0])
        assert event.ref is not None
        assert event.ref.ids == (response_id,)
        await asyncio.sleep(60.0)
        assert len(receiver.bodies) == 1


@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
async def test_the_end_of_a_batch_is_announced_when_it_comes(end: Any) -> None:
    async with receiving() as receiver, emulating(receiver) as (emulator, client):
        emulator.script_batches(BatchScenario(end=end, lifetime=3.0))
        async with aiohttp.ClientSession() as session:
            door = Door(emulator, session)
            batch_id = await door.begin(lines_of(2))
            await asyncio.sleep(0.9)
            assert receiver.bodies == []
            batch = await door.ended(batch_id, 5.0)
        (body,) = receiver.bodies
        assert set(body) == {"object", "id", "type", "created_at", "data"}
        assert (body["type"], body["data"]) == (f"batch.{end}", {"id": batch_id})
        assert body["created_at"] == batch[f"{end}_at"]
        received, headers = receiver.webhooks[0]
        official = openai.OpenAI(api_key="k", webhook_secret=emulator.webhook_secret)
        event = official.webhooks.unwrap(received, headers)
        assert event.type == f"batch.{end}"
        assert client.webhooks.unwrap(received, headers).type == f"batch.{end}"


async def test_a_batch_that_is_cancelled_is_announced_once() -> None:
    async with receiving() as receiver, emulating(receiver) as (emulator, _):
        async with aiohttp.ClientSession() as session:
            door = Door(emulator, session)
            batch_id = await door.begin(lines_of(2))
            await door.ask("POST", f"/batches/{batch_id}/cancel")
            await asyncio.sleep(10.0)
        assert receiver.types == ["batch.cancelled"]


async def test_the_official_client_accepts_what_the_emulator_signs() -> None:
    async with receiving() as receiver, emulating(receiver) as (emulator, client):
        await begun(client)
        await asyncio.sleep(6.0)
        body, headers = receiver.webhooks[0]
        official = openai.AsyncOpenAI(api_key="any-key", webhook_secret=emulator.webhook_secret)
        theirs, ours = official.webhooks.unwrap(body, headers), client.webhooks.unwrap(body, headers)
        assert (theirs.id, theirs.type, theirs.created_at) == (ours.id, ours.type, ours.created_at)
        assert theirs.type == "response.completed"
        assert theirs.data.id == ours.data["id"]
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(body, headers, secret="whsec_YW5vdGhlciBzZWNyZXQgb2YgYW5vdGhlcg==")
        assert emulator.webhook_secret not in repr(emulator)


async def test_a_cancel_is_announced_instead_of_the_end_and_a_deleted_response_is_not() -> None:
    async with receiving() as receiver, emulating(receiver, Scenario(working=5.0, cancelling=1.0)) as (_, client):
        cancelled, deleted = await begun(client), await begun(client)
        await client.responses.cancel(cancelled)
        await client.responses.delete(deleted)
        await asyncio.sleep(1.5)
        assert receiver.types == ["response.cancelled"]
        await asyncio.sleep(60.0)
        assert len(receiver.types) == 1


async def test_a_webhook_is_repeated_with_its_id_until_it_is_taken() -> None:
    async with receiving(500, 302, 404) as receiver, emulating(receiver) as (_, client):
        await begun(client)
        await asyncio.sleep(60.0)
        assert len({headers["webhook-id"] for _, headers in receiver.webhooks}) == 1
        pauses = [later - earlier for earlier, later in zip(receiver.times, receiver.times[1:], strict=False)]
        assert pauses == pytest.approx([1.0, 2.0, 4.0], abs=0.2)
        events = [client.webhooks.unwrap(*webhook) for webhook in receiver.webhooks]
        assert [event.is_repeat for event in events] == [False, True, True, True]


async def test_a_webhook_that_is_never_taken_is_given_up_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with receiving(*[503] * 100) as receiver, emulating(receiver) as (_, client):
        await begun(client)
        with caplog.at_level(logging.WARNING, "asyncruns.testing"):
            await asyncio.sleep(2000.0)
        assert len(receiver.bodies) == DELIVERIES
        assert "never answered with 2xx" in caplog.text


async def test_a_stopped_emulator_sends_what_is_missing_after_it_is_started_again() -> None:
    async with receiving() as receiver, emulating(receiver) as (emulator, client):
        await begun(client)
        await emulator.stop()
        await asyncio.sleep(60.0)
        assert receiver.bodies == []
        await emulator.start()
        await asyncio.sleep(0.5)
        assert receiver.types == ["response.completed"]


async def test_a_receiver_that_cannot_be_reached_harms_nothing() -> None:
    async with receiving() as receiver:
        pass
    async with emulating(receiver) as (_, client):
        await begun(client)
        await asyncio.sleep(10.0)


async def test_a_fleet_is_told_of_the_ends_through_the_whole_loop() -> None:
    slow = Scenario(queued=0.0, working=20.4)
    async with (
        receiving() as receiver,
        emulating(receiver, slow) as (_, client),
        Fleet(client, cadence=Cadence.fixed(1.0)) as fleet,
    ):
        receiver.on_webhook = lambda body, headers: fleet.poll_now(client.webhooks.unwrap(body, headers))
        await fleet.watch(response_id=await begun(client))
        assert fleet.statistics().told_by_webhooks
        before, began = fleet.statistics().polls, loop_time()
        for watch in [fleet.watch(response_id=await begun(client)) for _ in range(20)]:
            assert (await watch).status == "completed"
        assert loop_time() - began < 21.0
        assert fleet.statistics().polls - before <= 20 * 4, "some 400 without webhooks"
        assert fleet.statistics().told_by_webhooks


async def test_the_transport_in_memory_calls_a_function() -> None:
    events: list[WebhookEvent] = []
    server = InMemoryTransport(
        SLOW, on_webhook=lambda body, headers: events.append(client.webhooks.unwrap(body, headers))
    )
    client = Client(transport=server, webhook_secret=server.webhook_secret)
    async with client:
        response_id = await begun(client)
        await asyncio.sleep(4.0)
        assert events == []
        await asyncio.sleep(1.5)
        assert [(event.type, event.data) for event in events] == [("response.completed", {"id": response_id})]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"webhook_url": "127.0.0.1:80"}, "webhook_url"),
        ({"webhook_url": "http://127.0.0.1", "webhook_secret": "whsec_"}, "base64"),
        ({"webhook_url": "http://127.0.0.1", "webhook_secret": "c2VjcmV0"}, "whsec_"),
        ({"webhook_secret": "whsec_c2VjcmV0"}, "no effect"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Emulator(**options)  # type: ignore[arg-type]  # one of several types
