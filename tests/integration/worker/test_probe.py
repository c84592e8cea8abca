"""A dry run with a probe: a worker takes the first steps of the job, and what they lose is what the job's steps do."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from registry import jobs, workers
from registry.context import Registry
from registry.jobs import probes
from registry.models import Adapter, Checkpoint, Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE, RANK
from tests.support.jobs import claim, read, submit
from tests.support.leaving import post_and_leave
from tests.support.places import a_place
from worker.attempt import run_attempt
from worker.probe import run_probe
from worker.reports import Reports
from worker.threads import EngineThread

STEPS = 6
WORKER = "worker-1"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"worker_jobs": 2, "broker_url": "redis://127.0.0.1:9/0", "port": 0})


class Worker:
    """Runs the next probe that is queued, once; `reports` are its attempt's."""

    def __init__(self, registry: Registry, engine: EngineThread) -> None:
        self.reports = Reports()
        self.claimed = threading.Event()
        self._registry, self._engine = registry, engine
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "Worker":
        with self._registry.transaction() as session:
            workers.seen(session, WORKER, [BASE], 2)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while not self._over.wait(0.02):
            with self._registry.transaction() as session:
                attempt = jobs.claim_next(session, BASE, WORKER, 60)
            if attempt is None:
                continue
            self.claimed.set()
            return run_probe(self._registry, self._engine, attempt, self.reports, a_place())


@pytest.fixture
def worker(registry: Registry, engine: EngineThread) -> Iterator[Worker]:
    with Worker(registry, engine) as worker:
        yield worker


def body(training_file: str, **osora: Any) -> dict[str, Any]:
    return {
        "model": BASE,
        "training_file": training_file,
        "seed": 5,
        "hyperparameters": {"n_epochs": 4, "batch_size": 4},
        "osora": {"rank": RANK, "learning_rate": 0.03, **osora},
    }


@pytest.mark.parametrize(
    "osora",
    [
        {},
        {"validation_share": 0.25, "early_stopping_patience": 1, "sample_prompts": ["help"]},
        {"learning_rate": [0.03, 0.1]},
        {"overlong": "truncate", "max_length": 24},
    ],
)
def test_the_probes_losses_and_settings_are_the_jobs(
    client: httpx.Client,
    worker: Worker,
    upload: Callable[..., str],
    registry: Registry,
    principal: Principal,
    engine: EngineThread,
    monkeypatch: pytest.MonkeyPatch,
    osora: dict[str, Any],
) -> None:
    wanted = body(upload("order", 24), **osora)
    answer = client.post(f"/jobs?dry_run=true&probe={STEPS}", json=wanted)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["probe"]["steps"] == len(told["probe"]["train_loss"]) == STEPS
    assert told["probe"]["tokens_per_second"] > 0
    assert told["estimated_seconds"] is not None
    with registry.reading() as session:
        assert jobs.list(session, principal).data == []
        assert session.scalars(select(Adapter)).all() == []
        assert session.scalars(select(Checkpoint)).all() == []

    monkeypatch.setattr("worker.attempt.METRICS_SECONDS", 0.0)  # each step is told
    made = client.post("/jobs", json=wanted).json()
    job = read(registry, principal, Job(id=made["id"]))
    run_attempt(registry, engine, claim(registry, job), Reports(), a_place())
    job = read(registry, principal, job)
    assert job.status == "succeeded", job.error
    shown = client.get(f"/jobs/{job.id}").json()
    assert shown["osora"]["rows"] == told["rows"]
    assert job.total_steps == told["steps"]
    assert shown["hyperparameters"]["batch_size"] == told["hyperparameters"]["batch_size"]
    if "sweep" not in told["osora"]:
        assert shown["osora"]["resolved"].items() <= told["osora"].items()
    with registry.reading() as session:
        events = jobs.events(session, principal, job.id, limit=1000).data
    trained = [event.data["train_loss"] for event in events if event.data and "train_loss" in event.data]
    assert trained[:STEPS] == pytest.approx(told["probe"]["train_loss"], rel=1e-4)


def test_a_job_that_has_fewer_steps_is_probed_to_its_end(
    client: httpx.Client, worker: Worker, upload: Callable[..., str]
) -> None:
    wanted = {**body(upload("order", 4)), "hyperparameters": {"n_epochs": 3, "batch_size": 4}}
    told = client.post("/jobs?dry_run=true&probe=50", json=wanted).json()
    assert (told["steps"], told["probe"]["steps"]) == (3, 3)


def test_what_the_job_would_fail_for_is_said(client: httpx.Client, worker: Worker, upload: Callable[..., str]) -> None:
    wanted = body(upload("please " * 40), max_length=24)
    told = client.post("/jobs?dry_run=true&probe=5", json=wanted).json()
    assert told["probe"] is None
    said = next(words for words in told["warnings"] if words.startswith("The job would fail"))
    assert "12 of 12 rows are more than 24 tokens long" in said
    assert "Next: shorten" in said


def test_it_shares_the_steps_of_what_trains_there(
    client: httpx.Client,
    upload: Callable[..., str],
    registry: Registry,
    principal: Principal,
    engine: EngineThread,
) -> None:
    knobs = {"rank": RANK, "learning_rate": 0.03}
    other = submit(
        registry, principal, base=BASE, training_file=upload("refund"), osora=knobs, hyperparameters={"n_epochs": 500}
    )
    reports, joined, together = Reports(), threading.Event(), threading.Event()
    progress = reports.progress

    def note(made: Any) -> None:
        progress(made)
        joined.set()
        if len(engine.engine.jobs) == 2:
            together.set()
            reports.signal("drain")

    reports.progress = note  # type: ignore[method-assign]
    attempt = threading.Thread(target=run_attempt, args=(registry, engine, claim(registry, other), reports, a_place()))
    attempt.start()
    assert joined.wait(60)
    with Worker(registry, engine):  # not earlier: it claims whatever waits, the other job too
        told = client.post("/jobs?dry_run=true&probe=50", json=body(upload("order"))).json()
        attempt.join(60)
    assert together.is_set()
    assert told["probe"]["steps"] == 12


@pytest.fixture
def stuck(engine: EngineThread) -> Iterator[threading.Event]:
    """The engine's thread is held until the test ends or sets the event."""
    free = threading.Event()
    engine.post(lambda _: free.wait(60))
    yield free
    free.set()


def status(registry: Registry) -> str:
    with registry.reading() as session:
        return session.scalars(select(Job.status)).one()


def test_who_waits_too_long_is_answered_and_the_probe_ends(
    client: httpx.Client,
    worker: Worker,
    upload: Callable[..., str],
    registry: Registry,
    stuck: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    told = client.post("/jobs?dry_run=true&probe=5", json=body(upload("order"))).json()
    assert told["probe"] is None
    assert any("0 of 5 steps done" in words or "did not get its turn" in words for words in told["warnings"])
    worker.reports.signal("cancel")  # as a heartbeat says it
    worker.__exit__()
    assert status(registry) == "cancelled"


def test_who_leaves_ends_it(
    client: httpx.Client, worker: Worker, upload: Callable[..., str], registry: Registry, stuck: threading.Event
) -> None:
    post_and_leave(client, "/jobs?dry_run=true&probe=5", body(upload("order")), worker.claimed)
    with registry.reading() as session:
        probe_id = session.scalars(select(Job.id)).one()
    for _ in range(600):
        with registry.reading() as session:
            job = session.get_one(Job, probe_id)
        if job.signal == "cancel" or job.is_terminal:
            break
        threading.Event().wait(0.1)
    assert job.signal == "cancel"
    worker.reports.signal("cancel")
    worker.__exit__()
    assert status(registry) == "cancelled"


def test_a_worker_that_stops_gives_it_back(
    registry: Registry, principal: Principal, engine: EngineThread, upload: Callable[..., str]
) -> None:
    with registry.transaction() as session:
        request = jobs.JobRequest(base=BASE, training_file=upload("order"), osora={"rank": RANK}, seed=1)
        probes.start(session, principal, request, registry.settings, {}, 50)
    with registry.transaction() as session:
        attempt = jobs.claim_next(session, BASE, WORKER, 60)
    assert attempt is not None
    reports = Reports()
    reports.signal("drain")
    run_probe(registry, engine, attempt, reports, a_place())
    assert status(registry) == "queued"
    with Worker(registry, engine):
        for _ in range(600):
            if status(registry) == "succeeded":
                break
            threading.Event().wait(0.1)
    assert status(registry) == "succeeded"
    with registry.reading() as session:
        assert session.scalars(select(Checkpoint)).all() == []
