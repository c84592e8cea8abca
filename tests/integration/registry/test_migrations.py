"""The migrations build exactly what the models say, on both databases."""

import json
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from registry import migrate
from registry.blobs import DatabaseStore
from registry.db import make_engine
from registry.models import ApiKey, Base, Job
from tests.support.threads import in_parallel


def test_migrated_schema_is_the_models(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_upgrade_is_safe_from_several_processes_at_once(empty_database_url: str) -> None:
    in_parallel(4, lambda index: migrate.upgrade(empty_database_url))


def test_objects_of_before_count_as_new(empty_database_url: str) -> None:
    """A sweep right after the upgrade must not take them for forgotten ones."""
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        command.upgrade(migrate.config(connection), "0001")
        connection.execute(text("INSERT INTO blobs (key, number, data) VALUES ('a', 0, 'x')"))
    migrate.upgrade(empty_database_url)
    (found,) = DatabaseStore(engine).list("")
    assert (found.key, found.bytes) == ("a", 1)
    assert time.time() - 60 < found.modified_at <= time.time() + 1
    engine.dispose()


def test_result_files_of_before_are_kept(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    job = {
        "id": "'ftjob-1'", "tenant_id": "'tenant-1'", "base": "'b'", "training_file_id": "'file-1'", "seed": "1",
        "metadata": "'{}'", "hyperparameters": "'{}'", "osora": "'{}'", "status": "'succeeded'", "attempt": "1",
        "attempts_spent": "0", "max_attempts": "3", "step": "1", "created_at": "1", "queued_at": "1",
        "announced_at": "1",
    }  # fmt: skip
    with engine.begin() as connection:
        command.upgrade(migrate.config(connection), "0004")
        connection.execute(text("INSERT INTO tenants (id, name, created_at) VALUES ('tenant-1', 'one', 1)"))
        for number, file_id in enumerate(("'file-2'", "NULL"), start=1):
            values = job | {"id": f"'ftjob-{number}'", "result_file_id": file_id}
            columns = ", ".join(values)
            connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({', '.join(values.values())})"))
        command.upgrade(migrate.config(connection), "0005")
    with Session(engine) as session:
        rows = session.execute(select(Job.id, Job.result_file_ids, Job.plan).order_by(Job.id)).all()
    assert [tuple(row) for row in rows] == [("ftjob-1", ["file-2"], None), ("ftjob-2", [], None)]
    with engine.begin() as connection:
        command.downgrade(migrate.config(connection), "0004")
        found = connection.execute(text("SELECT result_file_id FROM jobs ORDER BY id")).scalars().all()
    assert found == ["file-2", None]
    engine.dispose()


def test_no_admin_of_before_loses_anything_in_silence(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the tenant that has the local key become operators; of the others each is named."""
    keys = {
        "key-1": ("tenant-1", ["admin", "read", "write"]),
        "key-2": ("tenant-1", ["read"]),
        "key-3": ("tenant-2", ["admin"]),
        "key-4": ("tenant-2", ["write"]),
    }
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        command.upgrade(migrate.config(connection), "0007")
        for tenant, name in (("tenant-1", "default"), ("tenant-2", "acme")):
            connection.execute(text(f"INSERT INTO tenants (id, name, created_at) VALUES ('{tenant}', '{name}', 1)"))
        for key, (tenant, scopes) in keys.items():
            row = f"'{key}', '{tenant}', 'ci', '{key}', 'abcd', '{json.dumps(scopes)}', 1"
            columns = "id, tenant_id, name, digest, hint, scopes, created_at"
            connection.execute(text(f"INSERT INTO api_keys ({columns}) VALUES ({row})"))
    with caplog.at_level("WARNING"):
        migrate.upgrade(empty_database_url)

    def scopes_now() -> dict[str, list[str]]:
        with Session(engine) as session:
            return {key_id: scopes for key_id, scopes in session.execute(select(ApiKey.id, ApiKey.scopes))}

    unchanged = {key: scopes for key, (_, scopes) in keys.items() if key != "key-1"}
    assert scopes_now() == {"key-1": ["admin", "read", "write", "operator"], **unchanged}
    assert [record.getMessage().split()[2] for record in caplog.records] == ["key-3"]
    with engine.begin() as connection:
        command.downgrade(migrate.config(connection), "0007")
    assert scopes_now() == {"key-1": ["admin", "read", "write"], **unchanged}
    engine.dispose()


def test_downgrade_leaves_nothing(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        command.downgrade(migrate.config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_is_in_wal_mode(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()
