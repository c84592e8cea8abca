"""A suspended tenant: out, with all it has, and in again."""

import pytest
from sqlalchemy import update

from registry import jobs, suspension, tenants
from registry.context import Registry
from registry.errors import Conflict, Forbidden, NotFound
from registry.jobs import Attempt
from registry.models import Job, OutboxMessage
from registry.tenants import Principal
from tests.support.jobs import claim, messages, read, submit


def suspend(registry: Registry, principal: Principal, tenant: str) -> None:
    with registry.transaction() as session:
        suspension.suspend(session, principal, tenant)


def resume(registry: Registry, principal: Principal, tenant: str) -> None:
    with registry.transaction() as session:
        suspension.resume(session, principal, tenant)


def claim_next(registry: Registry) -> Attempt | None:
    with registry.transaction() as session:
        return jobs.claim_next(session, "osora-tiny", "worker-1", 60)


def test_keys_are_refused_until_it_is_resumed(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        key, plaintext = tenants.create_key(session, "acme", "ci", ["read"])
    suspend(registry, principal, "acme")
    suspend(registry, principal, key.tenant_id)
    with registry.reading() as session:
        with pytest.raises(Forbidden, match="'acme' is suspended") as caught:
            tenants.authenticate(session, plaintext)
        assert caught.value.code == "tenant_suspended"
        assert tenants.ended(session, [key.id, principal.key_id]) == {key.id}
    resume(registry, principal, "acme")
    resume(registry, principal, "acme")
    with registry.reading() as session:
        assert tenants.authenticate(session, plaintext).key_id == key.id
        assert tenants.ended(session, [key.id, principal.key_id]) == set()


def test_nobody_shuts_himself_out(registry: Registry, principal: Principal, stranger: Principal) -> None:
    with registry.transaction() as session:
        with pytest.raises(Conflict):
            suspension.suspend(session, principal, principal.tenant_name)
        with pytest.raises(Forbidden):
            suspension.suspend(session, stranger, "default")
        with pytest.raises(NotFound):
            suspension.suspend(session, principal, "nobody")


def test_queued_jobs_wait(registry: Registry, principal: Principal, stranger: Principal) -> None:
    theirs, ours = submit(registry, stranger), submit(registry, principal)
    suspend(registry, principal, "stranger")
    with registry.transaction() as session:
        assert jobs.queue_position(session, ours) == 0
        assert jobs.wants_to_be_alone(session, "osora-tiny") is False
    attempt = claim_next(registry)
    assert attempt is not None
    assert attempt.job_id == ours.id
    assert claim_next(registry) is None
    with registry.reading() as session:
        assert jobs.wants_to_be_alone(session, "osora-tiny") is None
    # And no wake-up is written for them, however long they wait.
    with registry.transaction() as session:
        session.query(OutboxMessage).delete()
        session.execute(update(Job).values(announced_at=0))
        assert jobs.reconcile(session, "osora-tiny", 1) == 0
    resume(registry, principal, "stranger")
    with registry.reading() as session:
        assert [message.job_id for message in session.query(OutboxMessage)] == [theirs.id]
    attempt = claim_next(registry)
    assert attempt is not None
    assert attempt.job_id == theirs.id


def test_running_jobs_are_given_back_and_go_on(registry: Registry, principal: Principal, stranger: Principal) -> None:
    job, other = submit(registry, stranger), submit(registry, stranger)
    attempt, wanted = claim(registry, job), claim(registry, other)
    ours = claim(registry, submit(registry, principal))
    with registry.transaction() as session:
        jobs.cancel(session, stranger, other.id)
    suspend(registry, principal, "stranger")
    expected = {attempt.token: "suspend", wanted.token: "cancel", ours.token: "continue"}
    with registry.transaction() as session:
        assert jobs.heartbeat(session, [attempt, wanted, ours], 60) == expected
    with registry.transaction() as session:
        assert jobs.signals(session, [attempt, wanted, ours]) == expected
        jobs.release(session, attempt, "its tenant is suspended")
    assert read(registry, stranger, job).status == "queued"
    assert messages(registry, stranger, job)[-1] == "Job returned to the queue: its tenant is suspended"
    assert claim_next(registry) is None
    resume(registry, principal, "stranger")
    again = claim_next(registry)
    assert again is not None
    assert (again.job_id, again.number) == (job.id, 2)
    with registry.reading() as session:
        assert jobs.signals(session, [again]) == {again.token: "continue"}
    assert read(registry, stranger, job).attempts_spent == 0
