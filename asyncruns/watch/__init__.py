"""The shell around one run: it polls, has calls answered, submits, cancels, and tells observers.

Public: `outcome.AnyOutcome`, `outcome.Outcome` and its subclasses, `observers.Ended`, `watcher.RunWatcher`.
"""
