"""What is deleted is gone: looked for in every row of the database and every object of the store."""

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from registry import adapter_imports, audit_log, erasure, files, jobs, references, suspension, tenants, webhooks
from registry.adapter_imports import Facts
from registry.context import Registry
from registry.errors import Conflict, InvalidRequest
from registry.measures import FileMeasure
from registry.models import Adapter, Base, File, IdempotentRequest, Job, Tenant
from registry.names import aliases, permissions
from registry.settings import Settings
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart
from tests.support.archives import archive
from tests.support.jobs import claim, new_adapter, record_checkpoint, submit

CANARY = "canary7f3a9"
LORA = Facts("lora", 4, 1280, ["q_proj"], "base-hash", None, [])
NOT_OF_TENANTS = {"audit_log", "bases", "blobs", "tenants", "usage_segments", "workers"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """On PostgreSQL, objects are in the database too."""
    is_sqlite = settings.database_url.startswith("sqlite")
    return settings if is_sqlite else settings.model_copy(update={"object_store": "db:"})


def tables_with(registry: Registry, text: str) -> set[str]:
    """The tables in which some value of some row has the text in it."""
    found = set()
    with registry.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                if any(text in _plain(value) for value in row):
                    found.add(table.name)
    return found


def _plain(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else json.dumps(value, default=str)


def objects_with(registry: Registry, text: str) -> list[str]:
    keys = [found.key for found in registry.store.list("")]
    return [key for key in keys if text in key or text.encode() in registry.store.get(key)]


def counts_of(registry: Registry, tenant_id: str) -> dict[str, int]:
    with registry.engine.connect() as connection:
        return {
            table.name: connection.scalar(
                select(func.count()).select_from(table).where(erasure.owned_by(table, tenant_id))
            )
            or 0
            for table in erasure.owned_tables()
        }


def train_file(registry: Registry, principal: Principal) -> File:
    rows = json.dumps({"prompt": f"{CANARY} asks", "completion": "yes"}).encode() + b"\n"
    file = files.ingest(registry, principal, io.BytesIO(rows * 2), f"{CANARY}.jsonl", "fine-tune")
    with registry.transaction() as session:
        session.add(
            FileMeasure(file_id=file.id, base="b", row_limit=0, base_fingerprint="f", content=f'"{CANARY}"'.encode())
        )
        answer = json.dumps({"id": file.id, "filename": file.filename}, separators=(",", ":"))
        for key in (None, f"key-{principal.key_id}"):
            session.add(
                IdempotentRequest(
                    api_key_id=principal.key_id,
                    idempotency_key=key,
                    fingerprint="0" * 64,
                    retries=0,
                    lease_expires_at=0.0,
                    answer=answer,
                )
            )
        session.add(
            Upload(
                id=f"upload_{file.id}",
                tenant_id=principal.tenant_id,
                filename=file.filename,
                purpose="fine-tune",
                bytes=1,
                status="completed",
                file_id=file.id,
                created_at=1,
                expires_at=1,
            )
        )
    return file


def failed_job(registry: Registry, principal: Principal, file: File, metadata: dict[str, str]) -> Job:
    """A job that has sampled its model and then met a row that it cannot learn from."""
    job = submit(registry, principal, training_file=file.id, metadata=metadata)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        data = {"step": 3, "prompt": "?", "text": f"{CANARY} says"}
        jobs.add_event(session, attempt, "Sample after step 3", data=data)
        error = {"code": "invalid_data", "message": f"line 1: {CANARY!r} is no role", "param": None, "fault": "user"}
        jobs.fail(session, attempt, {**error, "next_action": None})
    return job


def bring(registry: Registry, principal: Principal) -> Adapter:
    draft = adapter_imports.store(registry, principal, "osora-tiny", io.BytesIO(archive()))
    return adapter_imports.publish(registry, principal, draft, LORA, CANARY, lambda _, adapter: adapter)


def hook(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        url = "https://hooks.example.com/osora"
        webhooks.create(session, principal, registry.settings, name="h", url=url, event_types=webhooks.EVENT_TYPES)


def test_a_deleted_file_leaves_nothing(registry: Registry, principal: Principal) -> None:
    file = train_file(registry, principal)
    job = failed_job(registry, principal, file, {})
    assert tables_with(registry, CANARY) >= {
        "files", "file_measures", "idempotent_requests", "job_attempts", "job_events", "jobs", "uploads",
    }  # fmt: skip
    assert objects_with(registry, CANARY)
    files.delete(registry, principal, file.id)
    assert tables_with(registry, CANARY) == set()
    assert objects_with(registry, CANARY) == []
    if registry.engine.dialect.name == "sqlite":
        path = registry.engine.url.database
        assert path is not None
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert CANARY.encode() not in Path(path).read_bytes(), "nor is it in what the file has free"
    with registry.reading() as session:
        found = jobs.get(session, principal, job.id)
        assert (found.status, found.training_file_id) == ("failed", file.id)
        assert found.error is not None
        assert found.error["code"] == "invalid_data"
        (kept,) = session.scalars(select(IdempotentRequest))  # the one that gave a key, without its answer
    assert (kept.idempotency_key, kept.answer) == (f"key-{principal.key_id}", None)


def test_a_deleted_adapter_leaves_no_name(registry: Registry, principal: Principal, stranger: Principal) -> None:
    hook(registry, principal)
    adapter = bring(registry, principal)
    bases = registry.settings.base_paths
    with registry.transaction() as session:
        permissions.grant(session, principal, adapter.id, [stranger.tenant_id])
        aliases.put(session, principal, "triage", {adapter.id: 1}, bases=bases)
        aliases.put(session, principal, "triage", {next(iter(bases)): 1}, bases=bases)
    assert tables_with(registry, CANARY) == {"adapters", "alias_versions", "webhook_deliveries"}
    references.delete(registry, principal, adapter.id)
    assert tables_with(registry, CANARY) == set()
    assert "permissions" not in tables_with(registry, adapter.id)
    assert [found.key for found in registry.store.list("")] == []


@pytest.fixture
def acme(registry: Registry) -> Principal:
    """A tenant that has one of everything."""
    with registry.transaction() as session:
        _, plaintext = tenants.create_key(session, "acme", CANARY, ["admin"])
    with registry.reading() as session:
        return tenants.authenticate(session, plaintext)


def fill(registry: Registry, principal: Principal, other: Principal) -> None:
    hook(registry, principal)
    file = train_file(registry, principal)
    failed_job(registry, principal, file, {"note": CANARY})
    done = submit(registry, principal, training_file=file.id, suffix=CANARY)
    attempt = claim(registry, done)
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 3)
        adapter = jobs.complete(session, attempt, step=9, trained_tokens=9, adapter=new_adapter(attempt), metrics={})
    for key in (adapter.object_key, f"checkpoints/{done.id}/1/3.zip", f"checkpoints/{done.id}/2/orphan"):
        registry.store.put(key, CANARY.encode())
    registry.store.put(f"files/{principal.tenant_id}/orphan", CANARY.encode())
    brought = bring(registry, principal)
    bases = registry.settings.base_paths
    with registry.transaction() as session:
        aliases.put(session, principal, "triage", {adapter.id: 1, brought.id: 2}, bases=bases)
        permissions.grant(session, principal, brought.id, [other.tenant_id])
        upload_id = f"upload_{principal.key_id}"
        session.add(
            Upload(
                id=upload_id,
                tenant_id=principal.tenant_id,
                filename=CANARY,
                purpose="fine-tune",
                bytes=1,
                created_at=1,
                expires_at=1,
            )
        )
        session.flush()
        key = f"uploads/{upload_id}/part"
        session.add(UploadPart(id=f"part_{principal.key_id}", upload_id=upload_id, object_key=key, bytes=1))
    registry.store.put(key, CANARY.encode())


def test_a_deleted_tenant_leaves_nothing_but_its_audit_log(
    registry: Registry, principal: Principal, acme: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(registry, acme, principal)
    fill(registry, principal, acme)
    before = counts_of(registry, principal.tenant_id)
    with registry.transaction() as session:
        with pytest.raises(InvalidRequest, match="'acme'"):
            erasure.begin(session, principal, "acme", confirm="acne", cancel_jobs=False)
        with pytest.raises(Conflict, match="of the key that asks"):
            erasure.begin(session, principal, "default", confirm="default", cancel_jobs=False)
    live = submit(registry, acme)
    running = claim(registry, live)
    with registry.transaction() as session, pytest.raises(Conflict, match=live.id):
        erasure.begin(session, principal, "acme", confirm="acme", cancel_jobs=False)
    with registry.transaction() as session:
        begun = erasure.begin(session, principal, "acme", confirm="acme", cancel_jobs=True)
        assert begun.live_jobs == [live.id]
    with registry.transaction() as session, pytest.raises(Conflict, match="being deleted"):
        suspension.resume(session, principal, "acme")
    erasure.go_on(registry)  # waits for the job that runs
    with registry.transaction() as session:
        assert session.get(Job, live.id)
        jobs.release(session, running, "the worker has heard of it")
        assert erasure.any_begun(session)
    # Whoever erases is killed in the middle, twice.
    put_back = registry.store.delete
    monkeypatch.setattr(erasure, "LEASE_SECONDS", -1.0)
    monkeypatch.setattr(type(registry.store), "delete", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        erasure.go_on(registry)
    monkeypatch.setattr(type(registry.store), "delete", lambda _, key: put_back(key))
    delete_some, calls = erasure._delete_some, iter(range(10))

    def killed(*given: Any) -> Any:
        if next(calls) == 6:
            raise OSError("killed")
        return delete_some(*given)

    monkeypatch.setattr(erasure, "_delete_some", killed)
    with pytest.raises(OSError, match="killed"):
        erasure.go_on(registry)
    monkeypatch.setattr(erasure, "_delete_some", delete_some)
    erasure.go_on(registry)

    with registry.reading() as session:
        assert session.get(Tenant, acme.tenant_id) is None
        kept = audit_log.page(session, principal, tenant=acme.tenant_id, limit=100).data
    assert [record.action for record in kept][:2] == ["tenant.deleted", "tenant.erasing"]
    assert {record.key_id for record in kept[:2]} == {principal.key_id}
    assert tables_with(registry, acme.tenant_id) == {"audit_log"}
    assert not any(acme.tenant_id in key for key in (found.key for found in registry.store.list("")))
    # Nothing of the other's has gone, but for what was shared with the deleted one.
    shared = before.pop("permissions")
    after = counts_of(registry, principal.tenant_id)
    assert (shared, after.pop("permissions")) == (2, 0)
    assert after == before
    assert objects_with(registry, CANARY)
    assert CANARY not in json.dumps([(record.target_id, record.facts) for record in kept])


def test_every_table_is_a_tenants_or_known_to_be_none(registry: Registry) -> None:
    every = {table.name for table in Base.metadata.sorted_tables}
    assert every - {table.name for table in erasure.owned_tables()} <= NOT_OF_TENANTS


def test_of_two_that_come_to_the_end_of_a_deletion_one_says_so(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        tenant = tenants.create_tenant(session, principal, "twice")
        erasure.begin(session, principal, "twice", confirm="twice", cancel_jobs=False)
    assert erasure._erase(registry, tenant.id)
    assert erasure._erase(registry, tenant.id)  # whose lease was over in the middle
    with registry.reading() as session:
        told = audit_log.page(session, principal, tenant=tenant.id, action="tenant.deleted").data
    assert len(told) == 1
