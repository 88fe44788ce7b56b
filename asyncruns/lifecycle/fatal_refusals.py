"""What it means for the watch that a poll or a submit was refused for good, as tables.

`_poll_refused` and `_submit_refused` of the machine act by them. Refusals of a cancel are in `cancelling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asyncruns.lifecycle.commands import EndKind, Reason
from asyncruns.lifecycle.values import RefusalKind

# What a poll that was refused for good says of the watch. The rest passes, and is waited out.
FATAL_POLLS: Final[Mapping[RefusalKind, Reason]] = {
    RefusalKind.UNREACHABLE: Reason.UNREACHABLE,
    RefusalKind.UNAUTHORIZED: Reason.UNAUTHORIZED,
    RefusalKind.QUOTA_SPENT: Reason.QUOTA_SPENT,
    RefusalKind.REJECTED: Reason.REJECTED,
    RefusalKind.NOT_ACCEPTING: Reason.REJECTED,
    RefusalKind.ALREADY_OVER: Reason.REJECTED,
    RefusalKind.BUSY: Reason.REJECTED,
    RefusalKind.UNSUPPORTED: Reason.REJECTED,
}

# What a submit that was refused for good says of the watch. Other refusals may have come too late: polls tell.
FATAL_SUBMITS: Final[Mapping[RefusalKind, tuple[EndKind, Reason]]] = {
    RefusalKind.UNREACHABLE: (EndKind.NEEDS_CALLER, Reason.UNREACHABLE),
    RefusalKind.UNAUTHORIZED: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.QUOTA_SPENT: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.NOT_READY: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.NOT_FOUND: (EndKind.GAVE_UP, Reason.GONE),
}
# Those of them that say that nothing was done, and that may pass: a replica that has not stored the run yet, a lock.
# The same outputs are sent again for `SUBMIT_GRACE_S` before the refusal is believed.
TOO_EARLY: Final = (RefusalKind.NOT_READY, RefusalKind.NOT_FOUND)
