"""The migrations build exactly what the models say, on both databases."""

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
from registry.models import Base, Job
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
