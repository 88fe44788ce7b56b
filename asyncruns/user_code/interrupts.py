"""Tells Ctrl-C from a KeyboardInterrupt that code raised by itself, as some programs do to end themselves."""

from __future__ import annotations

import dis
import signal
from types import CodeType
from typing import Final

_RAISING: Final = frozenset({dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]})


def is_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C raised this error: between two instructions, or in the handler of the signal.

    Code raises it with a `raise` of its own. In doubt it is Ctrl-C.
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
    """Return the code that Python runs at Ctrl-C; None where it has no code of its own."""
    handler = signal.getsignal(signal.SIGINT)
    handler = getattr(handler, "func", handler)  # a partial, as that of `asyncio.run`
    return getattr(handler, "__code__", None)  # a method shows that of its function
