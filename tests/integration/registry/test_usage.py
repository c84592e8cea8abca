"""What is used is in the sums once: of generations whatever comes twice, of jobs whatever is done twice."""

import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from registry import jobs, usage
from registry.context import Registry
from registry.jobs import Attempt, LeaseLostError, probes
from registry.models import Job
from registry.tenants import Principal
from registry.usage import Generated, Spent
from registry.usage.days import DAY_SECONDS, day_of
from registry.usage.tables import MeteredJob, UsageDay, UsageSegment
from tests.integration.registry.test_probes import overdue, record, start
from tests.support.jobs import claim, expire_lease, submit
from tests.support.threads import in_parallel

NOW = int(time.time())


def generated(number: int, principal: Principal, **fields: Any) -> Generated:
    said = Generated(number, principal.tenant_id, principal.key_id, "osora-tiny", "", "generate", 10, number, NOW)
    return replace(said, **fields)


def take(registry: Registry, segment: str, records: list[Generated]) -> int:
    with registry.transaction() as session:
        return usage.take_over(session, segment, records, records[-1].number)


def spent(registry: Registry, principal: Principal, **fields: Any) -> Spent:
    with registry.reading() as session:
        return usage.spent(session, principal.tenant_id, **{"since": NOW - DAY_SECONDS, **fields})


def report(session: Session, attempt: Attempt, step: int, seconds: float) -> None:
    jobs.record_progress(
        session,
        attempt,
        step=step,
        total_steps=10,
        trained_tokens=100 * step,
        metrics={},
        compute_seconds=seconds,
        remaining_seconds=None,
    )


def test_a_record_that_comes_again_counts_once(registry: Registry, principal: Principal) -> None:
    first, second, third = (generated(number, principal) for number in (1, 2, 3))
    assert take(registry, "a", [first, second]) == 2
    assert take(registry, "a", [first, second, third]) == 1
    assert take(registry, "a", [second]) == 0
    assert take(registry, "b", [first]) == 1
    assert spent(registry, principal) == Spent(requests=4, prompt_tokens=40, completion_tokens=7)


def test_several_processes_take_over_the_same_records_at_once(registry: Registry, principal: Principal) -> None:
    """And those of several servers, for the same sums, without waiting for each other in a circle."""
    kinds = ("chat", "generate", "messages")
    records = [generated(number + 1, principal, kind=kinds[number % 3]) for number in range(30)]

    def process(index: int) -> None:
        for upto in (5, 17, 30):
            take(registry, f"segment-{index % 2}", records[:upto] if index % 3 else records[upto - 5 : upto])

    # All but two begin in the middle: what they pass over has to be there first.
    for segment in ("segment-0", "segment-1"):
        take(registry, segment, records[:25])
    in_parallel(6, process)
    assert spent(registry, principal).requests == 60


def test_sums_are_kept_apart_by_day_and_key(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.usage.days.clock", lambda session: NOW)  # or midnight may have come since
    yesterday = generated(1, principal, ended_at=NOW - DAY_SECONDS)
    tomorrow = generated(2, principal, ended_at=NOW + 2 * DAY_SECONDS)  # by a clock that goes wrong
    take(registry, "a", [yesterday, tomorrow, generated(3, principal, key_id="key-other")])
    assert spent(registry, principal).requests == 3
    assert spent(registry, principal, since=NOW).requests == 2
    assert spent(registry, principal, since=NOW, key_id="key-other").completion_tokens == 3
    with registry.reading() as session:
        days = set(session.scalars(select(UsageDay.day)))
    assert days == {day_of(NOW), day_of(NOW) - DAY_SECONDS}


def test_a_tenant_that_is_no_more_holds_up_nobody(registry: Registry, principal: Principal) -> None:
    assert take(registry, "a", [generated(1, principal, tenant_id="tenant-gone"), generated(2, principal)]) == 2
    assert spent(registry, principal).requests == 1


def test_segments_that_are_gone_are_forgotten_a_day_later(registry: Registry, principal: Principal) -> None:
    take(registry, "old", [generated(1, principal)])
    take(registry, "gone", [generated(1, principal)])
    with registry.transaction() as session:
        usage.forget(session, ["old"])
        session.execute(update(UsageSegment).where(UsageSegment.id == "old").values(gone_at=NOW - 2 * DAY_SECONDS))
        usage.forget(session, ["gone"])
        assert set(session.scalars(select(UsageSegment.id))) == {"gone"}
    assert take(registry, "gone", [generated(1, principal)]) == 0


def test_a_job_is_charged_in_the_transaction_that_tells_of_it(registry: Registry, principal: Principal) -> None:
    attempt = claim(registry, submit(registry, principal))
    for step, seconds in ((1, 0.5), (3, 1.5), (3, 1.5)):  # the last one again, as after a lost answer
        with registry.transaction() as session:
            report(session, attempt, step, seconds)
    assert spent(registry, principal, key_id=principal.key_id) == Spent(
        trained_tokens=300, steps=3, compute_seconds=1.5
    )
    with registry.sessions() as session:  # of a process that ends before it commits
        report(session, attempt, 5, 9.0)
    assert spent(registry, principal).steps == 3


def test_repeated_steps_cost_seconds_and_no_tokens_and_a_zombie_costs_nothing(
    registry: Registry, principal: Principal
) -> None:
    job = submit(registry, principal)
    first = claim(registry, job)
    with registry.transaction() as session:
        report(session, first, 4, 2.0)
    expire_lease(registry, job)
    second = claim(registry, job)
    with pytest.raises(LeaseLostError), registry.transaction() as session:
        report(session, first, 9, 50.0)
    with registry.transaction() as session:
        report(session, second, 2, 1.0)
        report(session, second, 5, 2.5)
    assert spent(registry, principal) == Spent(trained_tokens=500, steps=5, compute_seconds=4.5)


def test_a_probe_is_charged_as_one_and_leaves_nothing_else(registry: Registry, principal: Principal) -> None:
    probe_id = start(registry, principal)
    with registry.transaction() as session:
        attempt = jobs.claim_next(session, "osora-tiny", "worker-1", lease_seconds=60)
    assert attempt is not None
    with registry.transaction() as session:
        record(session, attempt, [2.0])
        record(session, attempt, [2.0, 1.5])
    overdue(registry, probe_id)
    with registry.transaction() as session:
        probes.clear(session)
        assert session.scalar(select(func.count()).select_from(MeteredJob)) == 0
        assert session.scalars(select(UsageDay.kind)).all() == ["probe"]
    assert spent(registry, principal) == Spent(trained_tokens=16, steps=2, compute_seconds=1.0)


def test_a_job_of_before_keys_were_noted_is_charged_from_now_on(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        session.delete(session.get_one(MeteredJob, job.id))
        session.execute(update(Job).where(Job.id == job.id).values(step=3, trained_tokens=300))
    with registry.transaction() as session:
        report(session, attempt, 5, 1.0)
    assert spent(registry, principal, key_id="") == Spent(trained_tokens=200, steps=2, compute_seconds=1.0)
