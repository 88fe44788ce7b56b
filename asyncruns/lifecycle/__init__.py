"""The lifecycle of a watched run, without I/O: tables, events, commands, and the state machine.

Nothing here may do I/O, read a clock or start a task: a shell does that.

Public: the names of `__all__`. The modules:

phases          the phases of a run at the server, and the states of a watch
values          calls, snapshots and refusals, in terms that fit every server
run_shapes      recognizes runs in the objects that callers have, by their attributes or keys
events          what the machine receives
commands        what the machine asks its shell to do; how and why a watch finishes
notices         what the machine reports to observers while the watch goes on
machine         the state machine: what it does on each event
moves           the state changes that each event may cause, as a table that the tests check
refusals        which refusals of polls and submits finish the watch, and which are too early; the machine does the rest
ledger          calls and rounds: what was handed out, answered and sent
cancelling      how far a cancel has come, and what its refusals mean
policy          what the caller chooses, and the defaults
patience        the deadline, outages, and when to poll next
expiry          which expiry of a run is believed
progress        how far a run has come in its stage, for the cadence
"""

from asyncruns.lifecycle.commands import (
    Cancel,
    Command,
    End,
    EndKind,
    Finish,
    PollAt,
    Reason,
    Report,
    RunTools,
    StopTools,
    Submit,
)
from asyncruns.lifecycle.events import (
    Begun,
    CallsAnswered,
    CallsUnanswered,
    CancelAsked,
    Event,
    Observed,
    OutputsProvided,
    Refused,
    StreamBegun,
    StreamEnded,
    Tick,
)
from asyncruns.lifecycle.machine import RunLifecycle
from asyncruns.lifecycle.moves import MOVES
from asyncruns.lifecycle.notices import (
    ActionRequired,
    CallAnswered,
    CallsLeftToServer,
    CancelRefused,
    Connectivity,
    ConnectivityChanged,
    CurrentState,
    EndRevoked,
    Gap,
    Notice,
    OutputsSubmitted,
    ProgressChanged,
    StatusChanged,
    StreamBroken,
    TextAdded,
    ToolReported,
)
from asyncruns.lifecycle.phases import OBSERVABLE, STEPS, TERMINAL, Phase, State
from asyncruns.lifecycle.policy import Policy
from asyncruns.lifecycle.values import (
    Answers,
    Asked,
    Call,
    CallKind,
    Counts,
    Outputs,
    Refusal,
    RefusalKind,
    RunFault,
    RunRef,
    Snapshot,
    TokenUsage,
    approval_of,
)

__all__ = [
    "MOVES",
    "OBSERVABLE",
    "STEPS",
    "TERMINAL",
    "ActionRequired",
    "Answers",
    "Asked",
    "Begun",
    "Call",
    "CallAnswered",
    "CallKind",
    "CallsAnswered",
    "CallsLeftToServer",
    "CallsUnanswered",
    "Cancel",
    "CancelAsked",
    "CancelRefused",
    "Command",
    "Connectivity",
    "ConnectivityChanged",
    "Counts",
    "CurrentState",
    "End",
    "EndKind",
    "EndRevoked",
    "Event",
    "Finish",
    "Gap",
    "Notice",
    "Observed",
    "Outputs",
    "OutputsProvided",
    "OutputsSubmitted",
    "Phase",
    "Policy",
    "PollAt",
    "ProgressChanged",
    "Reason",
    "Refusal",
    "RefusalKind",
    "Refused",
    "Report",
    "RunFault",
    "RunLifecycle",
    "RunRef",
    "RunTools",
    "Snapshot",
    "State",
    "StatusChanged",
    "StopTools",
    "StreamBegun",
    "StreamBroken",
    "StreamEnded",
    "Submit",
    "TextAdded",
    "Tick",
    "TokenUsage",
    "ToolReported",
    "approval_of",
]
