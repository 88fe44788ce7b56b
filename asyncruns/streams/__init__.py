"""Streams of runs and responses, and the accumulators that put their events together.

Public: `run_stream.RunStream`, `response_stream.ResponseStream`, `event_handler.AssistantEventHandler`, and
`event_stream.EventStream`, the base class of both streams. Everything else is internal: each stream reads from an
`EventSource` (`source.py`), which a watch can take over.

This package must not import its modules, since most programs do not stream: only `event_stream.py` is cheap to import;
the others load the event types of the wire.
"""
