"""The functions that a model may call: their schemas, arguments, execution and outputs.

Public: the names of `__all__`.
"""

from __future__ import annotations

from asyncruns.tools.approval import Approve
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.policies import FailurePolicy
from asyncruns.tools.results import encode_output, error_output
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.toolset import Toolset

__all__ = [
    "Approve",
    "ConcurrencyLimit",
    "FailurePolicy",
    "InvalidArgumentsError",
    "Toolset",
    "encode_output",
    "error_output",
]
