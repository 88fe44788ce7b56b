"""Reads the trace context of the caller, if the program has loaded OpenTelemetry. Imports nothing of it."""

from __future__ import annotations

import contextlib
import sys


def current_traceparent() -> str:
    """Return the current span as a W3C `traceparent`; "" if there is none. Never raises."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    with contextlib.suppress(Exception):  # a version that we do not know, or one that is being imported
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return ""
