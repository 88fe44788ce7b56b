"""What differs between servers: one module for each wire, error responses, and what callers pass for a run or a client.

Public: `responses.ResponsesDialect`, `thread_run.ThreadRunDialect`. Nothing here does I/O. The modules:

thread_run     the wire of threads: paths, what each status means (`RUN_PHASES`), calls, submits
responses      the wire of background responses (`RESPONSE_PHASES`), and the follow-ups that continue one
batches        the wire of batches; message_batches: that of Anthropic's; any_batch: what both share
request_lines  the lines of a file of requests for a batch; result_lines: those of its results
errors         what an error response means on every wire: the refusal, and the exception
given          what callers pass for a run or for a client, and the mistakes that are named

A further wire needs a `Dialect` here and its structs in `wire/`; a name in `wire/names.py`, and its refs in
`given.py`; a `RunClient` (as `resources/response_client.py` has one) that `Client.for_run` returns; if it streams, an
`EventSource` in `streams/`. The guide `examples/guides/dialects.md` builds one outside of this package.
"""
