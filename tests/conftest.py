"""Fixtures for every test: databases, a broker, an open registry. Nothing starts before it is asked for."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy.engine import URL

from registry import migrate, tenants
from registry.context import Registry
from registry.settings import Settings, get_settings
from registry.tenants import Principal
from tests.support import postgres, redis_server
from tests.support.canaries import Watch

_WATCH = Watch()


def pytest_configure() -> None:
    """A shell lets what runs in its background ignore Ctrl-C, and every process that tests start would do so too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Archives that a test makes hold the time of day, and its name must be the same in every process."""
    if isinstance(val, bytes) and not val.decode("utf-8", "replace").isprintable():
        return argname
    return None


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A developer's OSORA_* settings and data directory stay out of the tests."""
    for name in os.environ:
        if name.startswith("OSORA_") and not name.startswith("OSORA_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OSORA_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(autouse=True)
def _no_secret_in_any_log() -> Iterator[None]:
    """Nothing that a test logs, or what it calls, has a key or a tenant's words in it."""
    _WATCH.found.clear()
    yield
    assert _WATCH.found == []


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server's maintenance database: OSORA_TEST_DATABASE_URL, or a server of our own."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> Iterator[str]:
    """The name of a migrated database to copy."""
    with postgres.database(postgres_server) as url:
        migrate.upgrade(url.render_as_string(hide_password=False))
        assert url.database is not None
        yield url.database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own, without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with postgres.database(request.getfixturevalue("postgres_server")) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def sqlite_database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "osora.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database_url(postgres_server: URL, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    with postgres.database(postgres_server, template=postgres_template) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, of both kinds in turn.

    A test that has no interest in the other kind says
    `@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)`.
    """
    fixture = {"sqlite": "sqlite_database_url", "postgresql": "postgres_database_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings with everything under the test's own directory."""
    return Settings(data_dir=tmp_path / "data", database_url=database_url)


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    """An open registry with the default tenant; its objects are files."""
    with Registry.open(settings) as registry:
        with registry.transaction() as session:
            tenants.ensure_tenant(session)
        yield registry


@pytest.fixture
def api_key(registry: Registry) -> str:
    """A key of the default tenant with every scope, in plain text."""
    with registry.transaction() as session:
        return tenants.create_key(session, tenants.DEFAULT_TENANT, "test", tenants.ALL_SCOPES)[1]


@pytest.fixture
def principal(registry: Registry, api_key: str) -> Principal:
    """Whoever holds `api_key`."""
    with registry.reading() as session:
        return tenants.authenticate(session, api_key)


@pytest.fixture
def stranger(registry: Registry) -> Principal:
    """The admin of another tenant."""
    with registry.transaction() as session:
        _, plaintext = tenants.create_key(session, "stranger", "test", ["admin"])
        return tenants.authenticate(session, plaintext)


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """A Redis, as a Celery broker URL: OSORA_TEST_REDIS_URL, or a server of our own."""
    with redis_server.server() as url:
        yield url


@pytest.fixture
def broker_url(redis_server_url: str) -> str:
    """An empty broker."""
    redis_server.flush(redis_server_url)
    return redis_server_url


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads on matrices this small wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
