"""Quotas that the database keeps: jobs at once and waiting, stored bytes, priority, budgets of training."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from registry import jobs, tenants
from registry.context import Registry
from registry.errors import Forbidden, QuotaExceeded, RateLimited
from registry.jobs import Attempt
from registry.limits import overrides, quotas
from registry.models import OutboxMessage
from registry.tenants import Principal
from registry.usage import days
from tests.support.jobs import claim, new_adapter, read, submit, upload
from tests.support.threads import in_parallel

Limit = Callable[..., None]
BASE = "osora-tiny"


@pytest.fixture
def limit(registry: Registry, principal: Principal) -> Limit:
    """Sets a tenant's limits, as an operator."""

    def set_limits(whose: Principal, **values: Any) -> None:
        with registry.transaction() as session:
            overrides.set_for_tenant(session, principal, whose.tenant_id, values)

    return set_limits


def claim_next(registry: Registry) -> Attempt | None:
    with registry.transaction() as session:
        return jobs.claim_next(session, BASE, "worker-1", 60)


def spend(registry: Registry, whose: Principal, **counters: Any) -> None:
    """As if the tenant had used so much today."""
    with registry.transaction() as session:
        today = days.day_of(days.clock(session))
        row = {"day": today, "key_id": whose.key_id, "base": BASE, "adapter_id": "", "kind": "training"}
        days.add(session, [{"tenant_id": whose.tenant_id, **row, **counters}])


def test_a_job_beyond_those_that_may_run_waits_for_one_to_end(
    registry: Registry, principal: Principal, stranger: Principal, limit: Limit
) -> None:
    limit(stranger, concurrent_jobs=1)
    first, second = submit(registry, stranger), submit(registry, stranger)
    running = claim_next(registry)
    assert running is not None
    assert running.job_id == first.id
    assert claim_next(registry) is None
    with registry.reading() as session:
        assert jobs.wants_to_be_alone(session, BASE) is None
        view = jobs.view(session, jobs.get(session, stranger, second.id), registry.settings)
    assert view.forecast.waiting_for == "another of its tenant's jobs to end: 1 may run at once"

    others = submit(registry, principal)  # who is not held back goes first, whatever waits before him
    attempt = claim_next(registry)
    assert attempt is not None
    assert attempt.job_id == others.id

    with registry.transaction() as session:
        session.execute(OutboxMessage.__table__.delete())
        jobs.fail(session, running, {"code": "x", "message": "x", "param": None, "fault": "user", "next_action": None})
        woken = session.scalars(select(OutboxMessage.job_id)).all()
    assert woken == [second.id]  # its own wake-up was used up in vain
    attempt = claim_next(registry)
    assert attempt is not None
    assert attempt.job_id == second.id


def test_so_many_jobs_may_wait(registry: Registry, stranger: Principal, limit: Limit) -> None:
    limit(stranger, queued_jobs=2)
    file = upload(registry, stranger).id
    first = submit(registry, stranger, training_file=file)
    with registry.transaction() as session:
        jobs.pause(session, stranger, first.id)  # it goes on waiting, in a way
    submit(registry, stranger, training_file=file)
    with pytest.raises(RateLimited) as refused:
        submit(registry, stranger, training_file=file)
    assert refused.value.code == "queued_jobs"
    assert stranger.tenant_id in refused.value.message
    assert "2 jobs" in refused.value.message
    assert refused.value.retry_after
    with registry.transaction() as session:
        jobs.cancel(session, stranger, first.id)
    submit(registry, stranger, training_file=file)


def test_a_flood_of_jobs_at_once_gets_no_more_in(registry: Registry, stranger: Principal, limit: Limit) -> None:
    limit(stranger, queued_jobs=3)
    file = upload(registry, stranger).id

    refused: list[str | None] = []

    def one(_: int) -> None:
        try:
            submit(registry, stranger, training_file=file)
        except RateLimited as error:
            refused.append(error.code)

    in_parallel(8, one)
    assert refused == ["queued_jobs"] * 5


def test_what_is_trained_beyond_the_quota_is_kept_and_nothing_new_begins(
    registry: Registry, stranger: Principal, limit: Limit
) -> None:
    file = upload(registry, stranger)
    job = submit(registry, stranger, training_file=file.id)
    attempt = claim(registry, job)
    limit(stranger, stored_bytes=file.bytes)
    with registry.transaction() as session:
        jobs.complete(session, attempt, step=9, trained_tokens=99, adapter=new_adapter(attempt), metrics={})
    assert read(registry, stranger, job).adapter_id is not None
    with registry.reading() as session:
        assert quotas.stored_bytes(session, stranger.tenant_id) == file.bytes + 1234
        with pytest.raises(QuotaExceeded, match="stored bytes"):
            quotas.room(session, stranger.tenant_id)
    with pytest.raises(QuotaExceeded) as refused:
        submit(registry, stranger, training_file=file.id)
    assert refused.value.code == "stored_bytes"
    stored = len(list(registry.store.list("")))
    with pytest.raises(QuotaExceeded):
        upload(registry, stranger)
    assert len(list(registry.store.list(""))) == stored  # nothing of it stayed


def test_a_priority_is_what_the_tenant_may_have(
    registry: Registry, principal: Principal, stranger: Principal, limit: Limit
) -> None:
    with pytest.raises(Forbidden, match="'high'") as refused:
        submit(registry, stranger, osora={"priority": "high"})
    assert (refused.value.code, refused.value.param) == ("priority_not_allowed", "osora.priority")
    assert submit(registry, principal, osora={"priority": "high"}).priority == "high"  # an operator
    limit(stranger, priority="high")
    assert submit(registry, stranger, osora={"priority": "high"}).priority == "high"
    limit(stranger, priority="low")
    assert submit(registry, stranger).priority == "low"


def test_a_budget_of_training_holds_back_what_has_not_begun(
    registry: Registry, stranger: Principal, limit: Limit
) -> None:
    limit(stranger, compute_seconds_per_month=100)
    running, waiting = submit(registry, stranger), submit(registry, stranger)
    attempt = claim_next(registry)
    assert attempt is not None
    spend(registry, stranger, compute_seconds=100.5)
    assert claim_next(registry) is None
    with pytest.raises(QuotaExceeded) as refused:
        submit(registry, stranger)
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "compute_seconds_per_month" in refused.value.message
    with registry.transaction() as session:
        jobs.release(session, attempt, "the worker stops")  # what runs ends, on another worker if need be
    again = claim_next(registry)
    assert again is not None
    assert again.job_id == running.id
    limit(stranger, compute_seconds_per_month=1000)
    granted = claim_next(registry)
    assert granted is not None
    assert granted.job_id == waiting.id


def test_only_an_operator_sets_what_a_tenant_may_take(registry: Registry, stranger: Principal) -> None:
    with registry.transaction() as session, pytest.raises(Forbidden):
        overrides.set_for_tenant(session, stranger, stranger.tenant_id, {"queued_jobs": 10_000})


def test_a_key_is_held_to_its_own_limits_and_to_its_tenants(registry: Registry, stranger: Principal) -> None:
    with registry.transaction() as session:
        overrides.set_for_key(session, stranger, stranger.key_id, {"requests_per_minute": 5, "priority": "low"})
        tenant, key = overrides.of_principal(session, stranger)
        assert (tenant.kind, key.kind, key.limits.requests_per_minute) == ("tenant", "key", 5)
        assert key.limits.tokens_per_minute is None
        _, plaintext = tenants.create_key(session, "stranger", "another", ["train"])
        another = tenants.authenticate(session, plaintext)
        assert [owner.kind for owner in overrides.of_principal(session, another)] == ["tenant"]
    assert submit(registry, stranger).priority == "low"
