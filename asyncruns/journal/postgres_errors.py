"""What is wrong with the database of a journal, in words: what happened, and what to do. Never a password."""

from __future__ import annotations

from typing import Final

import psycopg

from asyncruns.errors import JournalError
from asyncruns.wire.shown_text import on_one_line

_MOST_CHARACTERS: Final = 500
# By the beginning of PostgreSQL's five-character codes, the longest first.
_ADVICE: Final = {
    "25006": "it only reads, as a standby does: connect to the primary server",
    "42501": "the user may not do that: it needs the right to create the schema asyncruns_journal, or, if it is there, "
    "to use it and to read and write its tables",
    "42P01": "a table of the journal is gone: close the journal and open it again, or restore it from a copy",
    "53100": "its disk is full: make room; what was to be written was not written",
    "55P03": "another process has locked what was to be written, for 10 s: later calls try again",
    "28": "it does not accept this user or password: check the dsn, and pg_hba.conf at the server",
    "3D": "there is no such database: create it, or change the dsn",
    "53": "it has not enough resources, such as connections: later calls try again",
    "57P": "it is being stopped, or is starting: later calls try again",
}


def postgres_error(where: str, error: BaseException, *, may_be_written: bool = False) -> JournalError:
    """Return the JournalError for what psycopg raised; a JournalError is returned with the database's name before it.

    Args:
        where: Which database it is.
        error: What was raised.
        may_be_written: Whether the connection was lost before it was known if the transaction was committed.
    """
    kind = type(error) if isinstance(error, JournalError) else JournalError
    if may_be_written:
        why = f"the connection was lost, and it is not known if this was written: {_text_of(error)}"
    elif isinstance(error, JournalError):
        why = str(error)
    elif (advice := _advice_for(error)) is not None:
        why = f"{advice} ({_text_of(error)})"
    elif isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        why = f"the server cannot be reached, which later calls try again: {_text_of(error)}"
    else:
        why = f"{type(error).__name__}: {_text_of(error)}"
    failure = kind(f"Journal {where}: {why}")
    failure.__cause__ = error
    return failure


def is_disconnected(error: BaseException) -> bool:
    """Return whether psycopg raised this since there is no connection, and not since the server has refused something.

    The server says itself that it is being stopped, or that it has ended a connection that was idle for too long.
    """
    code = getattr(error, "sqlstate", None) or ""
    is_of_connection = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return is_of_connection and (not code or code[:2] in ("08", "28", "3D") or code[:3] == "57P" or code == "25P03")


def _advice_for(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None) or ""
    return next((_ADVICE[code[:length]] for length in (5, 3, 2) if code[:length] in _ADVICE), None)


def _text_of(error: BaseException) -> str:
    return on_one_line(str(error))[:_MOST_CHARACTERS]
