"""A driver for the lifecycle: short ways to make snapshots and events, and a clock that only the test moves."""

from __future__ import annotations

from typing import Any, TypeVar

from asyncruns.lifecycle import (
    Asked,
    Begun,
    Call,
    CallKind,
    CallsAnswered,
    CallsUnanswered,
    CancelAsked,
    Command,
    End,
    Event,
    Finish,
    Observed,
    OutputsProvided,
    Phase,
    Policy,
    PollAt,
    Refusal,
    RefusalKind,
    Refused,
    RunLifecycle,
    Snapshot,
    Submit,
    Tick,
)

C = TypeVar("C")


def call(call_id: str = "call_1", name: str = "f", arguments: str = "{}", kind: CallKind = CallKind.FUNCTION) -> Call:
    return Call(id=call_id, name=name, arguments=arguments, kind=kind)


def snapshot(phase: Phase, *calls: Call, status: str = "", **facts: Any) -> Snapshot[str]:
    return Snapshot(phase=phase, status=status or phase.value, resource="run", calls=calls, **facts)


class Driver:
    """A lifecycle with a clock. Methods that feed an event return the resulting commands."""

    def __init__(self, given: Snapshot[Any] | None = None, **policy: Any) -> None:
        self.now = 100.0
        self.machine = RunLifecycle(Policy(**policy))
        self.all: list[Command] = []
        self.calls: dict[str, Call] = {}  # the last call seen with each id
        self.began = self.feed(Begun(self.now, given))

    def feed(self, event: Event) -> list[Command]:
        commands = self.machine.receive(event)
        assert pick(commands, Finish) in ([], commands[-1:]), "no command may follow a Finish"
        self.all += commands
        return commands

    def sees(
        self,
        phase: Phase,
        *calls: Call,
        asked: Asked = Asked.POLL,
        asked_at: float | None = None,
        is_announced: bool = False,
        **facts: Any,
    ) -> list[Command]:
        self.calls |= {one.id: one for one in calls}
        return self.feed(Observed(self.now, snapshot(phase, *calls, **facts), asked, asked_at, is_announced))

    def sees_twice(self, phase: Phase, *calls: Call, **facts: Any) -> list[Command]:
        """Feed the same poll twice: one alone may be an old answer, which the machine does not act on."""
        first = self.sees(phase, *calls, **facts)
        assert not any(isinstance(command, Submit | Finish) for command in first)
        return self.sees(phase, *calls, **facts)

    def refused(
        self, kind: RefusalKind, *, asked: Asked = Asked.POLL, cause: Exception | None = None, **facts: Any
    ) -> list[Command]:
        refusal = Refusal(kind=kind, cause=cause or RuntimeError(kind.value), **facts)
        return self.feed(Refused(self.now, refusal, asked))

    def answers(self, **outputs: str) -> list[Command]:
        """Feed outputs of tools."""
        return self.feed(CallsAnswered(self.now, tuple((self.calls[one], output) for one, output in outputs.items())))

    def provides(self, **outputs: str) -> list[Command]:
        """Feed outputs from the caller."""
        return self.feed(OutputsProvided(self.now, tuple(outputs.items())))

    def unanswered(self, *call_ids: str, cause: Exception | None = None) -> list[Command]:
        return self.feed(CallsUnanswered(self.now, tuple(self.calls[one] for one in call_ids), cause))

    def cancels(self) -> list[Command]:
        return self.feed(CancelAsked(self.now))

    def passes(self, seconds: float) -> list[Command]:
        self.now += seconds
        return self.feed(Tick(self.now))

    def of(self, kind: type[C]) -> list[C]:
        """Return all commands of a kind so far."""
        return pick(self.all, kind)


def pick(commands: list[Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def end_of(commands: list[Command]) -> End:
    (finish,) = pick(commands, Finish)
    return finish.end


def pause_of(commands: list[Command], now: float) -> float:
    """Return the seconds to the next poll."""
    return pick(commands, PollAt)[-1].not_before - now
