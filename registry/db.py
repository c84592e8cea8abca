"""Engines and the little SQL that differs between SQLite and PostgreSQL.

SQLite transactions: a transaction that starts as a reader and later writes can fail at once with "database
is locked", whatever the busy timeout, because its snapshot may be stale. So every transaction says at its
beginning what it is. Writers, the default, BEGIN IMMEDIATE and queue for the one write lock. Sessions bound
to `read_only(engine)` BEGIN deferred: they take no write lock and, under WAL,
neither wait nor make others wait.

Queues use `.with_for_update(skip_locked=True)`. PostgreSQL honours it; SQLAlchemy leaves it out for SQLite,
where the write lock already makes the transaction the only one. `take_turns` gives PostgreSQL such a lock by name.

A process that is stopped, or whose machine is cut off, in the middle of a transaction holds its locks, and nobody else
could claim the job it was renewing. PostgreSQL ends such a transaction (`_IDLE_SECONDS`); its process, if it goes on,
meets an outage. SQLite's one lock is the operating system's, which gives it back when the process ends.
"""

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Double,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    func,
    literal,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from registry.columns import PlainText

BUSY_SECONDS = 30.0
"""How long a transaction waits for SQLite's write lock, unless told otherwise."""
_GLANCE_SECONDS = 1.0
_MOST_WAITING = 16
"""Of a process's threads, those that may wait for longer than a glance: the others are for those who only read."""
# No transaction of ours does anything but SQL: one that says nothing for so long has lost its process.
_IDLE_SECONDS = 30
_IDLE_IN_TRANSACTION = "25P03"
_READ_ONLY = "osora_read_only"
_KNOWN = "sqlite:///path or postgresql+psycopg://user:password@host/name"


class now(FunctionElement[float]):
    """The database's clock as unix seconds, with fractions. The time of the call, not of the transaction."""

    type = Double()
    inherit_cache = True


class now_seconds(FunctionElement[int]):
    """The database's clock as whole unix seconds: what clients see as `created_at`."""

    type = BigInteger()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    # julianday() rather than unixepoch('subsec'), which needs SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(now_seconds, "sqlite")
def _now_seconds_sqlite(element: now_seconds, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(strftime('%s', 'now') AS INTEGER)"


@compiles(now_seconds, "postgresql")
def _now_seconds_postgresql(element: now_seconds, compiler: SQLCompiler, **kw: Any) -> str:
    return "floor(extract(epoch from clock_timestamp()))::bigint"


def take_turns(session: Session, name: str) -> None:
    """Has transactions that say the same name go one after another from here on; on SQLite all that write do."""
    if session.get_bind().dialect.name == "postgresql":
        # A name may be made of what a client sent: what PostgreSQL cannot hold is the client's error here too.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(literal(name, PlainText()), 0))))


def check_database_url(url: str) -> str:
    """The URL of a database that Osora can use. Raises ValueError, without its password, for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"it is no URL of a database: use {_KNOWN}") from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ValueError(f"{backend!r} is not supported: use {_KNOWN}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ValueError("a database in memory cannot be shared by several processes: name a file, sqlite:///path")
    return url


def make_engine(url: str | URL, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine for SQLite or PostgreSQL, set up for several processes with several threads each; its URL is one that
    `check_database_url` lets pass. `busy_seconds`: how long to wait for SQLite's write lock."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _make_sqlite_engine(parsed, busy_seconds)
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=10,
        max_overflow=30,
        pool_pre_ping=True,
        hide_parameters=True,  # an error that is logged has none of a tenant's words
    )
    event.listen(engine, "connect", _configure_postgresql)
    event.listen(engine, "handle_error", _as_outage)
    return engine


def read_only(engine: Engine) -> Engine:
    """The same engine and pool, for transactions that only read; the database refuses a write in one."""
    return engine.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})


def _configure_postgresql(connection: Any, record: object) -> None:
    # By a statement: poolers such as PgBouncer refuse what they do not know at the connection's start.
    connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_SECONDS * 1000:.0f}")
    connection.commit()


def _as_outage(context: ExceptionContext) -> Exception | None:
    """A transaction that the database ended is one that its connection was lost in, whatever the driver calls it."""
    if getattr(context.original_exception, "sqlstate", None) != _IDLE_IN_TRANSACTION:
        return None
    return OperationalError(
        context.statement, None, context.original_exception, hide_parameters=True, connection_invalidated=True
    )


def _make_sqlite_engine(url: URL, busy_seconds: float) -> Engine:
    path = Path(url.database or "")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # SQLite will say so where it matters
        # It holds training data's names and tenants' prompts: its owner's alone, as are the files beside it, which
        # SQLite gives its permissions. One made before this line was open to all who could see the folder.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    engine = create_engine(
        url,
        connect_args={"timeout": busy_seconds},
        pool_size=10,
        max_overflow=30,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _SqliteTransactions(busy_seconds).begin)
    return engine


def _configure_sqlite(connection: Any, record: object) -> None:
    # None: the driver opens no transactions of its own; `_SqliteTransactions` does, and says of which kind.
    connection.isolation_level = None
    _turn_to_wal(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # who deletes data wants it gone from the file as well


def _turn_to_wal(connection: Any) -> None:
    """Write-ahead logging, which the file then keeps. Several processes may turn a new file to it at once, and for that
    SQLite does not wait as it does for a writer: it says at once that the file is locked."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class _SqliteTransactions:
    """Begins them. Whoever waits for the write lock has a thread; while somebody keeps it for long, most go without."""

    def __init__(self, busy_seconds: float) -> None:
        self._busy_seconds = busy_seconds
        self._places = threading.BoundedSemaphore(_MOST_WAITING)

    def begin(self, connection: Connection) -> None:
        """The event's handler. Raises `OperationalError`, which is an outage, if the lock is not to be had in time."""
        reads = bool(connection.get_execution_options().get(_READ_ONLY, False))
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
        if reads:
            connection.exec_driver_sql("BEGIN")
        elif not self._has_begun(connection.connection.dbapi_connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # its last chance, and SQLAlchemy's error

    def _has_begun(self, connection: Any) -> bool:
        deadline = time.monotonic() + self._busy_seconds
        connection.execute(f"PRAGMA busy_timeout = {1000 * min(_GLANCE_SECONDS, self._busy_seconds):.0f}")
        if _takes_lock(connection):
            return True
        if not self._places.acquire(blocking=False):
            return False
        try:
            while time.monotonic() < deadline - _GLANCE_SECONDS:
                if _takes_lock(connection):
                    return True
            return False
        finally:
            self._places.release()


def _takes_lock(connection: Any) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True
