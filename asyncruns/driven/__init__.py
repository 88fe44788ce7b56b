"""Runs the caller's coroutines in tasks of ours: what they raise is caught, and one that does not end is abandoned."""

from asyncruns.driven.coroutine import ANSWERING, OWNERS, Driven, Raised, answers_for, works_for
from asyncruns.driven.interrupts import is_interrupt

__all__ = ["ANSWERING", "OWNERS", "Driven", "Raised", "answers_for", "is_interrupt", "works_for"]
