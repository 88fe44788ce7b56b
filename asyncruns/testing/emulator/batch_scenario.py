"""What a batch does: a value that a test states. The same course is shown on both wires."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_ENDS: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_DURATIONS: Final = ("validating", "working", "finalizing", "cancelling", "lifetime", "results_lag")

BatchAnswers = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Returns the body of the response to a request; its arguments are the custom id and the body of the request."""
Chosen = Collection[str] | Callable[[str], bool]
"""Custom ids, or a function that returns whether one is chosen."""


@dataclass(frozen=True, kw_only=True)
class BatchScenario:
    """The course of one batch, on OpenAI's wire or on Anthropic's; durations are in seconds.

    ::

        validating -> in_progress -> finalizing -> completed | expired;  validating -> failed
        any of these -(cancel)-> cancelling -> cancelled

    Anthropic's wire shows "in_progress" until the end, which is "ended" whatever it was. A batch whose input file is
    not valid fails after `validating`, whatever its scenario says.

    A cancel takes `cancelling` seconds. If the batch's own end comes sooner, the batch ends that way.

    Attributes:
        validating, working, finalizing: Time in each status.
        end: "completed", "failed" (after `validating`; on Anthropic's wire each request has an error instead),
            "expired" (`lifetime` after creation), or "cancelled" (after `working`, by someone else than the client).
        errors: The errors of a batch that fails, mappings with `code`, `message`, `param` and `line`.
        answers: Called for each request that is answered; by default the answers repeat the input.
        failing: The requests that are answered with status 400, in the error file: custom ids, or a function of the
            custom id.
        lost: The requests that are in no file although they count as completed: custom ids, or a function of the custom
            id.
        share: The part of the requests that are done when the batch expires or is cancelled, from 0 to 1; more, if
            more were done when the cancel came. The others have an error of their own in the error file.
        cancelling: Time from the cancel to `cancelled`.
        lifetime: Time from creation to `expires_at`.
        results_lag: Time after the end in which the ids of the files, or the URL of the results, are still missing.
        most_enqueued: If more requests than these are in batches that have not ended, this one among them, the batch
            fails with `token_limit_exceeded`; None means no limit.
        empty_file_ids: Whether files that do not exist have the id "" in place of null.
        null_counts: Whether the counts are null while the batch is validated.
        body_as_text: Whether the body of each response in the output file is a string of JSON.
        bare_times: Whether all times but `created_at` and `completed_at` are null.

    Raises:
        ValueError: If a field is out of range.
    """

    validating: float = 1.0
    working: float = 2.0
    finalizing: float = 0.5
    end: str = "completed"
    errors: Sequence[Mapping[str, Any]] = ()
    answers: BatchAnswers | None = None
    failing: Chosen = ()
    lost: Chosen = ()
    share: float = 0.5
    cancelling: float = 0.2
    lifetime: float = 86_400.0
    results_lag: float = 0.0
    most_enqueued: int | None = None
    empty_file_ids: bool = False
    null_counts: bool = False
    body_as_text: bool = False
    bare_times: bool = False

    def __post_init__(self) -> None:
        if self.end not in _ENDS:
            raise ValueError(f"end is {self.end!r}; give one of {sorted(_ENDS)}")
        for name in _DURATIONS:
            if not getattr(self, name) >= 0:  # `not >=`, so that NaN is refused as well
                raise ValueError(f"{name} is {getattr(self, name)!r}; give seconds, 0 or more")
        if math.isinf(self.lifetime):
            raise ValueError("lifetime is infinite; give a finite number of seconds, since expires_at is on the wire")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share!r}; give a number from 0 to 1")
        for name in ("failing", "lost"):
            chosen = getattr(self, name)
            if chosen and isinstance(chosen, str):  # `"a" in "banana"` would be true
                raise ValueError(f"{name} is {chosen!r}; give a collection of custom ids, or a function")
        if self.errors and self.end != "failed":
            raise ValueError("errors are of a batch that fails; give end='failed'")


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A request for a new batch, for functions that choose its scenario.

    Attributes:
        endpoint: The path that its requests are for.
        model: The model of its first request; "" without one.
        total: The number of its requests.
        number: How many batches there were before.
    """

    endpoint: str
    model: str = ""
    total: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    number: int = 0


BatchSource = BatchScenario | Callable[[BatchRequest], BatchScenario]


class BatchScripts:
    """Chooses the scenario of each new batch; that of the last script is for all batches after it."""

    def __init__(self, *sources: BatchSource) -> None:
        self._sources = list(sources)

    def choose(self, request: BatchRequest) -> BatchScenario:
        """Return the scenario of the next batch."""
        source = self._sources.pop(0) if len(self._sources) > 1 else self._sources[0]
        return source if isinstance(source, BatchScenario) else source(request)


def chooses(chosen: Chosen, custom_id: str) -> bool:
    """Return whether a custom id is among those chosen."""
    return chosen(custom_id) if callable(chosen) else custom_id in chosen
