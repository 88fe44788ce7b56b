"""A web backend with aiohttp.web: a question is asked, and its answer fetched, at any of several processes.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/aiohttp_backend.py

Start it as often as there are to be workers: they share the port, the journal and the folder of the answers. A worker
keeps nothing to itself, so any of them may be stopped, or killed, at any moment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from asyncruns import (
    AnyOutcome,
    Client,
    Completed,
    Fleet,
    InvalidWebhookSignatureError,
    JournalError,
    SQLiteJournal,
    Toolset,
)

MODEL = os.environ.get("MODEL", "gpt-4o")
PORT = int(os.environ.get("PORT", "8000"))
JOURNAL = os.environ.get("JOURNAL", "questions.db")  # of all workers
ANSWERS = Path(os.environ.get("ANSWERS", "answers"))  # likewise; stands for your database
RESUME_EVERY_S = 2.0

tools = Toolset(timeout=30)
journal_key = web.AppKey("journal", SQLiteJournal)
client_key = web.AppKey("client", Client)
fleet_key = web.AppKey("fleet", Fleet[Any])


@tools.tool(idempotent=True)  # does no harm if it runs again after a crash
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    await asyncio.sleep(1)  # stands for the request to a weather service
    return f"21 degrees in {city}"


def write(name: str, answer: dict[str, Any]) -> None:
    """Write an answer, as a whole or not at all."""
    ANSWERS.mkdir(exist_ok=True)
    half = ANSWERS / f"{name}.{os.getpid()}"
    half.write_text(json.dumps(answer), encoding="utf-8")
    half.replace(ANSWERS / f"{name}.json")


async def save(outcome: AnyOutcome[Any]) -> None:
    """Save an answer. The journal forgets the question when this has returned; if it fails, a later worker tries it."""
    text = await outcome.text() if isinstance(outcome, Completed) else None
    await asyncio.to_thread(write, outcome.label, {"status": outcome.status or "gave_up", "answer": text})


async def keep_resuming(fleet: Fleet[Any]) -> None:
    """Go on with the questions of workers that have ended, until cancelled."""
    while True:
        try:
            await fleet.resume()
        except JournalError:
            logging.exception("The journal could not be read; this is tried again")
        await asyncio.sleep(RESUME_EVERY_S)


async def watching(app: web.Application) -> AsyncIterator[None]:
    """Hold a journal, a client and a fleet for the life of the process; what still runs is left to other workers."""
    async with (
        SQLiteJournal(JOURNAL) as journal,
        Client.from_env() as client,
        Fleet(
            client,
            journal=journal,
            tools=tools,
            timeout=600,
            on_outcome=save,
            on_exit="leave",
            on_lost_submit="resend",  # to ask twice does no harm here, and what was lost in a crash is asked again
        ) as fleet,
    ):
        app[journal_key], app[client_key], app[fleet_key] = journal, client, fleet
        resuming = asyncio.create_task(keep_resuming(fleet))
        yield
        resuming.cancel()


routes = web.RouteTableDef()


@routes.post("/questions")
async def ask(request: web.Request) -> web.Response:
    """Begin to answer the question in the body; return its id."""
    name = uuid.uuid4().hex
    watch = request.app[fleet_key].run(model=MODEL, message=await request.text(), label=name)
    try:
        await watch.recorded()  # from here on, it is answered even if this worker dies
    except JournalError as error:
        raise web.HTTPServiceUnavailable(text="The question could not be asked; try again later") from error
    return web.json_response({"id": name}, status=202)


@routes.get("/questions/{name:[0-9a-f]{32}}")
async def answer(request: web.Request) -> web.Response:
    """Return the answer, or that there is none yet, whichever worker was asked the question."""
    name = request.match_info["name"]
    unfinished = {record.label for record in await request.app[journal_key].read()}  # first: it forgets what is saved
    path = ANSWERS / f"{name}.json"
    if await asyncio.to_thread(path.exists):
        return web.json_response(text=await asyncio.to_thread(path.read_text, encoding="utf-8"))
    if name in unfinished:
        return web.json_response({"status": "running", "answer": None}, status=202)
    raise web.HTTPNotFound(text="There is no such question")


@routes.post("/webhooks")
async def webhook(request: web.Request) -> web.Response:
    """Poll the response that a webhook is about, at once, whichever worker watches it."""
    try:
        event = request.app[client_key].webhooks.unwrap(await request.read(), request.headers)
    except InvalidWebhookSignatureError as error:
        raise web.HTTPBadRequest(text="The signature is not valid") from error
    return web.json_response({"is_watched": request.app[fleet_key].poll_now(event)})


def main() -> None:
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(watching)
    web.run_app(app, host="127.0.0.1", port=PORT, reuse_port=True, shutdown_timeout=3)


if __name__ == "__main__":
    main()
