"""What an attempt does before its first step takes its time, and a signal does not wait for it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from osora_core.data import Renderer
from osora_core.training.throughput import Throughput
from registry import jobs
from registry.context import Registry
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE, RANK
from tests.support.jobs import claim, messages, read, submit
from worker.attempt import run_attempt
from worker.reports import Reports, Signal
from worker.threads import EngineThread

SIGNALS: list[tuple[Signal, str]] = [
    ("cancel", "cancelled"),
    ("pause", "paused"),
    ("suspend", "queued"),
    ("drain", "queued"),
]
Interrupted = Callable[..., Job]


class Hold:
    """A place where a thread stays, until the test is over."""

    def __init__(self) -> None:
        self.reached, self.released, self.times = threading.Event(), threading.Event(), 0

    def __call__(self, *_: Any) -> Any:
        self.times += 1
        self.reached.set()
        assert self.released.wait(60)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As many members of a sweep as the engine has slots."""
    return settings.model_copy(update={"worker_jobs": 2})


@pytest.fixture
def hold(engine: EngineThread) -> Iterator[Hold]:
    hold = Hold()
    yield hold
    hold.released.set()


@pytest.fixture
def interrupted(registry: Registry, principal: Principal, engine: EngineThread, hold: Hold) -> Interrupted:
    """Runs an attempt until a thread is held, sends the signal, and waits for the attempt to end. Whatever is held,
    still is then."""

    def run(signal: Signal, **request: Any) -> Job:
        wanted = {"base": BASE, "seed": 1, "osora": {"rank": RANK}, **request}
        job, reports = submit(registry, principal, **wanted), Reports()
        attempt = threading.Thread(target=run_attempt, args=(registry, engine, claim(registry, job), reports))
        attempt.start()
        assert hold.reached.wait(60)
        if signal in ("cancel", "pause"):
            with registry.transaction() as session:
                getattr(jobs, signal)(session, principal, job.id)
        reports.signal(signal)
        attempt.join(60)
        assert not attempt.is_alive()
        assert not hold.released.is_set()
        return read(registry, principal, job)

    return run


@pytest.mark.parametrize(("signal", "status"), SIGNALS)
def test_in_the_middle_of_a_measured_step(
    interrupted: Interrupted,
    upload: Callable[..., str],
    registry: Registry,
    principal: Principal,
    engine: EngineThread,
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
    signal: Signal,
    status: str,
) -> None:
    """It is the last one: nothing is measured for a job that is gone."""
    monkeypatch.setattr(engine.engine.throughput, "_full", 10**6)
    monkeypatch.setattr(Throughput, "_step", hold)
    hyperparameters = {"n_epochs": 100, "batch_size": 4}
    rows = {"training_file": upload("order"), "validation_file": upload("order", 20)}
    job = interrupted(signal, **rows, hyperparameters=hyperparameters)
    assert job.status == status
    said = messages(registry, principal, job)
    assert any(words.startswith("Measuring what a sweep of 2 learning rates would take") for words in said)
    hold.released.set()
    assert engine.call(lambda e: (e.jobs, e.bank.free)) == ({}, 2)
    assert hold.times == 1


@pytest.mark.parametrize(("signal", "status"), SIGNALS)
def test_while_one_row_is_rendered(
    interrupted: Interrupted,
    upload: Callable[..., str],
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
    signal: Signal,
    status: str,
) -> None:
    """However long it is; those after it are left out."""
    monkeypatch.setattr(Renderer, "render", hold)
    assert interrupted(signal, training_file=upload("order")).status == status
    left = [thread for thread in threading.enumerate() if thread.name == "aside"]
    assert left
    hold.released.set()
    for thread in left:
        thread.join(60)
    assert hold.times == 1


@pytest.mark.parametrize(("signal", "status"), SIGNALS)
def test_while_a_file_is_fetched(
    interrupted: Interrupted,
    upload: Callable[..., str],
    registry: Registry,
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
    signal: Signal,
    status: str,
) -> None:
    training_file = upload("order")
    monkeypatch.setattr(registry.store, "get", hold)
    assert interrupted(signal, training_file=training_file).status == status


@pytest.mark.parametrize(("signal", "status"), SIGNALS)
def test_while_others_take_a_long_step(
    interrupted: Interrupted,
    upload: Callable[..., str],
    engine: EngineThread,
    hold: Hold,
    signal: Signal,
    status: str,
) -> None:
    """It has not joined them, and then never does."""
    engine.post(hold)
    assert interrupted(signal, training_file=upload("order"), hyperparameters={"n_epochs": 1}).status == status
    hold.released.set()
    assert engine.call(lambda e: (e.jobs, e.bank.free)) == ({}, 2)
