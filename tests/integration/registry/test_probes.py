"""A probe is a row among the jobs that nobody sees, and that goes whatever becomes of those who asked for it."""

from typing import Any

import pytest
from sqlalchemy import func, select, update

from registry import files, jobs, webhooks, workers
from registry.context import Registry
from registry.errors import Conflict, NotFound
from registry.jobs import Attempt, JobRequest, LeaseLostError, probes
from registry.models import Job, JobAttempt, JobEvent, OutboxMessage
from registry.tenants import Principal, authenticate, create_key
from registry.webhooks.tables import WebhookDelivery
from tests.support.jobs import claim, expire_lease, read, submit, upload

BASE = "osora-tiny"


def start(registry: Registry, principal: Principal, steps: int = 20, **request: Any) -> str:
    training_file = request.pop("training_file", None) or upload(registry, principal).id
    wanted = JobRequest(**{"base": BASE, "training_file": training_file, **request})
    with registry.transaction() as session:
        return probes.start(session, principal, wanted, registry.settings, {}, steps)


def claim_probe(registry: Registry) -> Attempt:
    with registry.transaction() as session:
        attempt = jobs.claim_next(session, BASE, "worker-1", lease_seconds=60)
    assert attempt is not None
    return attempt


def look(registry: Registry, probe_id: str) -> probes.ProbeState:
    with registry.reading() as session:
        state = probes.look(session, probe_id)
    assert state is not None
    return state


def overdue(registry: Registry, probe_id: str) -> None:
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == probe_id).values(probe_until=1.0))


def count(registry: Registry, table: Any) -> int:
    with registry.reading() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def other_tenant(registry: Registry) -> Principal:
    with registry.transaction() as session:
        _, key = create_key(session, "other", "test", ["read", "train"])
        return authenticate(session, key)


def test_it_trains_like_a_job_and_tells_who_asked(registry: Registry, principal: Principal) -> None:
    probe_id = start(registry, principal, steps=3)
    assert look(registry, probe_id).status == "queued"
    attempt = claim_probe(registry)
    assert (attempt.job_id, attempt.probe_steps) == (probe_id, 3)
    with registry.transaction() as session:
        probes.record(session, attempt, {"train_loss": [2.0]})
        probes.record(session, attempt, {"train_loss": [2.0, 1.5]})
    state = look(registry, probe_id)
    assert (state.status, state.told, state.is_over) == ("running", {"train_loss": [2.0, 1.5]}, False)
    with registry.transaction() as session:
        probes.complete(session, attempt)
    assert look(registry, probe_id).is_over


def test_nobody_sees_it(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        webhooks.create(
            session,
            principal,
            registry.settings,
            name="all",
            url="https://example.com/hook",
            event_types=["fine_tuning.job.succeeded"],
        )
    probe_id = start(registry, principal)
    attempt = claim_probe(registry)
    with registry.reading() as session:
        assert jobs.list(session, principal).data == []
        for look_up in (jobs.get, jobs.events, jobs.checkpoints, jobs.attempts):
            with pytest.raises(NotFound):
                look_up(session, principal, probe_id)
    for act in (jobs.cancel, jobs.pause, jobs.resume):
        with registry.transaction() as session, pytest.raises(NotFound):
            act(session, principal, probe_id)
    with registry.transaction() as session:
        probes.complete(session, attempt)
    assert count(registry, WebhookDelivery) == 0


def test_one_of_a_tenant_at_a_time(registry: Registry, principal: Principal) -> None:
    probe_id = start(registry, principal)
    with pytest.raises(Conflict) as refused:
        start(registry, principal)
    assert refused.value.code == "probe_running"
    other = other_tenant(registry)
    start(registry, other)
    with registry.transaction() as session:
        probes.stop(session, probe_id)
    start(registry, principal)


def test_it_counts_as_its_tenants_turn_also_when_it_is_over(registry: Registry, principal: Principal) -> None:
    """Of two tenants of whom nothing runs, the one that was served last goes last, though it was by a probe."""
    start(registry, principal)
    attempt = claim_probe(registry)
    with registry.transaction() as session:
        probes.complete(session, attempt)
    submit(registry, principal)
    theirs = submit(registry, other_tenant(registry))
    assert claim_probe(registry).job_id == theirs.id


def test_what_is_ahead_of_a_job_may_be_a_probe_but_history_is_of_jobs(registry: Registry, principal: Principal) -> None:
    start(registry, other_tenant(registry))
    with registry.transaction() as session:
        workers.seen(session, "worker-1", [BASE], 1)
    job = submit(registry, principal)
    with registry.reading() as session:
        assert jobs.foresee(session, jobs.get(session, principal, job.id), registry.settings).queue_position == 1
    attempt = claim_probe(registry)
    with registry.reading() as session:
        ahead = jobs.foresee(session, jobs.get(session, principal, job.id), registry.settings)
        until = session.scalars(select(Job.probe_until).where(Job.id == attempt.job_id)).one()
    assert until is not None
    assert ahead.estimated_start == round(until)  # at the latest
    with registry.transaction() as session:
        probes.complete(session, attempt)
    with registry.reading() as session:
        ahead = jobs.foresee(session, jobs.get(session, principal, job.id), registry.settings)
    assert ahead.estimated_finish is None


def test_what_waits_ends_at_once_and_what_runs_when_its_worker_hears(registry: Registry, principal: Principal) -> None:
    waiting = start(registry, principal)
    with registry.transaction() as session:
        probes.stop(session, waiting)
        probes.stop(session, waiting)
        probes.stop(session, "ftjob-none")
    assert look(registry, waiting).status == "cancelled"
    running = start(registry, principal)
    attempt = claim_probe(registry)
    with registry.transaction() as session:
        probes.stop(session, running)
    with registry.reading() as session:
        assert jobs.signals(session, [attempt]) == {attempt.token: "cancel"}
    with registry.transaction() as session:
        jobs.release(session, attempt, "its tenant left")
    assert look(registry, running).status == "cancelled"


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_an_overdue_one_goes_with_all_that_is_of_it(registry: Registry, principal: Principal, state: str) -> None:
    """Whoever asked for it may be dead."""
    job = submit(registry, principal)
    kept = [count(registry, table) for table in (Job, JobEvent, JobAttempt, OutboxMessage)]
    with registry.transaction() as session:
        assert jobs.cancel(session, principal, job.id).status == "cancelled"
    kept[1] += 1
    probe_id = start(registry, principal)
    attempt = None if state == "queued" else claim_probe(registry)
    if attempt is not None and state == "succeeded":
        with registry.transaction() as session:
            probes.record(session, attempt, {})
            probes.complete(session, attempt)
    with registry.transaction() as session:
        assert not probes.any_overdue(session)
        assert probes.clear(session) == 0
    overdue(registry, probe_id)
    with registry.transaction() as session:
        assert probes.any_overdue(session)
        assert probes.clear(session) == 1
    assert [count(registry, table) for table in (Job, JobEvent, JobAttempt, OutboxMessage)] == kept
    if attempt is not None:
        with registry.reading() as session:
            assert jobs.signals(session, [attempt]) == {attempt.token: "lost"}
        with registry.transaction() as session, pytest.raises(LeaseLostError):
            probes.record(session, attempt, {})


def test_an_overdue_one_is_not_claimed(registry: Registry, principal: Principal) -> None:
    overdue(registry, start(registry, principal))
    with registry.transaction() as session:
        assert jobs.claim_next(session, BASE, "worker-1", lease_seconds=60) is None


def test_a_lost_worker_is_the_end_of_it(registry: Registry, principal: Principal) -> None:
    probe_id = start(registry, principal)
    claim_probe(registry)
    with registry.reading() as session:
        job = session.get_one(Job, probe_id)
    expire_lease(registry, job)
    with registry.transaction() as session:
        assert jobs.reap(session) == 1
    state = look(registry, probe_id)
    assert (state.status, state.is_over) == ("failed", True)
    assert state.error is not None
    assert state.error["code"] == "worker_lost"


def test_its_file_is_held_without_its_being_named(registry: Registry, principal: Principal) -> None:
    training_file = upload(registry, principal).id
    probe_id = start(registry, principal, training_file=training_file)
    with pytest.raises(Conflict) as refused:
        files.delete(registry, principal, training_file)
    assert probe_id not in str(refused.value)
    assert "probe" in str(refused.value)
    with registry.transaction() as session:
        probes.stop(session, probe_id)
    files.delete(registry, principal, training_file)


def test_jobs_of_the_tenant_go_on_as_ever(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    start(registry, principal)
    claim(registry, job)
    assert read(registry, principal, job).status == "running"
