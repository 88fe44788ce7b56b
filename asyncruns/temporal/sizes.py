"""What fits into a payload of Temporal. An activity must check its result, since one that is refused is tried forever.

A codec or an external storage of the user's own says what fits; it can't be seen in a workflow, so reports tell it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from temporalio import activity
from temporalio.exceptions import ApplicationError

from asyncruns.errors import InvalidRequestError
from asyncruns.temporal.messages import CallJob, CallResult, RunReport, WatchJob
from asyncruns.tools.results import error_output

LARGEST_PAYLOAD: Final = 2_000_000
"""Bytes; Temporal refuses payloads of more than 2 MiB, in which there are a few other fields."""
MOST_OUTPUTS: Final = 1_900_000
"""Bytes that the outputs of a round may have: they are submitted with what else is known of the run."""
LARGEST_HISTORY_INPUT: Final = 1_800_000
"""Bytes of what a new history of a shard begins with."""
LARGEST_PIECE: Final = 500_000
"""Bytes of a piece of a list that is passed on in pieces; the SDK of Temporal warns from 512 KiB on."""
LARGEST_REPORT: Final = 700_000
"""Bytes of the report of a run of a shard, which has the arguments of its calls twice."""
LARGEST_OUTPUTS: Final = 600_000
"""Bytes of all outputs of a round in a shard: what tells `on_outcome` of them has them twice, beside such a report."""
ADVICE: Final = (
    "give the client of Temporal a payload codec that compresses, or external storage "
    "(temporalio.converter.ExternalStorage)"
)


def json_size(value: Any) -> int:
    """Return the size of a value as JSON, in bytes."""
    return len(msgspec.json.encode(value))


def first_piece(values: Sequence[Any], most: int = LARGEST_PIECE) -> int:
    """Return how many of the values, from the first one on, have no more bytes than this; at least one."""
    total = 0
    for number, value in enumerate(values):
        total += json_size(value)
        if number and total > most:
            return number
    return len(values)


# In workflows


def check_fits(job: WatchJob) -> WatchJob:
    """Return a job, if Temporal takes it.

    Raises:
        InvalidRequestError: It is larger than a payload may be.
    """
    if (size := json_size(job)) > LARGEST_PAYLOAD:
        raise InvalidRequestError(
            f"The run {job.token.ref} has {size} bytes with its outputs, and Temporal takes {LARGEST_PAYLOAD} in a "
            f"payload: return less, or {ADVICE}"
        )
    return job


# In activities


def fitting(result: CallResult, job: CallJob) -> CallResult:
    """Return a result; an error in its place if it is larger than its share of a payload."""
    most = math.inf if is_unlimited() else MOST_OUTPUTS
    room = min(most, math.inf if job.room is None else job.room) / max(job.among, 1)
    size = json_size(result.output)
    if size <= room:
        return result
    told = (
        f"The output of {job.call.name[:64]} has {size} bytes, which is more than the {room:.0f} that can be passed "
        "on. Ask for less."
    )
    return CallResult(output=error_output(told), failed=True)


def checked_report(report: RunReport) -> RunReport:
    """Return a report, with whether there is a limit for the outputs of its calls.

    Raises:
        ApplicationError: It is larger than a payload may be.
    """
    check_result(report, "The run with its outputs")
    return replace(report, is_limited=not is_unlimited())


def check_result(result: Any, what: str) -> None:
    """Check that the result of an activity can be passed on.

    Args:
        result: The result.
        what: What it is, for the message.

    Raises:
        ApplicationError: It is larger than a payload may be.
    """
    if is_unlimited() or (size := json_size(result)) <= LARGEST_PAYLOAD:
        return
    raise ApplicationError(
        f"{what} has {size} bytes, and Temporal takes {LARGEST_PAYLOAD} in a payload: {ADVICE}",
        type=InvalidRequestError.__name__,
        non_retryable=True,
    )


def is_unlimited() -> bool:
    """Return whether a codec or a storage of the user's own decides what fits."""
    converter = activity.client().data_converter
    return converter.payload_codec is not None or converter.external_storage is not None
