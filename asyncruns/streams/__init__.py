"""The streams of runs and responses, and what their events come to.

Public: `run_stream.RunStream`, `response_stream.ResponseStream`, `event_handler.AssistantEventHandler`, and
`event_stream.EventStream`, the base of both streams. All else is internal: behind each stream is an `EventSource`
(`source.py`), which a watch takes over.

Nothing is imported here, since most programs do not stream: `event_stream.py` alone is light, and the other modules
load the events of the wire.
"""
