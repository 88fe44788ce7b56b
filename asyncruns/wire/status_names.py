"""The documented statuses of runs and responses. Servers may send others: compare with these, and expect more.

A status means something only where a dialect says so: `RUN_PHASES` in `dialects/thread_run.py`, `RESPONSE_PHASES` in
`dialects/responses.py`. One that ends a run also belongs into `ENDED_STATUSES`, which streams go by.
"""

from __future__ import annotations

from typing import Final

QUEUED: Final = "queued"
IN_PROGRESS: Final = "in_progress"
REQUIRES_ACTION: Final = "requires_action"
CANCELLING: Final = "cancelling"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
EXPIRED: Final = "expired"
# Of batches
VALIDATING: Final = "validating"
FINALIZING: Final = "finalizing"
# Of message batches, as Anthropic spells them
CANCELING: Final = "canceling"
ENDED: Final = "ended"

ENDED_STATUSES: Final = frozenset({COMPLETED, FAILED, CANCELLED, EXPIRED, INCOMPLETE})
"""The statuses of a run, a step, a message or a response that has ended."""
