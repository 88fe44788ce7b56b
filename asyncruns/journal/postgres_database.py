"""The database of a journal: connected to, and written in transactions, by one owner. All of it blocks, in one thread.

The owner is a row, whose deletion ends it: each transaction locks that row, so that nothing is written for an owner
that a claim has deleted. A lease that has run out, and that no claim has ended, is still good: it goes on when it is
renewed, as after a failure of the network.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncruns.abc import Codec
from asyncruns.errors import ConfigurationError, JournalError
from asyncruns.journal.postgres_errors import is_disconnected, postgres_error
from asyncruns.journal.postgres_schema import SCHEMA_NAME, has_schema, prepare_schema
from asyncruns.journal.postgres_transaction import Transaction, Write

_LOG: Final = logging.getLogger("asyncruns.journal")
LOCK_TIMEOUT_S: Final = 10
_TRIES: Final = 5  # of a transaction that other processes have disturbed
_DISTURBED: Final = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)
_LEASE_ENDED: Final = (
    "Journal %s: the lease of this process had run out, and another process has ended it: the watches of this process "
    "are free, or have a new owner, and those here finish when they notice. New ones go on"
)
_CONNECTED: Final = (
    "UPDATE owners SET pid = a.pid, connected_at = a.backend_start FROM pg_stat_activity a "
    "WHERE owners.id = %s AND a.pid = pg_backend_pid()"
)
_SETTINGS: Final = (
    "SELECT set_config('search_path', %s, false), set_config('lock_timeout', %s, false), "
    "set_config('idle_in_transaction_session_timeout', %s, false), "
    "set_config('default_transaction_isolation', 'read committed', false), "
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
    "ELSE current_setting('synchronous_commit') END, false)"
)


class PostgresDatabase:
    """The database of one journal, connected to or not.

    Args:
        dsn: How to connect, as libpq reads it.
        lease: How long the owner of watches is thought to live after its last renewal, in seconds.
        codec: The journal's codec.

    Attributes:
        where: Which database it is, in words without a credential.
        owner: The id of the owner; "" for none.

    Raises:
        ConfigurationError: The dsn is none.
    """

    def __init__(self, dsn: str, lease: float, codec: Codec | None) -> None:
        self._parameters = _parameters_of(dsn, lease)
        self._lease, self._codec = lease, codec
        self.where: str = _where(self._parameters)
        self.owner: str = ""
        self._connection: psycopg.Connection[Any] | None = None
        self._is_open = False
        self._is_committing = False

    def open(self) -> None:
        """Connect, create or migrate the tables, and begin to own watches.

        Raises:
            JournalError: It is not possible; nothing is left open.
        """
        self._is_open = True
        try:
            self._connected()
        except BaseException as error:
            self._end()
            raise postgres_error(self.where, error) from error

    def check_exists(self) -> None:
        """Check that the database has the tables of a journal, in a connection of its own; create nothing.

        Raises:
            ConfigurationError: It has none.
            JournalError: The database cannot be reached.
        """
        try:
            with psycopg.connect(**self._parameters, autocommit=True) as connection:
                is_there = has_schema(connection)
        except psycopg.Error as error:
            raise postgres_error(self.where, error) from error
        if not is_there:
            raise ConfigurationError(f"The database {self.where} has no journal: check its name")

    def run(self, statements: Sequence[Write]) -> list[Any]:
        """Run writes in transactions; return for each what it returned, or a JournalError. Never raises.

        A write that fails changes nothing. Those that must not be alone share a transaction; if that fails, each has
        one of its own.
        """
        return [result for group in _groups(statements) for result in self._run_some(group)]

    def read(self, statement: Write) -> Any:
        """Return what a write returns that only reads.

        Raises:
            JournalError: It could not be read.
        """
        (result,) = self.run([statement])
        if isinstance(result, Exception):
            raise result
        return result

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Listen for notifications in a connection of its own; yield what waits until this owner was notified.

        Unlike the other methods, it runs in the event loop.

        Raises:
            JournalError: The connection cannot be made, or was lost.
        """
        try:
            async with await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True) as connection:
                await connection.execute(f"LISTEN {SCHEMA_NAME}")

                async def heard() -> None:
                    async for notification in connection.notifies():
                        if notification.payload == self.owner:
                            return

                yield heard
        except psycopg.Error as error:
            raise postgres_error(self.where, error) from error

    def close(self) -> None:
        """Release the watches that are owned, and close. Never raises; may be called twice."""
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.execute("DELETE FROM owners WHERE id = %s", (self.owner,))
        self._end()

    def _run_some(self, group: Sequence[Write]) -> list[Any]:
        for is_last in (False,) * (_TRIES - 1) + (True,):
            was_connected, self._is_committing = self._connection is not None, False
            try:
                return self._transact(group)
            except Exception as error:
                is_lost = is_disconnected(error)
                may_be_written = is_lost and self._is_committing
                self._disconnect()  # a pipeline that failed leaves statements that psycopg takes for prepared
                if not is_last and (
                    isinstance(error, _DISTURBED) or (was_connected and is_lost and not may_be_written)
                ):
                    continue
                if is_lost or len(group) == 1:
                    return [postgres_error(self.where, error, may_be_written=may_be_written)] * len(group)
                break
        return [result for write in group for result in self._run_some([write])]

    def _transact(self, group: Sequence[Write]) -> list[Any]:
        connection = self._connected()
        with connection.pipeline():
            transaction = self._begin(connection)
            transaction.lock(group)
            attempts = [_attempt(write, transaction) for write in group]
            self._is_committing = True
            commit = connection.execute("COMMIT")
            results = [attempt() for attempt in attempts]
        if commit.statusmessage != "COMMIT":
            raise psycopg.InternalError(f"COMMIT was answered by {commit.statusmessage}")
        if transaction.owner != self.owner:
            self.owner = transaction.owner
            _LOG.warning(_LEASE_ENDED, self.where)
        return [self._named(result) for result in results]

    def _named(self, result: object) -> object:
        return postgres_error(self.where, result) if isinstance(result, JournalError) else result

    def _begin(self, connection: psycopg.Connection[Any]) -> Transaction:
        """Begin a transaction, in which the owner cannot be deleted; begin with a new one if it was."""
        connection.execute("BEGIN")
        owner = self.owner
        if connection.execute("SELECT 1 FROM owners WHERE id = %s FOR KEY SHARE", (owner,)).fetchone() is None:
            owner = self._add_owner(connection)
            connection.execute(_CONNECTED, (owner,))
        return Transaction(connection, owner, self._codec)

    def _add_owner(self, connection: psycopg.Connection[Any]) -> str:
        owner = uuid.uuid4().hex
        query = (
            "INSERT INTO owners (id, words, lease, until) "
            "SELECT %s, %s, l, clock_timestamp() + l FROM make_interval(secs => %s) l"
        )
        connection.execute(query, (owner, f"process {os.getpid()} on {socket.gethostname()}", self._lease))
        return owner

    def _connected(self) -> psycopg.Connection[Any]:
        if not self._is_open:
            raise JournalError("it is closed")
        if self._connection is None:
            connection = psycopg.connect(**self._parameters, autocommit=True)
            try:
                connection.execute(_SETTINGS, (SCHEMA_NAME, f"{LOCK_TIMEOUT_S}s", f"{round(self._lease * 1000)}ms"))
                prepare_schema(connection)
                if not self.owner:
                    self.owner = self._add_owner(connection)
                connection.execute(_CONNECTED, (self.owner,))
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _end(self) -> None:
        self._disconnect()
        self._is_open, self.owner = False, ""


def _attempt(write: Write, transaction: Transaction) -> Callable[[], object]:
    """Run a write, and return what returns its result: a JournalError if it was refused, before it wrote anything."""
    try:
        fetch = write.run(transaction)
    except (JournalError, UnicodeEncodeError) as error:
        refusal = error
        return lambda: _as_refusal(refusal)
    return lambda: None if fetch is None else _fetched(fetch)


def _fetched(fetch: Callable[[], object]) -> object:
    try:
        return fetch()
    except JournalError as error:  # what was there cannot be read
        return error


def _as_refusal(error: JournalError | UnicodeEncodeError) -> JournalError:
    if isinstance(error, JournalError):
        return error
    return JournalError(f"What was to be written is no text: {error}")


def _groups(writes: Sequence[Write]) -> Iterator[list[Write]]:
    """Yield writes in their order, those together that may share a transaction."""
    group: list[Write] = []
    for write in writes:
        if group and (write.is_alone or group[-1].is_alone):
            yield group
            group = []
        group.append(write)
    if group:
        yield group


def _parameters_of(dsn: str, lease: float) -> dict[str, Any]:
    defaults = {
        "application_name": "asyncruns",
        "connect_timeout": "10",
        "tcp_user_timeout": str(max(1, round(lease * 1000))),
        "keepalives_idle": "15",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    try:
        return defaults | conninfo_to_dict(dsn)
    except (psycopg.ProgrammingError, TypeError):
        raise ConfigurationError(  # whose text has parts of the dsn, and so perhaps of the password
            "The dsn of a journal is none that libpq can read: write it as postgresql://user@host/database, or as "
            "host=... dbname=... user=..."
        ) from None


def _where(parameters: dict[str, Any]) -> str:
    host = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST") or "the local socket"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{parameters.get('dbname') or os.environ.get('PGDATABASE') or 'of the default name'} on {host}{port}"
