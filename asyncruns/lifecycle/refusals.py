"""Tables of the refusals of polls and submits that will not pass, and how the watch then finishes.

`_poll_refused` and `_submit_refused` of the machine use them. Refusals of a cancel are in `cancelling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asyncruns.lifecycle.commands import EndKind, Reason
from asyncruns.lifecycle.values import RefusalKind

# A poll refused like this ends the watch with this reason. After other refusals, the watch polls again.
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

# A submit refused like this ends the watch like this. After other refusals the run may have gone on, which polls show.
FATAL_SUBMITS: Final[Mapping[RefusalKind, tuple[EndKind, Reason]]] = {
    RefusalKind.UNREACHABLE: (EndKind.NEEDS_CALLER, Reason.UNREACHABLE),
    RefusalKind.UNAUTHORIZED: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.QUOTA_SPENT: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.NOT_READY: (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED),
    RefusalKind.NOT_FOUND: (EndKind.GAVE_UP, Reason.GONE),
}
# Some of these mean that nothing was done and may pass: a replica that has not stored the run yet, or a lock. The same
# outputs are sent again for `SUBMIT_GRACE_S` (15 s) before such a refusal is believed.
TOO_EARLY: Final = (RefusalKind.NOT_READY, RefusalKind.NOT_FOUND)
