"""Many prompts, from a file of JSON lines to another one, with progress, retries and resume.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/many_prompts.py PROMPTS ANSWERS --model gpt-4o

A line of PROMPTS is {"id": ..., "message": ...}. A line {"id": ..., "answer": ...} is appended to ANSWERS as soon as it
is known. Ctrl-C cancels the runs that are still active. Start it again then: prompts that have an answer are skipped.
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

import anyio

from asyncruns import APIError, Client, Completed, CreateRequest, Fleet

TRIES = 3
Prompt = dict[str, str]


class ManyPrompts:
    """Asks prompts, and writes their answers."""

    def __init__(self, fleet: Fleet[Any], prompts: list[Prompt], answers: TextIO, arguments: Namespace) -> None:
        self.fleet, self.prompts, self.answers, self.arguments = fleet, prompts, answers, arguments
        self.answered = self.failed = 0

    def request(self, prompt: Prompt) -> CreateRequest:
        begin = self.arguments
        return {"assistant_id": begin.assistant, "model": begin.model, "message": prompt["message"], "label": prompt}

    async def ask(self) -> None:
        tries: Counter[str] = Counter()
        async with anyio.create_task_group() as group:
            group.start_soon(self.fleet.run_many, map(self.request, self.prompts))
            async for outcome in self.fleet:
                prompt: Prompt = outcome.label
                tries[prompt["id"]] += 1
                if isinstance(outcome, Completed):
                    group.start_soon(self.save, prompt, outcome)
                elif tries[prompt["id"]] < TRIES:
                    self.fleet.run(**self.request(prompt))
                else:
                    self.fail(prompt, outcome.cause or outcome.error or outcome.status)

    async def save(self, prompt: Prompt, outcome: Completed[Any]) -> None:
        try:
            with anyio.CancelScope(shield=True):  # otherwise ctrl-C would make it be asked again
                answer = await outcome.text()
                if not answer:
                    self.fail(prompt, await outcome.refusal() or "it wrote no text")
                    return
                line = {"id": prompt["id"], "answer": answer}
                self.answers.write(json.dumps(line) + "\n")
                self.answers.flush()
                self.answered += 1
        except APIError as error:
            self.fail(prompt, error)

    def fail(self, prompt: Prompt, why: object) -> None:
        self.failed += 1
        print(f"{prompt['id']} failed: {why}", file=sys.stderr)

    async def report(self) -> None:
        while True:
            await asyncio.sleep(1)
            print(self, file=sys.stderr)

    def __str__(self) -> str:
        now = self.fleet.statistics()
        counts = f"{self.answered} of {len(self.prompts)} answered, {self.failed} failed"
        return f"{counts}, {now.active} active, {now.due} requests due"


async def ask_all(prompts: list[Prompt], answers: TextIO, arguments: Namespace) -> int:
    """Ask the prompts, and return how many failed."""
    async with (
        Client.from_env() as client,
        Fleet(client, requests_per_second=arguments.rate, on_exit="cancel") as fleet,
    ):
        many = ManyPrompts(fleet, prompts, answers, arguments)
        reporting = asyncio.create_task(many.report())
        try:
            await many.ask()
        finally:
            reporting.cancel()
            print(many, file=sys.stderr)
        return many.failed


def not_answered(prompts: Path, answers: Path) -> list[Prompt]:
    """Return the prompts that have no answer; the end of a line of answers that a crash cut off is removed."""
    data = answers.read_bytes() if answers.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        answers.write_bytes(whole)
    done = {json.loads(line)["id"] for line in whole.splitlines()}
    given: list[Prompt] = [json.loads(line) for line in prompts.read_bytes().splitlines() if line]
    return [prompt for prompt in given if prompt["id"] not in done]


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
