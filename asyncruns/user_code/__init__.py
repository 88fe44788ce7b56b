"""Runs the caller's tools, handlers and observers in tasks that asyncruns owns; one that does not end is abandoned.

Public: nothing.
"""

from asyncruns.user_code.interrupts import is_interrupt
from asyncruns.user_code.owners import ANSWERING, OWNERS, check_may_leave, check_may_wait
from asyncruns.user_code.task import Raised, UserTask

__all__ = ["ANSWERING", "OWNERS", "Raised", "UserTask", "check_may_leave", "check_may_wait", "is_interrupt"]
