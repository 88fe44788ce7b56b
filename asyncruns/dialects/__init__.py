"""What differs between servers: one module for each wire, error responses, and what callers pass for a run or a client.

Public: `responses.ResponsesDialect`, `thread_run.ThreadRunDialect`. Nothing here does I/O.
"""
