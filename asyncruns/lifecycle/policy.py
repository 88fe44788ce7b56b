"""What the caller chooses for a watch, with the defaults of all that it leaves open."""

from __future__ import annotations

import math
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

from asyncruns.cadence.cadence import Cadence

WAIT_WITHOUT_EXPIRY_S: Final = 900.0
AFTER_EXPIRY_S: Final = 60.0  # how long the default wait goes on after the expiry: servers are late to notice it
MAX_OUTAGE_S: Final = 120.0
# How long polls may show that the run goes on although the server accepted the cancel. A cancel that reopens a
# finished watch has at least this time.
CANCEL_BOUND_S: Final = 60.0
MAX_ROUNDS: Final = 50  # far more than a useful agent needs, and few enough to bound the cost of one that never stops


class Policy(Struct, frozen=True, kw_only=True):
    """The caller's choices for a watch.

    Attributes:
        timeout: Seconds for the whole wait; None means for ever. UNSET means until `after_expiry` seconds after the
            run's expiry by the server's clock, or for `without_expiry` seconds if no expiry is known.
        without_expiry: See `timeout`: the longest that runs of this kind usually take.
        after_expiry: See `timeout`: how late servers may notice the expiry.
        max_outage: Seconds for which requests may fail in a row before the watch gives up; None means no limit.
        max_unknown_status: Seconds for which a status unknown to this version may stay before the watch gives up; None
            means no limit.
        on_lost_submit: What to do if the answer to a submit is lost: "poll" if a poll shows whether the submit was
            accepted; if none can, "give_up", or "resend" the same outputs.
        keep_tool_choice: Whether a `tool_choice` that forces a call stays for every round, not for the first only.
        max_rounds: Number of rounds after which the watch leaves the next one to the caller; None means no limit.
        observe_only: Whether another process answers the calls of the run, so that the watch goes on past them.
        cadence: The pauses between polls.
        cancel_bound: Seconds for which polls may show that the run goes on although the server accepted a cancel.
    """

    timeout: float | UnsetType | None = UNSET
    without_expiry: float = WAIT_WITHOUT_EXPIRY_S
    after_expiry: float = AFTER_EXPIRY_S
    max_outage: float | None = MAX_OUTAGE_S
    max_unknown_status: float | None = 60.0
    on_lost_submit: Literal["poll", "give_up", "resend"] = "poll"
    keep_tool_choice: bool = False
    max_rounds: int | None = MAX_ROUNDS
    observe_only: bool = False
    cadence: Cadence = Cadence.hinted()
    cancel_bound: float = CANCEL_BOUND_S

    @property
    def unknown_s(self) -> float:
        """`max_unknown_status` as a number of seconds; infinity for no limit."""
        return math.inf if self.max_unknown_status is None else self.max_unknown_status
