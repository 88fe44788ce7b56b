"""What differs between servers: one module for each wire, and what callers give for a run, or for a client.

Public: `responses.ResponsesDialect`, `thread_run.ThreadRunDialect`.
"""
