"""How jobs end, and how lost ones come back."""

from typing import Any

import pytest
from sqlalchemy import select

from registry import adapters, files, jobs
from registry.context import Registry
from registry.db import now
from registry.jobs import Attempt, JobError, LeaseLostError, NewResultFile
from registry.jobs.types import Fault
from registry.models import Adapter, OutboxMessage
from registry.tenants import Principal
from tests.support.jobs import claim, expire_lease, messages, new_adapter, read, submit


def complete(registry: Registry, attempt: Attempt, **extra: Any) -> Adapter:
    with registry.transaction() as session:
        return jobs.complete(
            session,
            attempt,
            step=30,
            trained_tokens=900,
            adapter=new_adapter(attempt),
            metrics={"train_loss": 0.5},
            **extra,
        )


def error(fault: Fault) -> JobError:
    return {"code": "boom", "message": "it broke", "param": None, "fault": fault, "next_action": "fix it"}


def test_complete_publishes_the_adapter_and_ends_the_job(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal, suffix="bot")
    attempt = claim(registry, job)
    result = NewResultFile(filename="metrics.csv", object_key="results/x.csv", sha256="d" * 64, bytes=7)
    adapter = complete(registry, attempt, result_files=[result])
    ended = read(registry, principal, job)
    assert (ended.status, ended.step, ended.trained_tokens, ended.signal) == ("succeeded", 30, 900, None)
    assert (ended.lease_token, ended.lease_expires_at, ended.worker_id) == (None, None, None)
    assert ended.is_terminal
    assert ended.finished_at is not None
    assert (ended.adapter_id, ended.fine_tuned_model) == (adapter.id, adapter.name)
    assert adapter.name == f"ft:osora-tiny:default:bot:{adapter.id[-16:]}"
    with registry.reading() as session:
        assert adapters.get(session, principal, adapter.id).sha256 == "a" * 64
        (result_id,) = ended.result_file_ids
        assert files.get(session, principal, result_id).purpose == "fine-tune-results"
        assert [row.outcome for row in jobs.attempts(session, principal, job.id)] == ["succeeded"]
    assert messages(registry, principal, job)[-2:] == [
        f"New fine-tuned model created: {adapter.name}",
        "The job has successfully completed",
    ]


def test_complete_again_is_a_no_op(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    first = complete(registry, attempt)
    events = messages(registry, principal, job)
    assert complete(registry, attempt).id == first.id
    assert messages(registry, principal, job) == events
    with registry.reading() as session:
        assert len(adapters.list(session, principal).data) == 1


def test_success_beats_a_cancellation_that_came_too_late(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
    complete(registry, attempt)
    assert read(registry, principal, job).status == "succeeded"


def test_a_fault_of_the_users_is_final(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        assert jobs.fail(session, attempt, error("user")) == "failed"
    ended = read(registry, principal, job)
    assert ended.error == error("user")
    assert messages(registry, principal, job)[-1] == "The job failed: it broke"
    with registry.reading() as session:
        [row] = jobs.attempts(session, principal, job.id)
    assert (row.outcome, row.error) == ("failed", error("user"))


@pytest.mark.parametrize("fault", ["platform", "unknown"])
def test_what_is_not_the_users_fault_is_tried_again_until_attempts_are_spent(
    registry: Registry, principal: Principal, fault: Fault
) -> None:
    """An attempt's error says that there is nothing to do about it; the last one's, which is the job's, what is."""
    job = submit(registry, principal)
    outcomes = []
    failed_between = []
    for _ in range(3):
        attempt = claim(registry, job)
        with registry.transaction() as session:
            before = session.scalars(select(now())).one()
            outcomes.append(jobs.fail(session, attempt, error(fault)))
            failed_between.append((before, session.scalars(select(now())).one()))
    assert outcomes == ["queued", "queued", "failed"]
    assert read(registry, principal, job).error == error(fault)
    with registry.reading() as session:
        attempts = jobs.attempts(session, principal, job.id)
        told = [attempt.error and attempt.error["next_action"] for attempt in attempts]
        assert told == ["nothing: the job was queued again by itself"] * 2 + ["fix it"]
        held_back = session.scalars(select(OutboxMessage.available_at).order_by(OutboxMessage.id)).all()
    for (before, after), delay, available_at in zip(failed_between[:2], (5, 10), held_back[1:], strict=True):
        # a millisecond, for a database that rounds its clock
        assert before + delay - 0.001 <= available_at <= after + delay + 0.001


def test_a_failure_obeys_a_signal(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
        assert jobs.fail(session, attempt, error("platform")) == "cancelled"


def test_the_reaper_requeues_and_in_the_end_fails(registry: Registry, principal: Principal) -> None:
    job, healthy = submit(registry, principal), submit(registry, principal)
    claim(registry, healthy)
    statuses = []
    for _ in range(3):
        claim(registry, job)
        expire_lease(registry, job)
        with registry.transaction() as session:
            assert jobs.reap(session) == 1
        statuses.append(read(registry, principal, job).status)
    assert statuses == ["queued", "queued", "failed"]
    ended = read(registry, principal, job)
    assert ended.error is not None
    assert (ended.error["code"], ended.error["fault"]) == ("worker_lost", "platform")
    assert "worker-1" in ended.error["message"]
    assert read(registry, principal, healthy).status == "running"
    with registry.reading() as session:
        assert [row.outcome for row in jobs.attempts(session, principal, job.id)] == ["lost"] * 3
        # one from submit, two from the reaper, and one from submitting the other
        assert len(session.scalars(select(OutboxMessage)).all()) == 4


@pytest.mark.parametrize(("wish", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_the_reaper_obeys_signals(registry: Registry, principal: Principal, wish: str, status: str) -> None:
    job = submit(registry, principal)
    claim(registry, job)
    with registry.transaction() as session:
        getattr(jobs, wish)(session, principal, job.id)
    expire_lease(registry, job)
    with registry.transaction() as session:
        assert jobs.reap(session) == 1
    ended = read(registry, principal, job)
    assert (ended.status, ended.signal, ended.attempts_spent) == (status, None, 0)


def test_the_reaper_takes_no_more_than_its_limit(registry: Registry, principal: Principal) -> None:
    lost = [submit(registry, principal) for _ in range(3)]
    for job in lost:
        claim(registry, job)
    for job in lost:
        expire_lease(registry, job)
    with registry.transaction() as session:
        assert [jobs.reap(session, limit=2) for _ in range(3)] == [2, 1, 0]


def test_pausing_and_cancelling_through_the_worker(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        jobs.pause(session, principal, job.id)
        jobs.release(session, attempt, "its tenant paused it")
    assert read(registry, principal, job).status == "paused"
    with registry.transaction() as session:
        jobs.resume(session, principal, job.id)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
        jobs.release(session, attempt, "its tenant cancelled it")
    ended = read(registry, principal, job)
    assert (ended.status, ended.attempts_spent, ended.attempt) == ("cancelled", 0, 2)
    with registry.reading() as session:
        assert [row.outcome for row in jobs.attempts(session, principal, job.id)] == ["paused", "cancelled"]


def test_nobody_completes_a_finished_job_of_another(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    first = claim(registry, job)
    expire_lease(registry, job)
    complete(registry, claim(registry, job, "worker-2"))
    with pytest.raises(LeaseLostError):
        complete(registry, first)
