"""A profile of Hypothesis for mutation runs (`.ci/mutate`): few examples, always the same."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mutation", max_examples=10, derandomize=True, database=None)
