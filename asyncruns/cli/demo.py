"""`asyncruns demo`: dozens of runs with tools, all watched at once."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from typing import Final

import anyio
from msgspec import Struct

from asyncruns.cli.board import Board, Row
from asyncruns.cli.connect import connect
from asyncruns.cli.demo_runs import NUMBER_KEY, ROLES, demo_scenario, expected_of, question_of, role_of, toolset
from asyncruns.cli.leftovers import Leftovers
from asyncruns.cli.options import DEFAULT_MAX_OUTAGE_S
from asyncruns.cli.output import complain, counted, on_one_line, say
from asyncruns.cli.process import run
from asyncruns.cli.views import PlainView, View
from asyncruns.client.client import Client
from asyncruns.errors import AsyncRunsError, ConfigurationError
from asyncruns.lifecycle import EndKind
from asyncruns.testing import Emulator
from asyncruns.watch.observers import Ended
from asyncruns.watch.outcome import AnyOutcome, Completed
from asyncruns.watch.watcher import RunWatcher
from asyncruns.wire import Run

CREATED_AT_ONCE: Final = 8  # servers limit the rate of creations more than that of polls

_ENDED_BADLY: Final = (None, EndKind.NEEDS_CALLER, EndKind.GAVE_UP)


class Settings(Struct, frozen=True, kw_only=True):
    """Options of the command line; `timeout` applies to each run, in seconds."""

    runs: int
    model: str
    timeout: float


def main(options: argparse.Namespace) -> int:
    """Run the demo and return 0 if every run ended as expected, else 1."""
    if options.base_url is None and options.api_key is not None:
        raise ConfigurationError("--api-key needs --base-url; without it the server is emulated in this process")
    settings = Settings(runs=options.runs, model=options.model, timeout=options.timeout)
    client = None if options.base_url is None else connect(options.base_url, options.api_key)
    return run(demo(settings, _view(options), client))


def _view(options: argparse.Namespace) -> View:
    if options.plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainView()
    try:
        from asyncruns.cli.table import TableView
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":  # only a missing `rich` is expected here
            raise
        complain("for a live table: pip install 'asyncruns[cli]'")
        return PlainView()
    return TableView(options.base_url or "emulated in this process")


async def demo(settings: Settings, view: View, client: Client | None = None) -> int:
    """Create assistants and runs, watch all runs, delete what was created, print a report and return the exit code.

    Args:
        client: Client of a real server; it is closed at the end. By default a server is emulated in this process, for
            which the end of each run is known in advance.

    Raises:
        AsyncRunsError: The server refused to create an assistant.
    """
    board = Board(view.changed)
    is_emulated = client is None
    async with AsyncExitStack() as stack:
        if client is None:
            emulator = await stack.enter_async_context(Emulator(demo_scenario))
            client = Client(emulator.base_url)
        await stack.enter_async_context(client)
        leftovers = Leftovers(client)
        try:
            await Demo(settings, client, board, leftovers).perform(view)
        except asyncio.CancelledError:
            over = sum(row.over for row in board.rows)
            complain(f"interrupted when {over} of {counted(settings.runs, 'run')} had ended; deleting what was created")
            raise
        finally:
            # A run that has not ended would continue at the server, and cost money.
            await leftovers.remove([row for row in board.rows if row.end in _ENDED_BADLY])
    return _report(board, is_emulated=is_emulated)


class Demo:
    """Creates the runs and watches them."""

    def __init__(self, settings: Settings, client: Client, board: Board, leftovers: Leftovers) -> None:
        self._settings = settings
        self._client = client
        self._board = board
        self._leftovers = leftovers
        self._tools = toolset()
        self._few = anyio.CapacityLimiter(CREATED_AT_ONCE)

    async def perform(self, view: View) -> None:
        """Create the assistants, then all runs, and watch each until it ends. `leftovers` records what is created."""
        assistant_ids = await self._create_assistants()
        for number in range(self._settings.runs):
            self._board.rows.append(Row(number=number, assistant=role_of(number).name))
        # Two groups: the inner one ends when all runs have ended, then the view, which never ends itself, is stopped.
        async with anyio.create_task_group() as showing:
            showing.start_soon(view.show, self._board)
            async with anyio.create_task_group() as group:
                for row in self._board.rows:
                    group.start_soon(self._create_and_watch, row, assistant_ids[row.assistant])
            showing.cancel_scope.cancel()

    async def _create_assistants(self) -> dict[str, str]:
        definitions = {definition["function"]["name"]: definition for definition in self._tools.definitions()}
        ids: dict[str, str] = {}
        for role in ROLES[: self._settings.runs]:
            # Shielded, because an assistant whose id is not known cannot be deleted.
            with anyio.CancelScope(shield=True):
                assistant = await self._client.assistants.create(
                    model=self._settings.model,
                    name=f"asyncruns demo: {role.name}",
                    instructions=role.instructions,
                    tools=[definitions[name] for name in role.tools],
                )
                self._leftovers.assistants.append(assistant.id)
                ids[role.name] = assistant.id
        return ids

    async def _create_and_watch(self, row: Row, assistant_id: str) -> None:
        try:
            await self._create(row, assistant_id)
        except AsyncRunsError as error:
            self._board.not_created(row, error)
            return
        outcome = await self._watch(row)
        self._board.ended(row, outcome, await _answer(outcome))

    async def _create(self, row: Row, assistant_id: str) -> None:
        async with self._few:
            with anyio.CancelScope(shield=True):  # as for the assistants
                question = {"role": "user", "content": question_of(row.number)}
                thread = await self._client.threads.create(messages=[question])
                self._leftovers.threads.append(thread.id)
                created = await self._client.threads.runs.create(
                    thread.id, assistant_id=assistant_id, metadata={NUMBER_KEY: str(row.number)}
                )
                self._board.created(row, thread.id, created.id)

    async def _watch(self, row: Row) -> AnyOutcome[Run]:
        watcher = RunWatcher(
            self._client,
            thread_id=row.thread_id,
            run_id=row.run_id,
            tools=self._tools,
            timeout=self._settings.timeout,
            max_outage=DEFAULT_MAX_OUTAGE_S,
        )
        async with watcher:
            self._board.watched(row, watcher)
            async for event in watcher:
                if not isinstance(event, Ended):
                    self._board.note(row, event)
            return await watcher.wait()


async def _answer(outcome: AnyOutcome[Run]) -> str:
    if not isinstance(outcome, Completed):
        return ""
    try:
        return await outcome.text()
    except AsyncRunsError as error:
        return f"(no answer: {error})"


def _report(board: Board, *, is_emulated: bool) -> int:
    rows = board.rows
    how = ", ".join(f"{number} {on_one_line(status)}" for status, number in board.counts())
    calls, rounds, polls = (
        sum(row.answered for row in rows),
        sum(row.rounds for row in rows),
        sum(r.polls for r in rows),
    )
    say(f"\n{counted(len(rows), 'run')} in {board.seconds:.1f} s: {how}")
    say(f"{counted(calls, 'tool call')} in {counted(rounds, 'round')}, {counted(polls, 'poll')}")
    wrong = [(row, why) for row in rows if (why := _surprise(row, is_emulated=is_emulated))]
    if not wrong:
        say("All ended as their scenarios say." if is_emulated else "None needed the caller, none was given up.")
        return 0
    say(f"Not as expected: {counted(len(wrong), 'run')}")
    for row, why in wrong:
        say("  " + on_one_line(f"{row.run_id or f'run {row.number + 1}'}: {why}"))
    return 1


def _surprise(row: Row, *, is_emulated: bool) -> str:
    """Return what is not as expected with a row, or ""."""
    got = f"{row.status}, {counted(row.answered, 'call')}, {row.result}"
    if is_emulated:
        end, calls = expected_of(row.number)
        return (
            "" if (row.end, row.answered) == (end, calls) else f"{end.value}, {counted(calls, 'call')} expected: {got}"
        )
    return got if row.end in _ENDED_BADLY else ""
