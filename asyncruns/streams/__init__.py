"""The streams of runs and responses, and what their events come to.

Public are `RunStream` (`run_stream.py`), `ResponseStream` (`response_stream.py`), `AssistantEventHandler`
(`event_handler.py`), and `EventStream` (`event_stream.py`), the base of both streams. All else is internal: behind each
stream is an `EventSource` (`source.py`), which a watch takes over.

Nothing is imported here, since most programs do not stream: `event_stream.py` alone is light, and the other modules
load the events of the wire.
"""
