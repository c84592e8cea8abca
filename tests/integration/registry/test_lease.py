"""Claims, heartbeats, fencing, and giving jobs back."""

from collections.abc import Callable

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt, CheckpointRef, LeaseLostError
from registry.models import Base, Job, OutboxMessage
from registry.tenants import Principal
from tests.support.jobs import claim, expire_lease, messages, new_adapter, read, record_checkpoint, submit, upload
from tests.support.threads import in_parallel


def test_one_of_ten_claims_wins(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    won: list[Attempt] = []

    def try_to_claim(index: int) -> None:
        with registry.transaction() as session:
            attempt = jobs.claim_next(session, job.base, f"worker-{index}", lease_seconds=60)
        if attempt is not None:
            won.append(attempt)

    in_parallel(10, try_to_claim)
    assert len(won) == 1
    with registry.reading() as session:
        rows = jobs.attempts(session, principal, job.id)
    assert [(row.outcome, row.token) for row in rows] == [(None, won[0].token)]


def test_an_attempt_has_all_that_a_worker_needs(registry: Registry, principal: Principal) -> None:
    training, validation = upload(registry, principal), upload(registry, principal)
    job = submit(
        registry,
        principal,
        training_file=training.id,
        validation_file=validation.id,
        seed=7,
        hyperparameters={"n_epochs": "auto"},
        osora={"rank": 8},
    )
    attempt = claim(registry, job)
    assert (attempt.job_id, attempt.number, attempt.base) == (job.id, 1, "osora-tiny")
    assert (attempt.tenant_id, attempt.tenant_name) == (principal.tenant_id, "default")
    assert (attempt.seed, attempt.checkpoints, attempt.trained_tokens) == (7, (), 0)
    assert (attempt.hyperparameters, attempt.osora) == ({"n_epochs": "auto"}, {"rank": 8})
    assert attempt.training_file == jobs.FileRef(training.id, training.object_key, training.sha256, "chat")
    assert attempt.validation_file is not None
    assert attempt.validation_file.id == validation.id
    assert attempt.token not in repr(attempt)
    now = read(registry, principal, job)
    assert (now.status, now.worker_id) == ("running", "worker-1")
    assert now.started_at is not None


def test_the_next_attempt_resumes_from_the_newest_checkpoint(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    first = claim(registry, job)
    with registry.transaction() as session:
        for step in (10, 20, 30):
            record_checkpoint(session, first, step)
    expire_lease(registry, job)
    second = claim(registry, job, "worker-2")
    assert second.number == 2
    # The job keeps two: should the newest be damaged, the other one serves.
    assert second.checkpoints == tuple(
        CheckpointRef(step, f"checkpoints/{job.id}/1/{step}.safetensors", "b" * 64) for step in (30, 20)
    )
    with registry.reading() as session:
        rows = jobs.attempts(session, principal, job.id)
    assert [(row.number, row.worker_id, row.first_step) for row in rows] == [
        (1, "worker-1", 0),
        (2, "worker-2", 30),
    ]


@pytest.mark.parametrize("status", ["running", "paused", "cancelled"])
def test_there_is_nothing_to_claim(registry: Registry, principal: Principal, status: str) -> None:
    job = submit(registry, principal)
    if status == "running":
        claim(registry, job)
    with registry.transaction() as session:
        if status == "paused":
            jobs.pause(session, principal, job.id)
        elif status == "cancelled":
            jobs.cancel(session, principal, job.id)
        for alone in (False, True):
            assert jobs.claim(session, job.id, "worker-2", 60, alone=alone) is None
            assert jobs.claim_next(session, job.base, "worker-2", 60, alone=alone) is None


def test_heartbeats_renew_and_carry_signals(registry: Registry, principal: Principal) -> None:
    wanted = {"continue": None, "cancel": jobs.cancel, "pause": jobs.pause, "lost": None}
    held = {signal: submit(registry, principal) for signal in wanted}
    attempts = {signal: claim(registry, job) for signal, job in held.items()}
    expire_lease(registry, held["lost"])
    claim(registry, held["lost"], "worker-2")
    with registry.transaction() as session:
        for signal, request in wanted.items():
            if request:
                request(session, principal, held[signal].id)
        before = {signal: session.get_one(Job, job.id).lease_expires_at for signal, job in held.items()}
        assert jobs.heartbeat(session, attempts.values(), lease_seconds=600) == {
            attempts[signal].token: signal for signal in held
        }
        session.expire_all()
        for signal, job in held.items():
            was, is_now = before[signal], session.get_one(Job, job.id).lease_expires_at
            assert was is not None
            assert is_now is not None
            assert (is_now > was + 500) == (signal != "lost")
        assert jobs.heartbeat(session, [], lease_seconds=60) == {}


def test_a_heartbeat_saves_a_lease_that_ran_out_unnoticed(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    expire_lease(registry, job)
    with registry.transaction() as session:
        assert jobs.heartbeat(session, [attempt], 60) == {attempt.token: "continue"}
        assert jobs.reap(session) == 0


ERROR: jobs.JobError = {
    "code": "boom",
    "message": "it broke",
    "param": None,
    "fault": "user",
    "next_action": None,
}
WRITES: dict[str, Callable[[Session, Attempt], object]] = {
    "record_progress": lambda session, attempt: jobs.record_progress(
        session,
        attempt,
        step=1,
        total_steps=2,
        trained_tokens=3,
        metrics={},
        compute_seconds=1.0,
        remaining_seconds=None,
    ),
    "add_event": lambda session, attempt: jobs.add_event(session, attempt, "boo"),
    "record_checkpoint": lambda session, attempt: record_checkpoint(session, attempt, 1),
    "complete": lambda session, attempt: jobs.complete(
        session, attempt, step=1, trained_tokens=3, adapter=new_adapter(attempt), metrics={}
    ),
    "fail": lambda session, attempt: jobs.fail(session, attempt, ERROR),
    "fail_platform": lambda session, attempt: jobs.fail(session, attempt, {**ERROR, "fault": "platform"}),
    "began_at": lambda session, attempt: jobs.began_at(session, attempt, 0, "from the beginning"),
    "release": lambda session, attempt: jobs.release(session, attempt, "draining"),
}


def snapshot(registry: Registry) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with registry.engine.connect() as connection:
        return {
            name: sorted(tuple(map(repr, row)) for row in connection.execute(select(table)))
            for name, table in Base.metadata.tables.items()
        }


@pytest.mark.parametrize("successor", ["running", "queued", "succeeded", "cancelled"])
@pytest.mark.parametrize("write", WRITES)
def test_a_zombie_changes_nothing(registry: Registry, principal: Principal, write: str, successor: str) -> None:
    job = submit(registry, principal)
    zombie = claim(registry, job)
    expire_lease(registry, job)
    with registry.transaction() as session:
        jobs.reap(session)
        if successor != "queued":
            heir = jobs.claim(session, job.id, "worker-2", 60)
            assert heir is not None
            if successor == "succeeded":
                WRITES["complete"](session, heir)
            elif successor == "cancelled":
                jobs.cancel(session, principal, job.id)
                jobs.release(session, heir, "cancelled")
    before = snapshot(registry)

    def rise() -> None:
        with registry.transaction() as session:
            WRITES[write](session, zombie)

    with pytest.raises(LeaseLostError, match=job.id):
        rise()
    assert snapshot(registry) == before


def test_release_spends_no_attempt(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    for number in range(1, 10):
        attempt = claim(registry, job)
        assert attempt.number == number
        with registry.transaction() as session:
            jobs.release(session, attempt, "worker is shutting down")
    now = read(registry, principal, job)
    assert (now.status, now.attempts_spent, now.attempt) == ("queued", 0, 9)
    assert "Job returned to the queue: worker is shutting down" in messages(registry, principal, job)
    with registry.reading() as session:
        assert len(session.scalars(select(OutboxMessage)).all()) == 10
        assert {row.outcome for row in jobs.attempts(session, principal, job.id)} == {"released"}


@pytest.mark.parametrize(("request_", "status"), [(jobs.cancel, "cancelled"), (jobs.pause, "paused")])
def test_release_obeys_a_signal_that_the_worker_has_not_seen(
    registry: Registry,
    principal: Principal,
    request_: Callable[[Session, Principal, str], Job],
    status: str,
) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        request_(session, principal, job.id)
        jobs.release(session, attempt, "draining")
    assert read(registry, principal, job).status == status


def test_rows_can_be_read_after_their_session(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        adapter = jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new_adapter(attempt), metrics={})
        ended = jobs.get(session, principal, job.id)
    rows: tuple[Base, ...] = (job, adapter, ended)
    for row in rows:
        assert not inspect(row).expired_attributes


def test_signals_are_seen_between_heartbeats(registry: Registry, principal: Principal) -> None:
    plain, unwanted, lost = (claim(registry, submit(registry, principal)) for _ in range(3))
    with registry.transaction() as session:
        jobs.cancel(session, principal, unwanted.job_id)
        jobs.release(session, lost, "draining")
    with registry.reading() as session:
        assert jobs.signals(session, [plain, unwanted, lost]) == {
            plain.token: "continue",
            unwanted.token: "cancel",
            lost.token: "lost",
        }


def test_two_attempts_at_one_job_are_told_apart(registry: Registry, principal: Principal) -> None:
    """As a process holds that was asleep while its lease ran out, and that has claimed the job once more."""
    job = submit(registry, principal)
    lost = claim(registry, job)
    expire_lease(registry, job)
    held = claim(registry, job)
    expected = {lost.token: "lost", held.token: "continue"}
    with registry.transaction() as session:
        assert jobs.heartbeat(session, [lost, held], 600) == expected
        assert jobs.heartbeat(session, [held, lost], 600) == expected
    with registry.reading() as session:
        assert jobs.signals(session, [lost, held]) == expected


def test_a_job_on_its_last_attempt_goes_to_a_worker_without_others(registry: Registry, principal: Principal) -> None:
    """It may be what killed its workers, or have stood next to one that did."""
    job = submit(registry, principal)
    for alone in (False, False, True):
        with registry.transaction() as session:
            assert jobs.wants_to_be_alone(session, job.base) == alone
            assert jobs.claim_next(session, job.base, "worker", 60, alone=not alone) is None
            assert jobs.claim_next(session, job.base, "worker", 60, alone=alone) is not None
            assert jobs.wants_to_be_alone(session, job.base) is None
        expire_lease(registry, job)
        with registry.transaction() as session:
            jobs.reap(session)
    assert read(registry, principal, job).status == "failed"


def test_an_attempt_that_cannot_use_its_checkpoint_says_where_it_began(
    registry: Registry, principal: Principal
) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    for step in (10, 20):
        with registry.transaction() as session:
            record_checkpoint(session, attempt, step)
    expire_lease(registry, job)
    heir = claim(registry, job, "worker-2")
    with registry.transaction() as session:
        jobs.began_at(session, heir, 10, "Resuming from step 10: the other one is damaged")
    with registry.transaction() as session:
        superseded = record_checkpoint(session, heir, 15)
    # The damaged one, not the one that served.
    assert superseded == [f"checkpoints/{job.id}/1/20.safetensors", f"checkpoints/{job.id}/1/20.zip"]
    with registry.reading() as session:
        assert [row.first_step for row in jobs.attempts(session, principal, job.id)] == [0, 10]
        assert [row.step for row in jobs.checkpoints(session, principal, job.id).data] == [15, 10]
