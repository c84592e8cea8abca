"""What is said of a job's future, and of what it waits for."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from registry import jobs, outbox, workers
from registry.context import Registry
from registry.db import now
from registry.jobs import Forecast, forecast
from registry.models import Job, JobAttempt
from registry.tenants import Principal
from tests.support.jobs import claim, expire_lease, new_adapter, submit, upload


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause of the machine looks like a broker that is away."""
    monkeypatch.setattr(forecast, "_UNPUBLISHED_SECONDS", 600)


@pytest.fixture
def training_file(registry: Registry, principal: Principal) -> str:
    return upload(registry, principal).id


def foresee(registry: Registry, job: Job) -> Forecast:
    with registry.reading() as session:
        return jobs.foresee(session, session.get_one(Job, job.id), registry.settings)


def shift(registry: Registry, job: Job, running: Mapping[str, float] | None = None) -> tuple[int | None, int | None]:
    """How many seconds from now its start and its finish are, to the next ten.

    `running`: in how many seconds workers say that they will be done, by the jobs' ids.
    """

    def clock() -> float:
        with registry.reading() as session:
            return session.scalars(select(now())).one()

    def ask() -> Forecast:
        for job_id, seconds in (running or {}).items():
            change(registry, job_id, estimated_finish=from_now(seconds))
        return foresee(registry, job)

    time = clock()
    while (found := ask()) and (later := clock()) - time > 2:  # a busy machine was in between
        time = later
    times = (found.estimated_start, found.estimated_finish)
    first, second = (None if moment is None else round((moment - time) / 10) * 10 for moment in times)
    return first, second


def change(registry: Registry, job_id: str, **values: Any) -> None:
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


def from_now(seconds: float) -> Any:
    return now() + seconds


def start_worker(registry: Registry, name: str = "worker-1", *, slots: int = 2, base: str = "osora-tiny") -> None:
    with registry.transaction() as session:
        workers.seen(session, name, [base], slots)


def publish_all(registry: Registry) -> None:
    outbox.relay(registry, lambda *message: None)


def succeeded(registry: Registry, principal: Principal, training_file: str, *seconds: int) -> None:
    """A job in the past whose attempts took so long, with a long wait between them."""
    job = submit(registry, principal, training_file=training_file)
    for left in reversed(range(len(seconds))):
        attempt = claim(registry, job)
        with registry.transaction() as session:
            if left:
                jobs.release(session, attempt, "a test")
            else:
                jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new_adapter(attempt), metrics={})
    with registry.transaction() as session:
        for number, length in enumerate(seconds, start=1):
            began = 1_700_000_000 + 10_000 * number
            of_job = update(JobAttempt).where(JobAttempt.job_id == job.id, JobAttempt.number == number)
            session.execute(of_job.values(started_at=began, finished_at=began + length))


class TestTimes:
    def test_without_a_live_worker_nothing_is_known(
        self, registry: Registry, principal: Principal, training_file: str
    ) -> None:
        succeeded(registry, principal, training_file, 100)
        job = submit(registry, principal, training_file=training_file)
        start_worker(registry, "of another base", base="osora-large")
        start_worker(registry, "silent")
        with registry.transaction() as session:
            session.execute(update(workers.Worker).where(workers.Worker.id == "silent").values(seen_at=from_now(-61)))
        assert foresee(registry, job) == Forecast(0, None, None, "a worker: no live one serves osora-tiny")

    def test_free_slots_are_taken_at_once_and_the_rest_is_unknown_without_a_history(
        self, registry: Registry, principal: Principal, training_file: str
    ) -> None:
        start_worker(registry, slots=2)
        queue = [submit(registry, principal, training_file=training_file) for _ in range(3)]
        assert [shift(registry, job) for job in queue] == [(0, None), (0, None), (None, None)]

    def test_the_queue_is_played_through_with_the_mean_of_what_jobs_took(
        self, registry: Registry, principal: Principal, stranger: Principal, training_file: str
    ) -> None:
        succeeded(registry, principal, training_file, 80)
        succeeded(registry, principal, training_file, 50, 70)
        start_worker(registry, "worker-1", slots=1)
        start_worker(registry, "worker-2", slots=1)
        queue = [submit(registry, who) for who in (principal, stranger, principal, principal, stranger)]
        another = submit(registry, principal, training_file=training_file)
        change(registry, another.id, base="osora-large")
        assert [shift(registry, job) for job in queue] == [(0, 100), (0, 100), (100, 200), (200, 300), (100, 200)]
        assert shift(registry, another) == (None, None)

    def test_running_jobs_hold_slots_of_live_workers(
        self, registry: Registry, principal: Principal, training_file: str
    ) -> None:
        succeeded(registry, principal, training_file, 100)
        start_worker(registry, "worker-1", slots=1)
        start_worker(registry, "worker-2", slots=2)
        running = {}
        for worker, finish in (("worker-1", 300), ("worker-2", 30), ("worker-2", -60), ("dead", 10)):
            job = submit(registry, principal, training_file=training_file)
            claim(registry, job, worker)
            running[job.id] = finish
        queue = [submit(registry, principal, training_file=training_file) for _ in range(4)]
        # The one that is overdue is expected to end any moment.
        assert [shift(registry, job, running)[0] for job in queue] == [0, 30, 100, 130]

    def test_steps_that_are_behind_a_job_are_taken_off(
        self, registry: Registry, principal: Principal, training_file: str
    ) -> None:
        succeeded(registry, principal, training_file, 100)
        start_worker(registry, slots=1)
        running, queued = (submit(registry, principal, training_file=training_file) for _ in range(2))
        claim(registry, running)
        change(registry, running.id, step=5, total_steps=10)
        change(registry, queued.id, step=9, total_steps=10)
        assert shift(registry, running) == (None, 50)
        assert shift(registry, queued) == (50, 60)
        change(registry, running.id, step=10)
        assert shift(registry, queued) == (0, 10)

    def test_a_running_job_ends_when_its_worker_says(
        self, registry: Registry, principal: Principal, training_file: str
    ) -> None:
        running = submit(registry, principal, training_file=training_file)
        claim(registry, running)
        assert foresee(registry, running) == Forecast()
        assert shift(registry, running, {running.id: 40}) == (None, 40)

    def test_only_the_latest_jobs_count(self, registry: Registry, principal: Principal, training_file: str) -> None:
        succeeded(registry, principal, training_file, 100_000)
        for _ in range(20):
            succeeded(registry, principal, training_file, 100)
        start_worker(registry)
        assert shift(registry, submit(registry, principal, training_file=training_file)) == (0, 100)


class TestWaitingFor:
    def test_in_turn(self, registry: Registry, principal: Principal, training_file: str) -> None:
        start_worker(registry, slots=1)
        first, second, third, fourth = (submit(registry, principal, training_file=training_file) for _ in range(4))

        def waiting_for() -> list[str | None]:
            return [foresee(registry, job).waiting_for for job in (first, second, third, fourth)]

        assert waiting_for() == ["a worker to claim it", "1 job ahead", "2 jobs ahead", "3 jobs ahead"]
        claim(registry, first)
        with registry.transaction() as session:
            jobs.pause(session, principal, third.id)
            jobs.cancel(session, principal, fourth.id)
        assert waiting_for() == [None, "a free slot: 1 of 1 taken", "somebody to resume it", None]
        expire_lease(registry, first)
        assert waiting_for()[0] == "another worker: worker-1 has stopped renewing its lease"

    def test_a_retry(self, registry: Registry, principal: Principal, training_file: str) -> None:
        start_worker(registry)
        job = submit(registry, principal, training_file=training_file)
        attempt = claim(registry, job)
        with registry.transaction() as session:
            jobs.fail(session, attempt, PLATFORM_ERROR)
        change(registry, job.id, announced_at=2_000_000_000)
        found = foresee(registry, job)
        assert found.waiting_for == "a retry at 2033-05-18 03:33:20 UTC"
        assert found.estimated_start == 2_000_000_000

    def test_the_broker(self, registry: Registry, principal: Principal, training_file: str) -> None:
        start_worker(registry)
        job = submit(registry, principal, training_file=training_file)
        change(registry, job.id, announced_at=from_now(-601))
        assert foresee(registry, job).waiting_for == "the broker, which does not take its wake-up"
        publish_all(registry)
        assert foresee(registry, job).waiting_for == "a worker to claim it"

    def test_a_worker_of_its_own(self, registry: Registry, principal: Principal, training_file: str) -> None:
        start_worker(registry)
        job = submit(registry, principal, training_file=training_file)
        for _ in range(2):
            attempt = claim(registry, job)
            with registry.transaction() as session:
                jobs.fail(session, attempt, PLATFORM_ERROR)
            change(registry, job.id, announced_at=from_now(0))
        waiting_for = foresee(registry, job).waiting_for
        assert waiting_for == "a worker without other jobs, as it has cost 2 attempts already"


PLATFORM_ERROR: jobs.JobError = {
    "code": "worker_error",
    "message": "it broke",
    "param": None,
    "fault": "platform",
    "next_action": None,
}


def test_a_long_queue_takes_no_more_queries(registry: Registry, principal: Principal, training_file: str) -> None:
    start_worker(registry)
    queries: list[str] = []

    @event.listens_for(registry.engine, "before_cursor_execute")
    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        queries.append(statement)

    def asked(job: Job) -> int:
        queries.clear()
        foresee(registry, job)
        return len([query for query in queries if query.startswith("SELECT")])

    submit(registry, principal, training_file=training_file)
    second = submit(registry, principal, training_file=training_file)
    before = asked(second)
    for _ in range(20):
        last = submit(registry, principal, training_file=training_file)
        claim(registry, submit(registry, principal, training_file=training_file))
    assert before == asked(last) <= 7


def test_a_session_that_writes_may_ask(registry: Registry, principal: Principal, training_file: str) -> None:
    """As the answer to a request for a new job does."""

    def ask(session: Session) -> Forecast:
        request = jobs.JobRequest("osora-tiny", training_file)
        job = jobs.submit(session, principal, request, registry.settings)
        return jobs.foresee(session, job, registry.settings)

    start_worker(registry)
    with registry.transaction() as session:
        assert ask(session).waiting_for == "a worker to claim it"
        assert ask(session).waiting_for == "1 job ahead"
