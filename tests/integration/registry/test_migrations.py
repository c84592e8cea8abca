"""The migrations build exactly what the models say, on both databases."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry import db, migrate
from registry.added_bases.tables import BaseState
from registry.blobs import DatabaseStore
from registry.db import make_engine
from registry.models import (
    AdapterType,
    ApiKey,
    AttemptOutcome,
    Base,
    EventLevel,
    EventType,
    FileFormat,
    Job,
    JobPriority,
    JobSignal,
    JobStatus,
    Method,
)
from registry.upload_tables import UploadStatus
from registry.usage.tables import Kind, UsageDay
from registry.webhooks.tables import DeliveryStatus, DisabledBecause, WebhookDelivery, WebhookEndpoint
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


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
def test_an_upgrade_waits_for_one_that_takes_longer_than_any_request_waits(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, whose lock somebody has to ask for again and again; here it is much later each time."""
    holds, waited, times = threading.Event(), threading.Event(), [0.0]

    def much_later() -> float:
        if times[-1] < 10 * db.BUSY_SECONDS:
            times.append(times[-1] + db.BUSY_SECONDS)
        else:
            waited.set()
        return times[-1]

    monkeypatch.setattr(db, "_GLANCE_SECONDS", 0.01)
    monkeypatch.setattr(db, "time", SimpleNamespace(monotonic=much_later, sleep=time.sleep))

    def work(index: int) -> None:
        if index:
            holds.wait()
            migrate.upgrade(empty_database_url)
            return
        with migrate.migrating(empty_database_url) as config:
            holds.set()
            assert waited.wait(60)
            command.upgrade(config, "head")

    in_parallel(2, work)


def test_objects_of_before_count_as_new(empty_database_url: str) -> None:
    """`delete_orphans` right after the upgrade must not take them for forgotten ones."""
    engine = make_engine(empty_database_url)
    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO blobs (key, number, data) VALUES ('a', 0, 'x')"))
    migrate.upgrade(empty_database_url)
    (found,) = DatabaseStore(engine).list("")
    assert (found.key, found.bytes) == ("a", 1)
    assert time.time() - 60 < found.modified_at <= time.time() + 1
    engine.dispose()


def insert_jobs(connection: Connection, jobs: Sequence[dict[str, str]]) -> None:
    """Jobs with an attempt and an event each, of as many columns as every schema has."""
    job = {
        "tenant_id": "'tenant-1'", "base": "'b'", "training_file_id": "'file-1'", "seed": "1",
        "metadata": "'{}'", "hyperparameters": "'{}'", "osora": "'{}'", "status": "'succeeded'", "attempt": "1",
        "attempts_spent": "0", "max_attempts": "3", "step": "1", "created_at": "1", "queued_at": "1",
        "announced_at": "1",
    }  # fmt: skip
    attempt = {"number": "1", "worker_id": "'w'", "first_step": "0", "started_at": "1", "outcome": "'succeeded'"}
    event = {"created_at": "1", "level": "'info'", "type": "'message'", "message": "'started'"}

    def insert(table: str, values: dict[str, str]) -> None:
        columns = ", ".join(values)
        connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({', '.join(values.values())})"))

    insert("tenants", {"id": "'tenant-1'", "name": "'one'", "created_at": "1"})
    for number, changes in enumerate(jobs, start=1):
        job_id = f"'ftjob-{number}'"
        insert("jobs", {"id": job_id, **job, **changes})
        insert("job_attempts", {"job_id": job_id, "token": job_id, **attempt})
        insert("job_events", {"job_id": job_id, **event})


def test_result_files_of_before_are_kept(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0004")
    with engine.begin() as connection:
        insert_jobs(connection, [{"result_file_id": "'file-2'"}, {"result_file_id": "NULL"}])
    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0005")
    with Session(engine) as session:
        rows = session.execute(select(Job.id, Job.result_file_ids, Job.plan).order_by(Job.id)).all()
    assert [tuple(row) for row in rows] == [("ftjob-1", ["file-2"], None), ("ftjob-2", [], None)]
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "0004")
    with engine.connect() as connection:
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
    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0008")
    with engine.begin() as connection:
        for tenant, name in (("tenant-1", "default"), ("tenant-2", "acme")):
            connection.execute(text(f"INSERT INTO tenants (id, name, created_at) VALUES ('{tenant}', '{name}', 1)"))
        for key, (tenant, scopes) in keys.items():
            row = f"'{key}', '{tenant}', 'ci', '{key}', 'abcd', '{json.dumps(scopes)}', 1"
            columns = "id, tenant_id, name, digest, hint, scopes, created_at"
            connection.execute(text(f"INSERT INTO api_keys ({columns}) VALUES ({row})"))
    with caplog.at_level("WARNING"), migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0009")

    def scopes_now() -> dict[str, list[str]]:
        with Session(engine) as session:
            return {key_id: scopes for key_id, scopes in session.execute(select(ApiKey.id, ApiKey.scopes))}

    unchanged = {key: scopes for key, (_, scopes) in keys.items() if key != "key-1"}
    assert scopes_now() == {"key-1": ["admin", "read", "write", "operator"], **unchanged}
    told = [record.getMessage() for record in caplog.records if record.name.startswith("alembic")]
    assert [message.split()[2] for message in told] == ["key-3"]
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "0008")
    assert scopes_now() == {"key-1": ["admin", "read", "write"], **unchanged}
    engine.dispose()


def test_keys_of_before_can_do_what_they_could(empty_database_url: str) -> None:
    before = {"key-1": ["read"], "key-2": ["write"], "key-3": ["read", "write"], "key-4": ["admin", "operator"]}
    engine = make_engine(empty_database_url)
    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0016")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name, created_at) VALUES ('tenant-1', 'one', 1)"))
        for key, scopes in before.items():
            row = f"'{key}', 'tenant-1', 'ci', '{key}', 'abcd', '{json.dumps(scopes)}', 1"
            columns = "id, tenant_id, name, digest, hint, scopes, created_at"
            connection.execute(text(f"INSERT INTO api_keys ({columns}) VALUES ({row})"))
    migrate.upgrade(empty_database_url)
    with Session(engine) as session:
        now = {key.id: key.scopes for key in session.scalars(select(ApiKey))}
    assert now == {
        "key-1": ["generate", "read"],
        "key-2": ["train"],
        "key-3": ["generate", "read", "train"],
        "key-4": ["admin", "operator"],
    }
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "0016")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, scopes FROM api_keys")).all()
    stored = {key: json.loads(scopes) if isinstance(scopes, str) else scopes for key, scopes in rows}
    assert stored == before
    engine.dispose()


def test_downgrade_leaves_nothing(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "base")
    engine = make_engine(empty_database_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_jobs_of_before_survive_the_way_up_and_down(empty_database_url: str) -> None:
    """With what points at them: SQLite copies and drops the table, and must neither refuse that nor forget them."""
    tables = ("jobs", "job_attempts", "job_events")
    engine = make_engine(empty_database_url)

    def rows() -> list[list[tuple[Any, ...]]]:
        with engine.connect() as connection:
            return [
                sorted(
                    (tuple(row) for row in connection.execute(text(f"SELECT {columns[name]} FROM {name}"))), key=repr
                )
                for name in tables
            ]

    with migrate.migrating(empty_database_url) as config:
        command.upgrade(config, "0007")
    with engine.begin() as connection:
        insert_jobs(connection, [{"priority": "'high'"}, {"status": "'running'", "signal": "'pause'"}])
    known = inspect(engine)
    columns = {name: ", ".join(f'"{column["name"]}"' for column in known.get_columns(name)) for name in tables}
    before = rows()
    migrate.upgrade(empty_database_url)
    assert rows() == before
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "0007")
    assert rows() == before
    migrate.upgrade(empty_database_url)
    assert rows() == before
    engine.dispose()


def test_what_would_point_nowhere_is_not_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'osora.db'}"
    migrate.upgrade(url)
    with pytest.raises(RuntimeError, match="a row of job_events refers to a row of jobs that is not there"):
        lose_a_job(url)


def lose_a_job(url: str) -> None:
    with migrate.migrating(url) as config:
        connection: Connection = config.attributes["connection"]
        insert_jobs(connection, [{}])
        connection.execute(text("DELETE FROM job_attempts"))
        connection.execute(text("DELETE FROM jobs"))


WORDS: dict[tuple[str, str], Any] = {
    ("jobs", "status"): JobStatus,
    ("jobs", "signal"): JobSignal,
    ("jobs", "method"): Method,
    ("jobs", "priority"): JobPriority,
    ("job_attempts", "outcome"): AttemptOutcome,
    ("job_events", "level"): EventLevel,
    ("job_events", "type"): EventType,
    ("webhook_endpoints", "disabled_because"): DisabledBecause,
    ("webhook_deliveries", "status"): DeliveryStatus,
    ("uploads", "status"): UploadStatus,
    ("usage_days", "kind"): Kind,
    ("files", "format"): FileFormat,
    ("adapters", "type"): AdapterType,
    ("bases", "state"): BaseState,
}


def insert_webhook(connection: Connection) -> None:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        tenant_id = session.scalars(select(Job.tenant_id).limit(1)).one()
        endpoint = WebhookEndpoint(id="webhook-1", tenant_id=tenant_id, name="x", url="x", event_types=[], salt="x")
        session.add(endpoint)
        session.flush()
        session.add(WebhookDelivery(id="wh_1", endpoint_id=endpoint.id, event_id="evt_1", event_type="x", data={}))
        session.commit()


def insert_usage(connection: Connection) -> None:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        tenant_id = session.scalars(select(Job.tenant_id).limit(1)).one()
        session.add(UsageDay(tenant_id=tenant_id, day=0, key_id="", base="x", adapter_id="", kind="chat"))
        session.commit()


def insert_adapter(connection: Connection) -> None:
    """One that no job has trained."""
    values = {
        "id": "'adp-1'", "tenant_id": "'tenant-1'", "name": "'ft:x'", "version": "1", "base": "'x'",
        "base_fingerprint": "'f'", "basis_fingerprint": "'b'", "rank": "1", "parameters": "1",
        "target_modules": "'[]'", "object_key": "'k'", "sha256": "'s'", "bytes": "1", "created_at": "1",
    }  # fmt: skip
    connection.execute(text(f"INSERT INTO adapters ({', '.join(values)}) VALUES ({', '.join(values.values())})"))


def test_adapters_without_a_job_go_on_the_way_down(empty_database_url: str) -> None:
    """With what names them; those of jobs stay."""
    migrate.upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        insert_jobs(connection, [{}])
        insert_adapter(connection)
        of_job = "INSERT INTO adapters SELECT {} FROM adapters"
        columns = [column["name"] for column in inspect(connection).get_columns("adapters")]
        changed = {"id": "'adp-2'", "name": "'ft:y'", "job_id": "'ftjob-1'"}
        connection.execute(text(of_job.format(", ".join(changed.get(name, name) for name in columns))))
    with migrate.migrating(empty_database_url) as config:
        command.downgrade(config, "0012")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM adapters")).scalars().all() == ["adp-2"]
    migrate.upgrade(empty_database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, type FROM adapters")).all() == [("adp-2", "osora")]
    engine.dispose()


def test_the_database_takes_every_word_that_python_knows_and_no_other(database_url: str) -> None:
    """Also those that a later version adds to a `Literal`: it then fails here until a migration lets them in."""
    engine = make_engine(database_url)
    with engine.begin() as connection:
        insert_jobs(connection, [{}])
        insert_webhook(connection)
        connection.execute(
            text(
                "INSERT INTO files (id, tenant_id, filename, purpose, object_key, bytes, sha256, created_at) "
                "SELECT 'file-1', id, 'a.jsonl', 'fine-tune', 'x', 1, 'x', 0 FROM tenants LIMIT 1"
            )
        )
        connection.execute(
            text(
                "INSERT INTO uploads (id, tenant_id, filename, purpose, bytes, status, created_at, expires_at) "
                "SELECT 'upload_1', id, 'a.jsonl', 'fine-tune', 1, 'pending', 0, 0 FROM tenants LIMIT 1"
            )
        )
        assert connection.scalar(text("SELECT count(*) FROM uploads")) == 1
        insert_adapter(connection)
        insert_usage(connection)
        connection.execute(
            text(
                "INSERT INTO bases (name, id, source, state, created_at, attempts) "
                "VALUES ('x', 'y', 'z', 'ready', 0, 0)"
            )
        )
    for (table, column), words in WORDS.items():
        update = text(f"UPDATE {table} SET {column} = :word")
        for word in get_args(words):
            with engine.begin() as connection:
                connection.execute(update, {"word": word})
        with engine.connect() as connection, pytest.raises(IntegrityError, match=f"ck_{table}_{column}"):
            connection.execute(update, {"word": "mislaid"})
    engine.dispose()


def test_every_column_of_a_few_words_is_held_to_them() -> None:
    found = {
        (mapper.local_table.name, name)
        for mapper in Base.registry.mappers
        for name, hint in get_type_hints(mapper.class_).items()
        if "Literal[" in str(hint)
    }
    assert found == WORDS.keys()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_is_in_wal_mode(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()
