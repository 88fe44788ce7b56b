"""Streams of runs and responses, and the accumulators that put their events together.

Public: `run_stream.RunStream`, `response_stream.ResponseStream`, `event_handler.AssistantEventHandler`, and
`event_stream.EventStream`, the base class of both streams. Everything else is internal. A broken stream is reopened by
the watch that reads it (`watch/stream_reopener.py`). The modules:

event_stream          the public base class; run_stream, response_stream: the streams that callers hold
source                what a stream reads from, and a watch can take over; run_source, response_source: for each wire
event_reader          the body of one HTTP response as server-sent events; `progress`: how far the stream has come
opening               the requests for a stream, and which responses are one
repeats               which events of a reopened stream are new
run_accumulator       the run, its messages and its steps from the events so far; `merging`: the rules for deltas
response_accumulator  the response from the events so far
event_handler         `AssistantEventHandler`; `callbacks`: which of its methods an event calls
stream_errors         the errors of streams that failed or ended too early

This package must not import its modules, since most programs do not stream: only `event_stream.py` is cheap to import;
the others load the event types of the wire.
"""
