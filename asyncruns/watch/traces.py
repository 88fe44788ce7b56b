"""Reads the trace context of the caller, if the program has loaded OpenTelemetry. Imports nothing of it."""

from __future__ import annotations

import sys


def current_traceparent() -> str:
    """Return the current span as a W3C `traceparent`; "" if there is none. Never raises."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    try:
        span = trace.get_current_span().get_span_context()
        return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else ""
    except Exception:  # a version that we do not know, or half imported
        return ""
