"""The shell around the lifecycle of one run: it polls, answers tool calls, submits, cancels, and calls observers.

Public: `outcome.AnyOutcome`, `outcome.Outcome` and its subclasses, `observers.Ended`, `watcher.RunWatcher`.
"""
