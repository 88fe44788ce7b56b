"""The tables of a journal in PostgreSQL, and how they are created and migrated. All of it blocks.

Keys, ids and outputs are bytes: a text of PostgreSQL cannot contain every character, whatever the database's encoding.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg

from asyncruns.errors import JournalError

SCHEMA_NAME: Final = "asyncruns_journal"  # also of the channel of notifications
_LOCK: Final = 0x6172756E  # "arun": of processes that create or migrate the tables at once
# Each version of the tables is made by what follows the one before. The id is the order in which watches were added, or
# calls began; the claim is the call that has taken a watch, until it is added again. When an owner is deleted, its
# watches have none. A lease ends by the server's clock; one that was stopped leaves everybody the time to renew it.
_MIGRATIONS: Final[tuple[tuple[LiteralString, ...], ...]] = (
    (
        "CREATE TABLE version (version INTEGER NOT NULL)",
        "INSERT INTO version VALUES (0)",
        """CREATE TABLE owners (
            id TEXT PRIMARY KEY, words TEXT NOT NULL, lease INTERVAL NOT NULL, until TIMESTAMPTZ NOT NULL,
            pid INTEGER, connected_at TIMESTAMPTZ
        )""",
        """CREATE VIEW living AS SELECT id, words FROM owners
            WHERE greatest(until, pg_postmaster_start_time() + lease) > clock_timestamp()""",
        """CREATE TABLE watches (
            id BIGINT GENERATED ALWAYS AS IDENTITY, key BYTEA PRIMARY KEY,
            owner TEXT REFERENCES owners ON DELETE SET NULL, claim TEXT, created_at DOUBLE PRECISION NOT NULL,
            record BYTEA NOT NULL, content BYTEA, outcome BYTEA, finished_at TIMESTAMPTZ
        )""",
        "CREATE INDEX watches_by_owner ON watches (owner)",
        """CREATE TABLE calls (
            id BIGINT GENERATED ALWAYS AS IDENTITY, watch BYTEA NOT NULL REFERENCES watches ON DELETE CASCADE,
            key BYTEA NOT NULL, call_id BYTEA NOT NULL, output BYTEA, failed BOOLEAN NOT NULL,
            accepted_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (watch, key)
        )""",
        "CREATE TABLE refs (ref BYTEA PRIMARY KEY, watch BYTEA NOT NULL REFERENCES watches ON DELETE CASCADE)",
        "CREATE INDEX refs_by_watch ON refs (watch)",
        """CREATE TABLE wishes (
            id BIGINT GENERATED ALWAYS AS IDENTITY, watch BYTEA NOT NULL REFERENCES watches ON DELETE CASCADE,
            wish TEXT NOT NULL, PRIMARY KEY (watch, wish)
        )""",
    ),
)


def prepare_schema(connection: psycopg.Connection[Any]) -> None:
    """Create the tables, or migrate them to this version.

    Raises:
        JournalError: A newer version of asyncruns has written them.
        psycopg.Error: The database does not allow it.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        query = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
        if connection.execute(query, (SCHEMA_NAME,)).fetchone() is None:
            connection.execute("CREATE SCHEMA asyncruns_journal")
        version = _version_of(connection)
        if version > len(_MIGRATIONS):
            raise JournalError(
                f"a newer version of asyncruns wrote the journal: it has schema {version}, and this version knows "
                f"{len(_MIGRATIONS)}. Install the newer version, or give the journal another database"
            )
        for number, migration in enumerate(_MIGRATIONS[version:], version + 1):
            for statement in migration:
                connection.execute(statement)
            connection.execute("UPDATE version SET version = %s", (number,))


def has_schema(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the database has the tables of a journal, of any version."""
    row = connection.execute("SELECT to_regclass('asyncruns_journal.version') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def _version_of(connection: psycopg.Connection[Any]) -> int:
    """Return the version of the tables; 0 if there are none."""
    if not has_schema(connection):
        return 0
    row = connection.execute("SELECT version FROM version").fetchone()
    return 0 if row is None else int(row[0])
