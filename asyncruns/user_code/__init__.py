"""Runs the caller's coroutines in tasks of ours: what they raise is caught, and one that does not end is abandoned."""

from asyncruns.user_code.interrupts import is_interrupt
from asyncruns.user_code.task import ANSWERING, OWNERS, Driven, Raised, answers_for, works_for

__all__ = ["ANSWERING", "OWNERS", "Driven", "Raised", "answers_for", "is_interrupt", "works_for"]
