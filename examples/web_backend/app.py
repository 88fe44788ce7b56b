"""A web backend: each question becomes a response, and every tab that shows it sees live what happens.

uvicorn examples.web_backend.app:app --timeout-graceful-shutdown 3
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from asyncruns import APIError, Client, Fleet, InvalidWebhookSignatureError, ToolContext, Toolset, Watch

MODEL = os.environ.get("MODEL", "gpt-4o")
KEPT_QUESTIONS = 1000
SHOWN = ("event", "phase", "text", "calls", "call_id", "tool", "progress", "output", "failed")
RELOAD_S = 2.0  # a tab that is reloaded closes its connection, and opens another one

tools = Toolset(timeout=30)


@tools.tool
async def get_weather(city: str, context: ToolContext[str]) -> str:
    """Return the weather in a city."""
    context.report(f"asking the station of {city}")
    await asyncio.sleep(1)  # stands for the request to a weather service
    return f"21 degrees in {city}"


class Asked(BaseModel):
    """What the page sends: a question, and whether closing its last tab cancels it."""

    text: str = Field(max_length=10_000)
    cancel_when_closed: bool = False


class Question:
    """A question that is being answered, or was, and the tabs that show it."""

    def __init__(self, asked: Asked, watch: Watch[Any]) -> None:
        self.asked = asked
        self.watch = watch
        self.tabs = 0
        self.closing: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[str]:
        """Yield what one tab gets, as server-sent events: the question, the state as it is, and then what happens."""
        self.tabs += 1
        yield f"event: question\ndata: {json.dumps(self.asked.text)}\n\n"
        try:
            async for event in self.watch.subscribe():
                yield f"data: {json.dumps(shown(event.to_dict()))}\n\n"
        finally:
            self.tabs -= 1
            self.note_closed()

    def note_closed(self) -> None:
        """Cancel the response soon, if that is the choice and no tab is opened before."""
        if self.asked.cancel_when_closed:
            self.closing = asyncio.create_task(self.cancel_if_closed())

    async def cancel_if_closed(self) -> None:
        """Cancel the response if no tab shows it any more."""
        await asyncio.sleep(RELOAD_S)
        if not self.tabs and self.watch.is_active:
            await self.watch.cancel_run()


def shown(event: dict[str, Any]) -> dict[str, Any]:
    """Return what a tab may know of an event: not the whole response, which has the instructions and the tools."""
    outcome = event.get("outcome") or {}
    return {name: event[name] for name in SHOWN if name in event} | {"reason": outcome.get("reason")}


def delivered(outcome: object) -> None:
    """Take an outcome that no caller waits for, so that the fleet need not keep it."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one client and one fleet for the life of the process; what still runs at its end is cancelled."""
    async with (
        Client.from_env() as client,
        Fleet(client, tools=tools, timeout=600, on_exit="cancel", on_outcome=delivered) as fleet,
    ):
        app.state.client, app.state.fleet, app.state.questions = client, fleet, {}
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/questions")
async def ask(asked: Asked) -> dict[str, str]:
    """Begin to answer a question; return the id under which tabs can follow it."""
    client: Client = app.state.client
    try:
        stream = await client.responses.create(
            model=MODEL, input=asked.text, tools=tools.definitions("responses"), background=True, stream=True
        )
    except APIError as error:
        raise HTTPException(502, "The question could not be asked; try again later") from error
    questions: dict[str, Question] = app.state.questions
    name = uuid.uuid4().hex
    questions[name] = question = Question(asked, app.state.fleet.watch(stream))
    question.note_closed()  # no tab shows it yet
    if len(questions) > KEPT_QUESTIONS:
        del questions[next(iter(questions))]
    return {"id": name}


@app.get("/questions/{name}/events")
async def events(name: str) -> StreamingResponse:
    """Stream what happens to a question to one tab."""
    if name not in app.state.questions:
        raise HTTPException(404, "There is no such question, or it is too old")
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that no proxy holds events back
    return StreamingResponse(app.state.questions[name].events(), media_type="text/event-stream", headers=headers)


@app.post("/webhooks")
async def webhook(request: Request) -> dict[str, bool]:
    """Poll the response that a webhook is about, at once."""
    try:
        event = app.state.client.webhooks.unwrap(await request.body(), request.headers)
    except InvalidWebhookSignatureError as error:
        raise HTTPException(400, "The signature is not valid") from error
    return {"is_watched": app.state.fleet.poll_now(event)}


@app.get("/health")
async def health() -> dict[str, Any]:
    """Return the state of the fleet in numbers."""
    fleet: Fleet[Any] = app.state.fleet
    return fleet.statistics().to_dict()
