"""Whose turn it is: fair among tenants, by priority and age within one, and what is said of it beforehand."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from registry import jobs, tenants
from registry.context import Registry
from registry.db import now
from registry.jobs import Attempt
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.support.jobs import expire_lease, upload
from tests.support.jobs import submit as submit_job
from tests.support.threads import in_parallel

Submit = Callable[..., Job]


@pytest.fixture
def submit(registry: Registry) -> Submit:
    """Queues a job on a file that its tenant's jobs share; `age`: how many seconds ago."""
    files: dict[str, str] = {}

    def make(who: Principal, priority: str | None = None, age: float = 0, **changes: Any) -> Job:
        if who.tenant_id not in files:
            files[who.tenant_id] = upload(registry, who).id
        osora: dict[str, Any] = {"priority": priority} if priority else {}
        job = submit_job(registry, who, training_file=files[who.tenant_id], osora=osora)
        if age or changes:
            with registry.transaction() as session:
                session.execute(update(Job).where(Job.id == job.id).values(queued_at=now() - age, **changes))
        return job

    return make


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Where everybody may have any priority."""
    return settings.model_copy(update={"limit_priority": "high"})


def claim_next(registry: Registry, alone: bool = False) -> Attempt | None:
    with registry.transaction() as session:
        return jobs.claim_next(session, "osora-tiny", "worker-1", 60, alone=alone)


def claim_all(registry: Registry) -> list[str]:
    found = []
    while (attempt := claim_next(registry)) is not None:
        found.append(attempt.job_id)
    return found


def finish(registry: Registry, attempt: Attempt) -> None:
    error: jobs.JobError = {"code": "a", "message": "b", "param": None, "fault": "user", "next_action": None}
    with registry.transaction() as session:
        jobs.fail(session, attempt, error)


def test_fifty_jobs_do_not_hold_up_another_tenants_one(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit
) -> None:
    for _ in range(50):
        submit(principal)
    for _ in range(4):
        claim_next(registry)
    late = submit(stranger)
    following = claim_next(registry)
    assert following is not None
    assert following.job_id == late.id


def test_with_one_slot_tenants_take_turns(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit
) -> None:
    """Nothing of either runs when it is free, so whoever was served longer ago is next."""
    for _ in range(4):
        submit(principal, "high")
    for _ in range(4):
        submit(stranger, "low")
    served = []
    while (attempt := claim_next(registry)) is not None:
        served.append(attempt.tenant_id)
        finish(registry, attempt)
    assert served == [principal.tenant_id, stranger.tenant_id] * 4


def test_a_running_job_weighs_by_its_priority(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit
) -> None:
    """Of nine slots two thirds go to the tenant whose jobs weigh half."""
    for _ in range(9):
        submit(principal)
        submit(stranger, "high")
    served = [attempt.tenant_id for _ in range(9) if (attempt := claim_next(registry))]
    assert (served.count(principal.tenant_id), served.count(stranger.tenant_id)) == (3, 6)


def test_within_a_tenant_priority_is_worth_an_hour(registry: Registry, principal: Principal, submit: Submit) -> None:
    low, normal, high = (submit(principal, priority) for priority in ("low", None, "high"))
    old_normal = submit(principal, age=3700)
    old_low = submit(principal, "low", age=3700)
    older_low = submit(principal, "low", age=7400)
    wanted = [older_low, old_normal, high, old_low, normal, low]
    assert claim_all(registry) == [job.id for job in wanted]


def test_low_jobs_do_not_starve(registry: Registry, principal: Principal, submit: Submit) -> None:
    """However many come after it."""
    low = submit(principal, "low", age=3601)
    for _ in range(5):
        submit(principal)
    assert claim_all(registry)[0] == low.id


@pytest.mark.parametrize("way", ["drain", "lost", "fault"])
def test_an_interrupted_job_goes_first(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit, way: str
) -> None:
    """Before those of a tenant that has nothing running, and before older ones of its own."""
    submit(principal)
    interrupted = claim_next(registry)
    assert interrupted is not None
    submit(principal)
    claim_next(registry)
    submit(principal, "high", age=100)
    submit(stranger, "high", age=100)
    with registry.transaction() as session:
        queued_at = session.get_one(Job, interrupted.job_id).queued_at
        if way == "drain":
            jobs.release(session, interrupted, "its worker is stopping")
        elif way == "fault":
            error: jobs.JobError = {
                "code": "a",
                "message": "b",
                "param": None,
                "fault": "platform",
                "next_action": None,
            }
            jobs.fail(session, interrupted, error)
            assert jobs.wants_to_be_alone(session, "osora-tiny") is False  # the others; its retry is not due yet
            session.get_one(Job, interrupted.job_id).announced_at = 0
    if way == "lost":
        with registry.reading() as session:
            job = session.get_one(Job, interrupted.job_id)
        expire_lease(registry, job)
        with registry.transaction() as session:
            assert jobs.reap(session) == 1
    with registry.reading() as session:
        job = session.get_one(Job, interrupted.job_id)
        assert job.queued_at == queued_at
        assert jobs.queue_position(session, job) == 0
    following = claim_next(registry)
    assert following is not None
    assert following.job_id == interrupted.job_id


def test_a_retry_is_not_claimed_before_it_is_due(registry: Registry, principal: Principal, submit: Submit) -> None:
    job = submit(principal, announced_at=now() + 1000)
    assert claim_next(registry) is None
    with registry.transaction() as session:
        session.execute(update(Job).values(announced_at=now()))
    assert claim_all(registry) == [job.id]


def test_resuming_a_paused_job_keeps_its_age_and_does_not_put_it_first(
    registry: Registry, principal: Principal, submit: Submit
) -> None:
    older = submit(principal, age=20)
    paused = submit(principal, age=10)
    younger = submit(principal)
    with registry.transaction() as session:
        jobs.pause(session, principal, paused.id)
        jobs.resume(session, principal, paused.id)
    assert claim_all(registry) == [older.id, paused.id, younger.id]


def test_claims_at_once_are_fair_too(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit
) -> None:
    for who in (principal, stranger):
        for _ in range(8):
            submit(who)
    served: list[str] = []

    def run(index: int) -> None:
        attempt = claim_next(registry)
        assert attempt is not None
        served.append(attempt.tenant_id)

    in_parallel(8, run)
    assert sorted(served) == sorted([principal.tenant_id, stranger.tenant_id] * 4)


@pytest.mark.parametrize("seed", range(4))
def test_the_places_in_the_queue_are_the_order_of_the_claims(
    registry: Registry, principal: Principal, submit: Submit, seed: int
) -> None:
    chance = random.Random(seed)
    who = [principal]
    for name in ("one", "two"):
        with registry.transaction() as session:
            _, plaintext = tenants.create_key(session, name, "test", tenants.ALL_SCOPES)
            who.append(tenants.authenticate(session, plaintext))
    for index in range(30):
        tenant = chance.choice(who)
        priority = chance.choice(["low", "normal", "high"])
        submit(tenant, priority, age=chance.uniform(0, 9000), interrupted=chance.random() < 0.15)
        if index % 10 == 0 and (attempt := claim_next(registry)) and chance.random() < 0.5:
            finish(registry, attempt)
    with registry.reading() as session:
        waiting = session.scalars(select(Job).where(Job.status == "queued")).all()
        places = jobs.queue_positions(session, waiting)
    foretold = sorted(places, key=places.__getitem__)
    assert sorted(places.values()) == list(range(len(waiting)))
    assert claim_all(registry) == foretold


def test_a_new_job_gets_the_place_that_it_was_told_of(
    registry: Registry, principal: Principal, stranger: Principal, submit: Submit
) -> None:
    """Whatever waits and runs; and tenants whose jobs are passed over are left out of the claims."""
    chance = random.Random(5)
    files = {who.tenant_id: upload(registry, who).id for who in (principal, stranger)}
    for _ in range(12):
        who = chance.choice([principal, stranger])
        priority = chance.choice([None, "high", "low"])
        if chance.random() < 0.4:
            claim_next(registry)
        submit(chance.choice([principal, stranger]), chance.choice(["high", "low"]), age=chance.randrange(7200))
        wanted = jobs.JobRequest(
            base="osora-tiny",
            training_file=files[who.tenant_id],
            osora={"priority": priority} if priority else {},
        )
        with registry.reading() as session:
            told = jobs.expected(session, who, wanted, registry.settings)
        job = submit(who, priority)
        with registry.reading() as session:
            assert told == jobs.foresee(session, job, registry.settings)
    with registry.transaction() as session:
        kept = jobs.claim_next(session, "osora-tiny", "worker-1", 60, [principal.tenant_id])
        assert kept is not None
        assert kept.tenant_id == stranger.tenant_id
        both = [principal.tenant_id, stranger.tenant_id]
        assert jobs.claim_next(session, "osora-tiny", "worker-1", 60, both) is None
        assert jobs.wants_to_be_alone(session, "osora-tiny", both) is None
