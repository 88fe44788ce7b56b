"""The shell around the lifecycle of one run: it polls, answers tool calls, submits, cancels, and calls observers.

Public: `outcome.AnyOutcome`, `outcome.Outcome` and its subclasses, `observers.Ended`, `watcher.RunWatcher`. The
modules:

watcher          what a caller enters, waits on and leaves; to_outcome: all of that in one call
engine           executes the commands of the lifecycle: polls, submits, cancels, starts tools
options          the options of a watch, and their checks
requests         sends one request, and returns its result as an event
call_answerer    has the calls of a round answered: by handlers first, then by the toolset
recorder         writes into a journal which calls begin, their outputs, and each submit
begin_recording  how that begins: anew, with a token, or with what was left
holders          what watches which run with a journal, and what other processes ask of it
resume           takes up what a journal has of single watches; recorded_end: how a run that is gone had ended
handover         texts with which another process goes on with a watch; traces: the trace context of the caller
stream_follower  reads the streams of the run; stream_buffer: holds their events for the reader
stream_reopener  reopens a broken stream
subscribers      passes the events on to any number of subscribers
observers        calls observers, and delivers events to readers
outcome          how a watch finished, and the text of that; parsed: the text as a value
outcome_clients  what an outcome needs of a client; reconciliation: the results of a batch beside its requests
logs             what is logged of a watch, for a fleet as well
open_watches     which watches closing the client waits for; create_guard: a create whose caller is cancelled

How long leaving waits is defined in `_loop.py`.
"""
