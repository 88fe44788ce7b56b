"""The life of a watched run without I/O: tables, events, commands, and the machine between them.

Public: the names of `__all__`. The modules:

phases          what a run can be, at the server and for us
values          calls, snapshots and refusals, in words that fit every server
events          what the machine is told
commands        what it asks its shell to do; how and why a watch ends
notices         what it reports meanwhile
machine         what it does at each event
moves           what may come of that, as a table: tests hold the machine to it
fatal_refusals  which refusals of polls and submits end the watch
ledger          calls and rounds of them: what was handed out, answered and sent
cancelling      how far a cancel has come, and what its refusals mean
patience        the policy; deadline, outages, and when to poll next
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
    EndRevoked,
    Notice,
    OutputsSubmitted,
    StatusChanged,
    StreamBroken,
)
from asyncruns.lifecycle.patience import Policy
from asyncruns.lifecycle.phases import OBSERVABLE, STEPS, TERMINAL, Phase, State
from asyncruns.lifecycle.values import (
    Answers,
    Asked,
    Call,
    CallKind,
    Outputs,
    Refusal,
    RefusalKind,
    RunFault,
    RunRef,
    Snapshot,
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
    "End",
    "EndKind",
    "EndRevoked",
    "Event",
    "Finish",
    "Notice",
    "Observed",
    "Outputs",
    "OutputsProvided",
    "OutputsSubmitted",
    "Phase",
    "Policy",
    "PollAt",
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
    "Tick",
    "approval_of",
]
