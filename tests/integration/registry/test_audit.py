"""The audit log takes records and gives none back, on both databases."""

import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from registry import audit, audit_log
from registry.audit import ORIGIN, Origin
from registry.audit_tables import AuditRecord
from registry.context import Registry
from registry.settings import Settings
from registry.tenants import Principal

DAY = 86_400


def record_at(registry: Registry, principal: Principal, *times: int) -> None:
    with registry.transaction() as session:
        for at in times:
            session.add(
                AuditRecord(
                    id=f"audit-{at}",
                    at=at,
                    tenant_id=principal.tenant_id,
                    action="file.deleted",
                    target_kind="file",
                    target_id="file-1",
                    facts={},
                )
            )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Records are kept for thirty days."""
    return settings.model_copy(update={"audit_retention_days": 30.0})


def test_a_record_is_never_changed_or_deleted(registry: Registry, principal: Principal) -> None:
    token = ORIGIN.set(Origin("203.0.113.7", "req-1"))
    with registry.transaction() as session:
        audit.record(session, principal, "file.deleted", "file", "file-1", bytes=3)
    ORIGIN.reset(token)
    attempts = [
        "UPDATE audit_log SET action = 'x'",
        "UPDATE audit_log SET trimmed_before = 9999999999, action = 'audit.trimmed'",
        "DELETE FROM audit_log",
    ]
    if registry.engine.dialect.name == "postgresql":
        attempts.append("TRUNCATE audit_log")
    else:
        columns = "id, at, action, target_kind, target_id, facts"
        attempts.append(
            f"INSERT OR REPLACE INTO audit_log ({columns}) SELECT id, 1, 'x', 'x', 'x', '{{}}' FROM audit_log"
        )
    for attempt in attempts:
        with pytest.raises(DatabaseError, match="append-only"), registry.engine.begin() as connection:
            connection.execute(text(attempt))
    with registry.reading() as session:
        (kept,) = audit_log.page(session, principal).data
    assert (kept.action, kept.target_id, kept.facts) == ("file.deleted", "file-1", {"bytes": 3})
    assert (kept.address, kept.request_id, kept.key_id) == ("203.0.113.7", "req-1", principal.key_id)


def test_trimming_takes_what_is_old_and_says_so(registry: Registry, principal: Principal) -> None:
    now = int(time.time())
    record_at(registry, principal, now - 400 * DAY, now - 40 * DAY, now - 20 * DAY)
    assert audit_log.trim(registry) == 2
    assert audit_log.trim(registry) == 0
    with registry.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, action FROM audit_log ORDER BY at")).all()
    assert rows[0] == (f"audit-{now - 20 * DAY}", "file.deleted")
    assert [action for _, action in rows[1:]] == ["audit.trimmed"]
    # What was announced may go. What is younger may not, nor the announcement itself.
    for attempt in ("DELETE FROM audit_log WHERE action = 'audit.trimmed'", "DELETE FROM audit_log"):
        with pytest.raises(DatabaseError, match="append-only"), registry.engine.begin() as connection:
            connection.execute(text(attempt))
