"""Many prompts, from a file of JSON lines to another one, with progress, retries and resume.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/many_prompts.py PROMPTS ANSWERS --model gpt-4o

A line of PROMPTS is {"id": ..., "message": ...}. A line {"id": ..., "answer": ...} is appended to ANSWERS as soon as it
is known. Start it again after Ctrl-C, or after a crash: prompts that have an answer are skipped, and runs that are
still active are taken up, from the journal ANSWERS.runs. `asyncruns reap ANSWERS.runs` lists these, and cancels them.
No prompt is asked twice, unless the program was killed in the moment in which a response was created: then nothing can
show whether that exists. With --assistant, its run is found.
Exits with 0 if all is answered, 1 if some prompts failed, and 130 if it was interrupted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from asyncruns import APIError, Client, Completed, CreateRequest, Fleet, NeedsCaller, SQLiteJournal

TRIES = 3
READERS = 16  # each fetches the text of one answer at a time


class ManyPrompts:
    """Asks prompts, and writes their answers; `prompts` are the messages that have no answer, by their ids."""

    def __init__(self, fleet: Fleet[Any], prompts: dict[str, str], answers: TextIO, arguments: Namespace) -> None:
        self.fleet, self.prompts, self.answers, self.arguments = fleet, prompts, answers, arguments
        self.tries: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.failed = 0

    def request(self, id_: str) -> CreateRequest:
        begin = self.arguments
        return {"assistant_id": begin.assistant, "model": begin.model, "message": self.prompts[id_], "label": id_}

    async def ask(self) -> None:
        """Take up what was asked before, and ask the rest."""
        asked = {watch.label for watch in await self.fleet.resume()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fleet.run_many(self.request(id_) for id_ in self.prompts if id_ not in asked))
            for _ in range(READERS):
                group.create_task(self.read())

    async def read(self) -> None:
        """Write answers. An outcome is forgotten at the next step of the loop, when its answer is in the file."""
        async for outcome in self.fleet:
            id_ = outcome.label
            if id_ not in self.prompts or id_ in self.answered:
                continue  # it was written before a crash
            self.tries[id_] += 1
            if isinstance(outcome, Completed):
                await self.save(id_, outcome)
            elif self.tries[id_] < TRIES and not isinstance(outcome, NeedsCaller):  # there are no tools here
                self.fleet.run(**self.request(id_))
            else:
                self.fail(id_, outcome.cause or outcome.error or outcome.status)

    async def save(self, id_: str, outcome: Completed[Any]) -> None:
        try:
            answer = await outcome.text()
            if not answer:
                self.fail(id_, await outcome.refusal() or "it wrote no text")
                return
        except APIError as error:
            self.fail(id_, error)
            return
        self.answers.write(json.dumps({"id": id_, "answer": answer}) + "\n")
        self.answers.flush()
        self.answered.add(id_)

    def fail(self, id_: str, why: object) -> None:
        self.failed += 1
        print(f"{id_} failed: {why}", file=sys.stderr)

    async def report(self) -> None:
        while True:
            await asyncio.sleep(1)
            print(self, file=sys.stderr)

    def __str__(self) -> str:
        now = self.fleet.statistics()
        counts = f"{len(self.answered)} of {len(self.prompts)} answered, {self.failed} failed"
        return f"{counts}, {now.active} active, {now.due} requests due"


async def ask_all(prompts: dict[str, str], answers: TextIO, arguments: Namespace) -> int:
    """Ask the prompts, and return how many failed."""
    async with (
        SQLiteJournal(f"{arguments.answers}.runs") as journal,
        Client.from_env() as client,
        Fleet(client, journal=journal, requests_per_second=arguments.rate, on_exit="leave") as fleet,
    ):
        many = ManyPrompts(fleet, prompts, answers, arguments)
        reporting = asyncio.create_task(many.report())
        try:
            await many.ask()
        finally:
            reporting.cancel()
            print(many, file=sys.stderr)
        return many.failed


def not_answered(prompts: Path, answers: Path) -> dict[str, str]:
    """Return the prompts that have no answer; the end of a line of answers that a crash cut off is removed."""
    data = answers.read_bytes() if answers.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        answers.write_bytes(whole)
    done = {json.loads(line)["id"] for line in whole.splitlines()}
    given = [json.loads(line) for line in prompts.read_bytes().splitlines() if line]
    return {prompt["id"]: prompt["message"] for prompt in given if prompt["id"] not in done}


def main() -> int:
    parser = ArgumentParser(description="Ask many prompts.")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second (50)")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--assistant")
    begin.add_argument("--model")
    arguments = parser.parse_args()
    prompts = not_answered(arguments.prompts, arguments.answers)
    with arguments.answers.open("a", encoding="utf-8") as answers:
        return 1 if asyncio.run(ask_all(prompts, answers, arguments)) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
