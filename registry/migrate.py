"""Brings a database to the current schema."""

import zlib
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from registry.db import make_engine

# Any number that every Osora agrees on: the name of PostgreSQL's advisory lock for migrations.
_LOCK = zlib.crc32(b"osora migrations")


def upgrade(url: str) -> None:
    """Migrates the database at `url` to the newest schema, creating it if it is empty.

    Safe when several processes start at once: one transaction does it all, and the others wait for it.
    SQLite's write lock (our transactions begin IMMEDIATE) and PostgreSQL's advisory lock see to that.
    """
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            command.upgrade(config(connection), "head")
    finally:
        engine.dispose()


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; the migrations run on `connection`, inside its transaction."""
    found = find_spec("migrations")
    if found is None or found.origin is None:
        raise RuntimeError("the package `migrations` is not installed; reinstall osora")
    configuration = Config()
    # Alembic interpolates % in options; a checkout's path may hold one.
    configuration.set_main_option("script_location", str(Path(found.origin).parent).replace("%", "%%"))
    configuration.attributes["connection"] = connection
    return configuration
