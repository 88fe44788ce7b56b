"""A journal in PostgreSQL: the promises of every journal, its errors, and a server that is stopped and started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer
from test_journal_model import Operation, operations, results_of

from asyncruns import ConfigurationError, JournalError, MemoryJournal, NotOwnerError, PostgresJournal, RunRef
from asyncruns.cli.options import make_parser
from asyncruns.cli.reap import reap
from asyncruns.journal.memory import MemoryStore
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish, ref_of
from asyncruns.testing import VirtualTimeLoop, check_journal

pytestmark = pytest.mark.slow

WATCH = WatchRecord(key="w", ref=RunRef("thread_run", ("thread_1", "run_1")), label="secret label")
CALL = CallRecord(key="1", call_id="1")


class Xor:
    """A codec for tests."""

    def encode(self, content: bytes) -> bytes | None:
        return None if b"drop" in content else bytes(byte ^ 0x55 for byte in content)

    def decode(self, data: bytes) -> bytes:
        return bytes(byte ^ 0x55 for byte in data)


@pytest.fixture
async def journal(dsn: str) -> AsyncIterator[PostgresJournal]:
    async with PostgresJournal(dsn) as journal:
        yield journal


async def test_it_keeps_the_promises(dsn: str, postgres: PostgresServer) -> None:
    await check_journal(lambda: PostgresJournal(dsn))
    for table in ("watches", "calls", "refs", "wishes", "owners"):
        assert postgres.execute(dsn, f"SELECT count(*) FROM asyncruns_journal.{table}") == [(0,)], table


async def test_it_keeps_the_promises_with_a_codec(dsn: str) -> None:
    await check_journal(lambda: PostgresJournal(dsn, codec=Xor()))


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(st.tuples(st.booleans(), operations(waits=False)), max_size=30))
def test_it_does_what_one_in_memory_does(
    database: str, postgres: PostgresServer, history: Sequence[tuple[bool, Operation]]
) -> None:
    store = MemoryStore()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        in_postgres = runner.run(results_of(lambda: PostgresJournal(database), history))
        in_memory = runner.run(results_of(lambda: MemoryJournal(store), history))
    assert in_postgres == in_memory
    postgres.execute(database, "DELETE FROM asyncruns_journal.watches")


async def test_content_is_encoded_and_dropped(dsn: str, postgres: PostgresServer) -> None:
    async with PostgresJournal(dsn, codec=Xor()) as journal:
        await journal.add([WATCH])
        await journal.answered(
            "w", [CallRecord(key="1", call_id="1", output="secret"), CallRecord(key="2", call_id="2", output="drop")]
        )
        await journal.finished({"w": {"secret": 1}})
    for table in ("watches", "calls"):
        assert "secret" not in str(
            postgres.execute(dsn, f"SELECT *, encode({table}::text::bytea, 'escape') FROM asyncruns_journal.{table}")
        )
    async with PostgresJournal(dsn) as other:
        assert await other.claim() == []  # without the codec, it cannot be read
    async with PostgresJournal(dsn, codec=Xor()) as other:
        (record,) = await other.claim()
    assert (record.label, record.outcome) == ("secret label", {"secret": 1})
    assert [call.output for call in record.calls] == ["secret", None]


async def test_many_calls_at_once_share_a_transaction(
    journal: PostgresJournal, dsn: str, postgres: PostgresServer
) -> None:
    watches = [WatchRecord(key=f"w{n}", ref=RunRef("thread_run", (f"{n}",))) for n in range(200)]
    await journal.add(watches)
    query = "SELECT pg_current_xact_id()::text::int"
    ((before,),) = postgres.execute(dsn, query)
    assert await asyncio.gather(*(journal.begin(watch.key, [CALL]) for watch in watches)) == [[]] * 200
    ((after,),) = postgres.execute(dsn, query)
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert after - before < 8


@pytest.mark.real_time
async def test_two_journals_may_add_the_same_watches_at_once(dsn: str) -> None:
    async def add(journal: PostgresJournal, number: int) -> bool:
        try:
            await journal.add([WatchRecord(key=f"{number}", ref=RunRef("thread_run", (f"{number}",)))])
        except NotOwnerError:
            return False
        return True

    async with PostgresJournal(dsn) as one, PostgresJournal(dsn) as other:
        for number in range(50):
            added = await asyncio.gather(add(one, number), add(other, number))
            assert sorted(added) == [False, True]


async def test_outcomes_that_nobody_wanted_are_forgotten(
    dsn: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresJournal(dsn) as journal:
        await journal.add([WATCH, WatchRecord(key="v", ref=RunRef("thread_run", ("v",)))])
        await journal.finished({"w": {"outcome": "Completed"}})
    postgres.execute(
        dsn, "UPDATE asyncruns_journal.watches SET finished_at = now() - interval '31 days' WHERE key = 'w'"
    )
    async with PostgresJournal(dsn, keep_outcomes=32 * 86400.0) as journal:
        assert len(await journal.claim()) == 2
    async with PostgresJournal(dsn) as journal:
        assert [record.key for record in await journal.claim()] == ["v"]
    assert "1 outcomes are forgotten, which were recorded 30 days ago" in caplog.text


# Errors


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda dsn: dsn.replace("/journal_", "/not_there_"), "does not exist"),
        (lambda dsn: dsn.replace("tester", "nobody-here"), "role .* does not exist"),
        (lambda dsn: dsn.replace("127.0.0.1:", "127.0.0.1:1"), "cannot be reached"),
    ],
)
async def test_a_dsn_that_leads_nowhere_is_an_error_without_the_password(
    dsn: str, change: Callable[[str], str], expected: str
) -> None:
    journal = PostgresJournal(change(dsn))
    with pytest.raises(JournalError, match=expected) as caught:
        await journal.open()
    assert "secret-word" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {journal!r}"
    with pytest.raises(JournalError, match="not open"):
        await journal.claim()


@pytest.mark.parametrize("dsn", ["secret-word", "postgresql://a:secret-word@[b/c", "host=a secret-word"])
def test_a_dsn_that_is_none_is_an_error_that_does_not_show_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="none that libpq can read") as caught:
        PostgresJournal(dsn)
    assert "secret-word" not in f"{caught.value}"
    assert caught.value.__suppress_context__


def test_a_lease_that_is_no_time_is_an_error() -> None:
    for lease in (0.0, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="lease"):
            PostgresJournal("", lease=lease)


def test_without_psycopg_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from asyncruns import PostgresJournal\n"
        "try: PostgresJournal('')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("ConfigurationError PostgresJournal needs psycopg")
    assert "pip install 'asyncruns[postgres]'" in run.stdout


async def test_a_newer_schema_is_an_error(journal: PostgresJournal, dsn: str, postgres: PostgresServer) -> None:
    postgres.execute(dsn, "UPDATE asyncruns_journal.version SET version = 99")
    with pytest.raises(JournalError, match="newer version of asyncruns"):
        await PostgresJournal(dsn).open()


async def test_a_user_without_rights_is_an_error(dsn: str, postgres: PostgresServer) -> None:
    postgres.execute(dsn, "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
    as_guest = dsn.replace("tester", "guest")
    with pytest.raises(JournalError, match="needs the right to create the schema"):
        await PostgresJournal(as_guest).open()
    async with PostgresJournal(dsn):
        postgres.execute(
            dsn,
            "GRANT USAGE ON SCHEMA asyncruns_journal TO guest;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncruns_journal TO guest",
        )
        async with PostgresJournal(as_guest) as journal:
            assert await journal.add([WATCH]) == [WATCH]
    postgres.execute(dsn, "DROP OWNED BY guest; DROP ROLE guest")


async def test_tables_that_are_deleted_are_an_error(
    journal: PostgresJournal, dsn: str, postgres: PostgresServer
) -> None:
    await journal.add([WATCH])
    postgres.execute(dsn, "DROP SCHEMA asyncruns_journal CASCADE")
    with pytest.raises(JournalError, match="a table of the journal is gone"):
        await journal.begin("w", [CALL])
    await journal.aclose()
    async with journal:
        with pytest.raises(NotOwnerError, match="not in the journal"):
            await journal.begin("w", [CALL])


async def test_a_database_that_only_reads_is_an_error(
    journal: PostgresJournal, dsn: str, postgres: PostgresServer
) -> None:
    await journal.add([WATCH])
    postgres.execute(dsn, f"ALTER DATABASE {dsn.rpartition('/')[2]} SET default_transaction_read_only = on")
    with pytest.raises(JournalError, match="only reads"):
        await PostgresJournal(dsn).open()


async def test_a_commit_survives_a_crash_also_where_commits_do_not_wait(dsn: str, postgres: PostgresServer) -> None:
    postgres.execute(dsn, f"ALTER DATABASE {dsn.rpartition('/')[2]} SET synchronous_commit = off")
    async with PostgresJournal(dsn) as journal:
        await journal.add([WATCH])
        query = "SELECT set_config('asyncruns.test', current_setting('synchronous_commit'), false)"
        connection = journal._database._connection
        assert connection is not None
        assert connection.execute(query).fetchone() == ("on",)


# Connections that are lost


def end_connections(postgres: PostgresServer, dsn: str) -> None:
    postgres.execute(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid != pg_backend_pid()",
    )


async def test_a_connection_that_was_lost_is_made_anew(
    journal: PostgresJournal, dsn: str, postgres: PostgresServer
) -> None:
    await journal.add([WATCH])
    end_connections(postgres, dsn)
    assert await journal.begin("w", [CALL]) == []
    assert await journal.begin("w", [CALL]) == [CALL]


@pytest.mark.real_time
async def test_a_server_that_is_stopped_and_started_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    from postgres_server import started_server

    server = await asyncio.to_thread(started_server)
    try:
        dsn = await asyncio.to_thread(server.new_database)
        async with PostgresJournal(dsn, lease=0.6) as journal, PostgresJournal(dsn) as other:
            await journal.add([WATCH])
            listening = asyncio.create_task(journal.wishes())
            await asyncio.to_thread(server.stop)
            with pytest.raises(JournalError, match="cannot be reached, which later calls try again"):
                await journal.begin("w", [CALL])
            await asyncio.sleep(1.0)  # longer than the lease
            await asyncio.to_thread(server.start)
            assert await other.claim() == []
            assert await journal.begin("w", [CALL]) == []
            while not await other.ask(ref_of(WATCH), Wish.POLL):  # the lease is renewed soon
                await asyncio.sleep(0.05)
            assert await asyncio.wait_for(listening, 10.0) == [("w", Wish.POLL)]
    finally:
        await asyncio.to_thread(server.remove)
    warnings = [record.message for record in caplog.records if "lease cannot be renewed" in record.message]
    assert len(warnings) == 1


@pytest.mark.real_time
async def test_an_answer_to_a_commit_that_is_lost_is_an_error_that_says_so(dsn: str, postgres: PostgresServer) -> None:
    """The connection breaks while the server waits in its COMMIT: it may have been written."""
    async with PostgresJournal(dsn) as journal:
        await journal.add([WATCH])
        postgres.execute(
            dsn,
            "SET search_path TO asyncruns_journal;"
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON calls DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        begin = asyncio.create_task(journal.begin("w", [CALL]))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(end_connections, postgres, dsn)
        with pytest.raises(JournalError, match="it is not known if this was written"):
            await begin


@pytest.mark.real_time
async def test_what_a_claim_has_taken_whose_answer_was_lost_is_claimed_again(
    dsn: str, postgres: PostgresServer
) -> None:
    async with PostgresJournal(dsn) as journal:
        await journal.add([WATCH])
        await journal.release(["w"])
        postgres.execute(
            dsn,
            "SET search_path TO asyncruns_journal;"
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON watches DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW WHEN (new.owner IS NOT NULL AND old.owner IS NULL) EXECUTE FUNCTION wait()",
        )
        broken = asyncio.create_task(journal.claim())
        await asyncio.sleep(0.3)
        await asyncio.to_thread(cut_connections)
        with pytest.raises(JournalError, match="it is not known if this was written"):
            await broken
        await asyncio.sleep(1.5)
        assert [record.owner for record in await journal.read()] != [""]
        assert [record.key for record in await journal.claim()] == ["w"]


def cut_connections() -> None:
    """Break this process's connections to PostgreSQL, while the server goes on with what it does."""
    for name in os.listdir("/proc/self/fd"):
        try:
            connected = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with connected:
            if connected.family is socket.AF_INET and connected.type == socket.SOCK_STREAM:
                with contextlib.suppress(OSError):
                    connected.getpeername()
                    connected.shutdown(socket.SHUT_RDWR)


def test_a_forked_child_owns_nothing_and_does_not_break_the_connection_of_its_parent(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    journal = PostgresJournal(dsn)
    loop.run_until_complete(journal.open())
    loop.run_until_complete(journal.add([WATCH]))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.set_event_loop(None)
        try:
            asyncio.run(journal.begin("w", [CALL]))
        except JournalError as error:
            os.write(write, str(error).encode())
        asyncio.run(journal.aclose())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"of which this one is a fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    assert loop.run_until_complete(journal.begin("w", [CALL])) == []
    loop.run_until_complete(journal.aclose())
    loop.close()


async def test_a_journal_says_what_it_is(journal: PostgresJournal, dsn: str) -> None:
    assert repr(journal).startswith("<PostgresJournal journal_")
    assert repr(journal).endswith(": open>")
    assert "secret-word" not in repr(journal)


async def test_reap_creates_no_journal(dsn: str, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]) -> None:
    options = make_parser().parse_args(["reap", dsn, "--offline"])
    with pytest.raises(ConfigurationError, match="has no journal: check its name"):
        await reap(options)
    assert postgres.execute(dsn, "SELECT to_regnamespace('asyncruns_journal')::text") == [(None,)]
    async with PostgresJournal(dsn) as journal:
        await journal.add([WATCH])
    assert await reap(options) == 0
    assert "run_1" in capsys.readouterr().out
