"""What must survive the process: watches, the calls that began, their outputs, and which outcomes were delivered.

Public: `memory.MemoryJournal`, `memory.MemoryStore`, `sqlite.SQLiteJournal`,
`postgres.PostgresJournal`. The modules:

memory        a journal in memory, for tests
sqlite        a journal in a file of this machine, which several processes may share
database      its file: opened, checked, written in transactions; all of it blocks, in one thread
statements    what each method of a journal does in SQL
rows          the schema, and what several statements do with its rows
forking       what a forked child must close
file_errors   what is wrong with the file, in words
owner_lock    how processes see whether another one lives
postgres      a journal in PostgreSQL, which processes on several machines may share; `postgres_*` are its parts:
              _database (its connection, transactions, and owner), _schema, _transaction (what one locks and sends),
              _writes and _claims (what each method does), _rows, _errors
group_commit  what is called while the thread is busy, put into one transaction
own_thread    the thread
sealing       the caller's content, through the caller's codec
entries       what all journals make of records: JSON, limits, and how a record changes

The interface is `asyncruns.abc.Journal`; what is written down, as values, is in `lifecycle/records.py`.
"""
