"""Brings a database to the current schema."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text

from registry.db import make_engine

# Any number that every Osora agrees on: the name of PostgreSQL's advisory lock for migrations.
_LOCK = zlib.crc32(b"osora migrations")
# SQLite's lock is waited for as long as a migration may take; PostgreSQL's is waited for without end.
_PATIENCE_SECONDS = 3600.0


def upgrade(url: str) -> None:
    """Migrates the database at `url` to the newest schema, creating it if it is empty."""
    with migrating(url) as configuration:
        command.upgrade(configuration, "head")


@contextmanager
def migrating(url: str) -> Iterator[Config]:
    """Alembic's configuration for the database at `url`: one transaction, which commits at the end.

    Safe when several processes start at once: the others wait for it. SQLite's write lock (our transactions begin
    IMMEDIATE) and PostgreSQL's advisory lock see to that. Raises RuntimeError if a row would be left pointing nowhere.
    """
    engine = make_engine(url, _PATIENCE_SECONDS)
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        # SQLite alters a table by copying and dropping it, which its foreign keys do not let pass; and they cannot be
        # turned off inside a transaction (https://www.sqlite.org/lang_altertable.html, section 7).
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = OFF"))
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield _config(connection)
            if is_sqlite and (stray := connection.execute(text("PRAGMA foreign_key_check")).first()):
                raise RuntimeError(
                    f"a row of {stray[0]} refers to a row of {stray[2]} that is not there; nothing was migrated"
                )
    finally:
        engine.dispose()


def newest_schema() -> str | None:
    """The number of the schema that `upgrade` brings a database to."""
    return ScriptDirectory(_scripts()).get_current_head()


def _config(connection: Connection) -> Config:
    configuration = Config()
    # Alembic interpolates % in options; a checkout's path may hold one.
    configuration.set_main_option("script_location", _scripts().replace("%", "%%"))
    configuration.attributes["connection"] = connection
    return configuration


def _scripts() -> str:
    found = find_spec("migrations")
    if found is None or found.origin is None:
        raise RuntimeError("the package `migrations` is not installed; reinstall osora")
    return str(Path(found.origin).parent)
