"""The workflows of the tests; the sandbox loads this module anew for each workflow."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct
from temporalio import workflow

from asyncruns import AnyOutcome, InvalidRequestError, RunRef
from asyncruns.temporal import run_and_wait, watch
from asyncruns.watch.call_answerer import Calls


class Weather(Struct):
    """What the answer of a run is read as."""

    city: str
    degrees: int


@workflow.defn
class Ask:
    """Watches a run."""

    @workflow.run
    async def run(self, ref: RunRef, options: dict[str, Any]) -> AnyOutcome[Any]:
        return await watch(ref, **options)


@workflow.defn
class AskNew:
    """Creates a run, and watches it."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> AnyOutcome[Any]:
        return await run_and_wait(**options)


@workflow.defn
class GoOn:
    """Goes on with a watch by its token."""

    @workflow.run
    async def run(self, token: str, options: dict[str, Any]) -> AnyOutcome[Any]:
        return await watch(token=token, **options)


@workflow.defn
class Read:
    """Watches a run, and reads its answer in several ways."""

    @workflow.run
    async def run(self, ref: RunRef) -> list[Any]:
        outcome = await watch(ref, output_type=Weather)
        value = await outcome.parsed()
        return [await outcome.text(), value.city, value.degrees, len(await outcome.messages())]


@workflow.defn
class ReadNew:
    """Creates a run, and reads its answer as a value."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> str:
        outcome = await run_and_wait(**options, output_type=Weather)
        return type(await outcome.parsed()).__name__


@workflow.defn
class ByIds:
    """Watches a run that is given by its ids, or in a wrong way; returns what the error says."""

    @workflow.run
    async def run(self, given: dict[str, Any]) -> str:
        try:
            return type(await watch(**given)).__name__
        except InvalidRequestError as error:
            return str(error)


@workflow.defn
class Handled:
    """Answers calls by a handler of its own."""

    def __init__(self) -> None:
        self.is_allowed = False
        self.seen: list[str] = []

    @workflow.signal
    def allow(self) -> None:
        self.is_allowed = True

    @workflow.query
    def asked(self) -> list[str]:
        return self.seen

    @workflow.run
    async def run(self, ref: RunRef | None, handler: str, options: dict[str, Any]) -> AnyOutcome[Any]:
        return await watch(ref, on_requires_action=getattr(self, handler), **options)

    def partly(self, calls: Calls) -> dict[str, Any]:
        return {calls[0].id: {"from": "the handler"}}

    def half(self, calls: Calls) -> dict[str, Any]:
        return {calls[0].id: "x" * 1_000_000}

    def largely(self, calls: Calls) -> dict[str, Any]:
        return {call.id: "x" * 60_000 for call in calls}

    async def when_allowed(self, calls: Calls) -> dict[str, Any]:
        self.seen += [call.id for call in calls]
        await workflow.wait_condition(lambda: self.is_allowed)
        return {call.id: "allowed" for call in calls}

    async def raising(self, calls: Calls) -> dict[str, Any]:
        raise InvalidRequestError(f"no answer to {calls[0].name}")

    def nothing(self, calls: Calls) -> None:
        self.seen += [call.id for call in calls]


@workflow.defn
class Impatient:
    """Waits for a run for some time only."""

    @workflow.run
    async def run(self, ref: RunRef, seconds: float, options: dict[str, Any]) -> str:
        try:
            return type(await asyncio.wait_for(watch(ref, **options), seconds)).__name__
        except TimeoutError:
            return "TimeoutError"


@workflow.defn
class ImpatientNew:
    """Creates a run, and waits for it for some time only; ends some time later."""

    @workflow.run
    async def run(self, seconds: float, then: float, options: dict[str, Any]) -> str:
        try:
            return type(await asyncio.wait_for(run_and_wait(**options), seconds)).__name__
        except TimeoutError:
            await workflow.sleep(then)
            return "TimeoutError"


@workflow.defn
class Both:
    """Watches several runs at the same time."""

    @workflow.run
    async def run(self, refs: list[RunRef], options: dict[str, Any] | None = None) -> list[str]:
        given: dict[str, Any] = options or {}
        watches = [watch(ref, **given) for ref in refs]
        return [type(each).__name__ for each in await asyncio.gather(*watches)]


WORKFLOWS: list[type] = [Ask, AskNew, GoOn, Read, ReadNew, ByIds, Handled, Impatient, ImpatientNew, Both]
