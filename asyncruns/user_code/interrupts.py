"""Distinguishes Ctrl-C from a KeyboardInterrupt that code raised itself, as some programs do in order to exit."""

from __future__ import annotations

import dis
import signal
from types import CodeType
from typing import Final

_RAISING: Final = frozenset({dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]})


def is_interrupt(error: BaseException) -> bool:
    """Return whether this error is a KeyboardInterrupt that Ctrl-C caused; in doubt, return True.

    Ctrl-C raises it between two instructions, or in the signal's handler. Code raises it with a `raise` statement, so
    the innermost frame then stands at a raising instruction.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code is _handler() or code.co_code[trace.tb_lasti] not in _RAISING


def _handler() -> CodeType | None:
    """Return the code of the handler of Ctrl-C; None if it is not written in Python."""
    handler = signal.getsignal(signal.SIGINT)
    handler = getattr(handler, "func", handler)  # `asyncio.run` sets a functools.partial
    return getattr(handler, "__code__", None)  # a bound method has the attribute of its function
