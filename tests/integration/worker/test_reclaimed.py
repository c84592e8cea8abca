"""Two attempts at one job in one worker: the first has lost its lease, and does not know or has not reacted yet."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from osora_core.training import Outcome, Progress, TrainingEngine
from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt
from registry.models import Job
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE, RANK
from tests.support.jobs import claim, expire_lease, read, submit
from tests.support.places import a_place
from worker import points
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread

SECONDS = 60


class Scripted(Reports):
    """Reports that say what has happened, and hold the engine in its first step for as long as they are told."""

    def __init__(self, *, hold_step: bool = False) -> None:
        super().__init__()
        self.stepping, self.go_on = threading.Event(), threading.Event()
        self.waiting, self.over = threading.Event(), threading.Event()
        if not hold_step:
            self.go_on.set()

    def progress(self, progress: Progress) -> None:
        self.stepping.set()
        assert self.go_on.wait(SECONDS)
        super().progress(progress)

    def finished(self, outcome: Outcome) -> None:
        super().finished(outcome)
        self.over.set()

    def pause(self, seconds: float) -> None:
        if seconds > 0:
            self.waiting.set()
        super().pause(seconds)


Run = Callable[[Attempt, Reports], Future[None]]


@pytest.fixture
def run(registry: Registry, engine: EngineThread) -> Iterator[Run]:
    with ThreadPoolExecutor(2) as threads:
        yield lambda attempt, reports: threads.submit(run_attempt, registry, engine, attempt, reports, a_place())


@pytest.fixture(params=["single", "sweep"])
def job(request: pytest.FixtureRequest, registry: Registry, principal: Principal, upload: Callable[..., str]) -> Job:
    """Three steps, of one job or of a sweep of two."""
    rates: dict[str, Any] = {"single": {"learning_rate": 0.03}, "sweep": {"learning_rate": [0.03, 0.01]}}
    return submit(
        registry,
        principal,
        base=BASE,
        seed=1,
        training_file=upload("order"),
        hyperparameters={"n_epochs": 1, "batch_size": 4},
        osora={"rank": RANK, **rates[request.param]},
    )


def assert_ended(registry: Registry, principal: Principal, engine: EngineThread, job: Job, free: int) -> None:
    ended = read(registry, principal, job)
    assert (ended.status, ended.step) == ("succeeded", 3), ended.error
    with registry.reading() as session:
        attempts = jobs.attempts(session, principal, job.id)
    assert [attempt.outcome for attempt in attempts] == ["lost", "succeeded"]
    left = engine.call(lambda e: (e.jobs, e.after_step, e.bank.free))
    assert left == ({}, {}, free)


def test_the_successor_waits_until_the_first_has_left_the_engine(
    registry: Registry,
    principal: Principal,
    engine: EngineThread,
    job: Job,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = engine.engine.bank.free
    first, second = Scripted(hold_step=True), Scripted()
    lost = run(claim(registry, job), first)
    assert first.stepping.wait(SECONDS)
    expire_lease(registry, job)
    joining = threading.Event()
    post = engine.post

    def posting(function: Callable[[TrainingEngine], Any]) -> Future[Any]:
        future = post(function)
        joining.set()
        return future

    monkeypatch.setattr(engine, "post", posting)
    won = run(claim(registry, job), second)
    assert joining.wait(SECONDS)
    first.go_on.set()
    assert second.waiting.wait(SECONDS)
    first.signal("lost")
    lost.result(SECONDS)
    won.result(SECONDS)
    assert_ended(registry, principal, engine, job, free)


def test_what_ends_late_takes_nothing_of_its_successors_with_it(
    registry: Registry,
    principal: Principal,
    engine: EngineThread,
    job: Job,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = engine.engine.bank.free
    first, second = Scripted(), Scripted(hold_step=True)
    react = threading.Event()
    attempts: list[int] = []

    def observe(point: str, _: str) -> None:
        """The first attempt's thread hears of its first step when the engine has long been through with its job."""
        if point == "stepped" and not attempts:
            attempts.append(1)
            assert react.wait(SECONDS)

    monkeypatch.setattr(points, "_observer", observe)
    lost = run(claim(registry, job), first)
    assert first.over.wait(SECONDS)
    expire_lease(registry, job)
    won = run(claim(registry, job), second)
    assert second.stepping.wait(SECONDS)
    react.set()
    lost.result(SECONDS)
    second.go_on.set()
    won.result(SECONDS)
    assert_ended(registry, principal, engine, job, free)
