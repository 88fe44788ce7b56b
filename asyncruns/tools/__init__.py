"""The functions that a model may call: their schemas, arguments, execution and outputs.

Public: the names of `__all__`. The modules:

toolset         the functions together: finds the one that is called, applies the limits and the policies
tool            one function: its definition, and one execution
signature       the parameters: decoding arguments, and their JSON Schema; docstrings: their descriptions
given_schema    the same for a function whose JSON Schema is given
context         what a tool may know of its call, without the model seeing it
results         how a return value becomes the text of the output
policies        what becomes of a call that failed
approval        asks before a call is executed
concurrency     the limit on how many calls run at once, which the toolset applies
worker_threads  runs functions that are not coroutines in daemon threads
checks          the checks of a toolset's options
"""

from __future__ import annotations

from asyncruns.tools.approval import Approve
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.context import ToolContext
from asyncruns.tools.policies import FailurePolicy, InterruptedPolicy
from asyncruns.tools.results import encode_output, error_output
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.toolset import Toolset
from asyncruns.tools.worker_threads import to_thread

__all__ = [
    "Approve",
    "ConcurrencyLimit",
    "FailurePolicy",
    "InterruptedPolicy",
    "InvalidArgumentsError",
    "ToolContext",
    "Toolset",
    "encode_output",
    "error_output",
    "to_thread",
]
