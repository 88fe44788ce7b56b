"""A web backend: each question becomes a response, and every tab that shows it sees live what happens.

uvicorn examples.web_backend.app:app --workers 2 --timeout-graceful-shutdown 3

What a worker leaves when it ends, or is killed, is in a journal, from which any worker of this machine takes it up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from asyncruns import (
    APIError,
    Client,
    Completed,
    Ended,
    Fleet,
    InvalidWebhookSignatureError,
    JournalError,
    SQLiteJournal,
    ToolContext,
    Toolset,
    Watch,
    WatchGaveUpError,
)

MODEL = os.environ.get("MODEL", "gpt-4o")
JOURNAL = os.environ.get("JOURNAL", "questions.db")  # of all workers
RELOAD_S = float(os.environ.get("RELOAD_S", "10"))  # in which a tab that was closed, or cut off, is there again
RESUME_EVERY_S = 2.0
KEPT_QUESTIONS = 1000  # by each worker, and in the journal, for late tabs at any worker
SHOWN = ("event", "phase", "text", "calls", "call_id", "tool", "progress", "output", "failed")
log = logging.getLogger(__name__)

tools = Toolset(timeout=30)


@tools.tool(idempotent=True)  # does no harm if it runs again after a crash
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
    """A question that this worker answers, or has answered, and the tabs that show it."""

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
            async with aclosing(self.watch.subscribe()) as events:
                async for event in events:
                    fields = shown(event.to_dict())
                    if isinstance(event, Ended) and isinstance(event.outcome, Completed):
                        fields["text"] = await event.outcome.text()  # a question that was taken up has no stream
                    yield f"data: {json.dumps(fields)}\n\n"
                    if isinstance(event, Ended):
                        return  # a further step would deliver the outcome, and the journal would forget it
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


class Questions(dict[str, Question]):
    """The questions that this worker answers, or has answered, by their names."""

    def keep(self, name: str, asked: Asked, watch: Watch[Any]) -> None:
        """Keep a question that no tab shows yet."""
        self[name] = question = Question(asked, watch)
        question.note_closed()

    async def discard_oldest(self) -> None:
        """Discard the oldest answers, whether a tab has shown them or not, if too many are kept."""
        for name in [name for name, question in self.items() if not question.watch.is_active][:-KEPT_QUESTIONS]:
            await self.pop(name).watch  # the outcome counts as delivered, so the journal forgets it

    async def take_up(self, fleet: Fleet[Any]) -> None:
        """Go on with the questions of workers that have ended."""
        for watch in await fleet.resume():
            self.keep(watch.label["name"], Asked(**watch.label["asked"]), watch)

    async def keep_up(self, fleet: Fleet[Any]) -> None:
        """Take questions up, and discard old ones, until cancelled."""
        while True:
            try:
                await asyncio.sleep(RESUME_EVERY_S)
                await self.take_up(fleet)
                await self.discard_oldest()
            except JournalError:
                log.exception("The journal could not be read; this is tried again")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold a journal, a client and a fleet for the life of the process; what still runs is left to other workers."""
    async with (
        SQLiteJournal(JOURNAL) as journal,
        Client.from_env() as client,
        Fleet(client, journal=journal, tools=tools, timeout=600, on_exit="leave") as fleet,
    ):
        questions = Questions()
        app.state.journal, app.state.client, app.state.fleet, app.state.questions = journal, client, fleet, questions
        await questions.take_up(fleet)
        keeping_up = asyncio.create_task(questions.keep_up(fleet))
        yield
        keeping_up.cancel()


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
    name = uuid.uuid4().hex
    watch = app.state.fleet.watch(stream, label={"name": name, "asked": asked.model_dump()})
    try:
        await watch.recorded()  # from here on, it is answered even if this worker dies
    except (APIError, JournalError, WatchGaveUpError) as error:
        raise HTTPException(502, "The question could not be asked; try again later") from error
    app.state.questions.keep(name, asked, watch)
    return {"id": name}


@app.get("/questions/{name}/events")
async def events(name: str) -> Response:
    """Stream what happens to a question to one tab."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that no proxy holds events back
    questions: Questions = app.state.questions
    if name in questions:
        return StreamingResponse(questions[name].events(), media_type="text/event-stream", headers=headers)
    journal: SQLiteJournal = app.state.journal
    if name not in [record.label["name"] for record in await journal.read()]:
        raise HTTPException(404, "There is no such question, or it is too old")
    # Another worker has it: the tab connects again, until it meets that one.
    return Response("retry: 200\n\n", media_type="text/event-stream", headers={**headers, "Connection": "close"})


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
