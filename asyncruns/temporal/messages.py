"""What workflows and activities send each other, as values: these structs are in histories, as JSON.

A field may be added with a default, and none may be renamed or removed: a workflow that began with an older version
goes on with this one. No value here may hold a credential.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from asyncruns.lifecycle import Call, RunRef, TokenUsage
from asyncruns.watch.handover import Token

WATCH: Final = "asyncruns.watch"
FOLLOW_UP: Final = "asyncruns.follow_up"
CANCEL: Final = "asyncruns.cancel"
CALL: Final = "asyncruns.call"
IF_INTERRUPTED: Final = "asyncruns.interrupted"
CREATE_THREAD: Final = "asyncruns.create_thread"
CREATE: Final = "asyncruns.create"
FETCH_MESSAGES: Final = "asyncruns.messages"
WATCH_SHARD: Final = "asyncruns.watch_shard"
ADD_TO_SHARD: Final = "asyncruns.add_to_shard"
CANCEL_MANY: Final = "asyncruns.cancel_many"
TELL: Final = "asyncruns.tell"
SHARD: Final = "asyncruns.Shard"
"""The name of the workflow of a shard; those above are names of activities."""

ANSWER: Final = "asyncruns.answer"
"""The name of the update with which a person answers a call."""
OPEN_CALLS: Final = "asyncruns.open_calls"
"""The name of the query for the calls that wait for people."""
STATE: Final = "asyncruns.state"
"""The name of the query for the state of a shard."""

NO_TOOLSET: Final = "ToolsetMissing"
"""The type of the failure of a call that did not begin, as its worker does not have the toolset."""
NOT_BEGUN: Final = "CallNotBegun"
"""The type of the failure of a call that did not begin, as `context_factory` has raised."""
NOT_OVER: Final = "NotOver"
"""The type of the failure of a cold poll whose run goes on."""
WORKER_STOPS: Final = "WorkerStops"
"""The type of the failure of a watch that another worker goes on with."""
TAKEN_OVER: Final = "TakenOver"
"""The type of the failure of an activity whose watch another one of the workflow has ended."""
SHARD_NOT_HERE: Final = "ShardNotHere"
"""The type of the failure of an activity that its worker does not have the fleet for."""


class WatchJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run to watch until it ends, or needs the caller.

    Attributes:
        token: The run, with the outputs that are to be submitted.
        options: Options of `Fleet.watch`, as JSON.
        give_up_at: When the watch gives up, in seconds since the epoch; None if the server's expiry decides.
        is_cold: Whether an attempt that is a single poll ends, and the next one begins when the next poll is due.
        heartbeat: The heartbeat timeout, in seconds.
    """

    token: Token
    options: dict[str, Any] = {}
    give_up_at: float | None = None
    is_cold: bool = False
    heartbeat: float = 30.0


class ShardRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of a shard.

    Attributes:
        key: Identifies it in the shard, also when it goes on as another run.
        turn: How many times the workflow has passed it on to a fleet with new outputs. A report with an earlier turn
            is old: its calls were answered.
        token: What is known of it.
        rounds: Number of rounds that were answered.
    """

    key: str
    token: Token
    turn: int = 0
    rounds: int = 0


class RunReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an activity has found.

    Attributes:
        outcome: How its watch finished: `to_dict()` of the outcome. None if it did not, as the run has moved on.
        token: What to go on with; None if the run has ended.
        answer_by: When its calls must be answered so that it does not expire, in seconds since the epoch; None if
            there is no limit.
        used: The tokens that the run of the outcome has used, without those of runs that it follows.
        is_limited: Whether the outputs of a round may have `MOST_OUTPUTS` bytes at most.
        run: The run of the shard that it is about; None outside of a shard.
    """

    outcome: dict[str, Any] | None = None
    token: Token | None = None
    answer_by: float | None = None
    used: TokenUsage = TokenUsage()
    is_limited: bool = False
    run: ShardRun | None = None


class CallJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call to answer.

    Attributes:
        call: The call.
        ref: The ref of its run.
        toolset: The name of the toolset; "" for the one without a name.
        label: The label of the watch.
        metadata: The metadata of the run.
        among: How many calls share the room for outputs.
        room: How many bytes their outputs may have together; None if there is no limit.
        heartbeat: The heartbeat timeout, in seconds.
    """

    call: Call
    ref: RunRef
    toolset: str = ""
    label: Any = None
    metadata: dict[str, Any] = {}
    among: int = 1
    room: int | None = None
    heartbeat: float = 30.0


class CallResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a call.

    Attributes:
        output: Its output; None if it is left to the caller, or is to run again after an interruption.
        failed: Whether the output is an error of ours.
        cause: Why it is left to the caller; "" if it is not.
    """

    output: str | None = None
    failed: bool = False
    cause: str = ""


class ThreadJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thread to create.

    Attributes:
        heartbeat: The heartbeat timeout, in seconds.
    """

    heartbeat: float = 30.0


class CreateJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run to create.

    Attributes:
        request: What `Client.run` takes, without the options of the watch.
        toolset: The name of the toolset; "" for the one without a name, None for none.
        label: The label of the watch.
        heartbeat: The heartbeat timeout, in seconds.
    """

    request: dict[str, Any]
    toolset: str | None = ""
    label: Any = None
    heartbeat: float = 30.0


class ShardJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The runs of a shard to watch, until some have ended or need the caller.

    Attributes:
        shard: Names the fleet of the shard.
        runs: The runs to watch with a new fleet; None if the worker has that of the shard.
        options: Options of `Fleet.watch`, as JSON, for all runs.
        per_second: The share of the budget of requests; None for no limit.
        gather: Seconds for which changes are gathered, from the first one.
        at_most: Seconds after which the activity ends in any case.
        heartbeat: The heartbeat timeout, in seconds.
    """

    shard: str
    runs: list[ShardRun] | None = None
    options: dict[str, Any] = {}
    per_second: float | None = None
    gather: float = 1.0
    at_most: float = 600.0
    heartbeat: float = 10.0


class ShardReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has changed in a shard.

    Attributes:
        reports: Of runs that have ended, or need the caller; without their bodies, but for the metadata of the latter.
        host: The task queue of the worker that has the fleet.
        polls: Number of polls that this fleet has sent so far.
        settled: Keys and turns of runs that have gone on with the outputs that they were given.
    """

    reports: list[RunReport] = []
    host: str = ""
    polls: int = 0
    settled: list[tuple[str, int]] = []


class EndedRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the watch of a run of a shard has finished.

    Attributes:
        ref: The ref of the run.
        outcome: The name of the outcome's class, such as "Completed".
        status: The last status that was seen.
        at: When it was noticed, in seconds since the epoch.
        reason: Why the watch finished before the run ended, as the value of a `Reason`; "" if the run ended.
        error: The server's error as `{"code": ..., "message": ...}`, if the run ended badly; the message cut at 200
            characters.
        cause: The error that led to this outcome, in at most 200 characters; "" for none.
        token: Goes on with the watch, if the run has not ended: see `Client.watch`. None also if it is larger than 2
            kB, or the shard has many; `on_outcome` got it.
    """

    ref: RunRef
    outcome: str
    status: str = ""
    at: float = 0.0
    reason: str = ""
    error: dict[str, Any] | None = None
    cause: str = ""
    token: Token | None = None


class Shard(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the workflow of a shard begins with, or goes on with in a new history.

    Attributes:
        runs: The runs that are watched.
        tools: The name of the toolset that answers calls; None for no tools.
        people: Names of functions whose calls people answer.
        options: Options of `Fleet.watch`, as JSON, for all runs.
        on_exit: "cancel" if the runs are cancelled with the workflow.
        max_rounds: As for `watch`.
        per_second: The share of the budget of requests; None for no limit.
        gather: Seconds for which changes are gathered.
        heartbeat: The heartbeat timeout, in seconds.
        total: The number of runs that the shard began with.
        ended: The runs whose watches have finished.
        again: Keys of the runs that the fleet does not watch at the moment.
        host: The task queue of the worker that has the fleet; "" if there is none.
        polls: Number of polls that earlier fleets have sent.
    """

    runs: list[ShardRun]
    tools: str | None = ""
    people: list[str] = []
    options: dict[str, Any] = {}
    on_exit: str = "leave"
    max_rounds: int | None = None
    per_second: float | None = None
    gather: float = 1.0
    heartbeat: float = 10.0
    total: int = 0
    ended: list[EndedRun] = []
    again: list[str] = []
    host: str = ""
    polls: int = 0


class ShardState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a shard has come; its result, too.

    Attributes:
        ended: The runs whose watches have finished; those from a number on, if a query asks for these.
        open: Number of runs that are still watched.
        polls: Number of polls sent.
    """

    ended: list[EndedRun] = []
    open: int = 0
    polls: int = 0


class OpenCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that waits for a person.

    Attributes:
        call: The call, with its name and arguments.
        ref: The ref of its run.
        label: The label of the watch.
        asked_at: Since when it waits, in seconds since the epoch.
        number: Its number among the calls that have waited in the workflow, from 0 on.
    """

    call: Call
    ref: RunRef
    label: Any = None
    asked_at: float = 0.0
    number: int = 0


class PersonsAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person answers.

    Attributes:
        call_id: The id of the call.
        output: The text of its output.
        run: The ids of its run; empty if only one call that waits has this id.
    """

    call_id: str
    output: str
    run: tuple[str, ...] = ()
