"""A worker's attempt, run to its end in the test's own process: real registry, real engine, no broker."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.server import Server
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.runtime import Runtime
from osora_core.training import TrainingEngine
from registry import files, jobs
from registry.context import Registry
from registry.models import Job, JobEvent
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.api.servers import running
from tests.support.jobs import claim, read, submit
from tests.support.places import a_place
from tests.support.tiny_base import make_base
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread

BASE, RANK = "small", 8


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / BASE)


@pytest.fixture(scope="session")
def runtime(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    cache = BasisCache(tmp_path_factory.mktemp("cache"))
    return Runtime.load(BASE, cache, path=str(base_path), device="cpu", rank=RANK)


@pytest.fixture(scope="session")
def examples(runtime: Runtime) -> list[Example]:
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    turns = [(f"help {i} " + "please " * (i % 5), f"order {i % 3}") for i in range(14)]
    return [
        renderer.render({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}, line)
        for line, (a, b) in enumerate(turns, start=1)
    ]


@pytest.fixture
def settings(tmp_path: Path, sqlite_database_url: str, base_path: Path) -> Settings:
    """No checkpoint is due by time, however long a test is kept waiting."""
    return Settings(
        data_dir=tmp_path / "data", database_url=sqlite_database_url, bases=f"{BASE}={base_path}", basis_rank=RANK,
        checkpoint_seconds=86_400,
    )  # fmt: skip


@pytest.fixture(scope="module")
def own_variables() -> Iterator[pytest.MonkeyPatch]:
    """What `spread` sets for the further devices of this process goes with the module."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS"):
            patch.setenv(name, "")
            patch.delenv(name)
        yield patch


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[EngineThread]:
    failures: list[None] = []
    thread = EngineThread(TrainingEngine(runtime, max_jobs=2), lambda: failures.append(None))
    thread.start()
    yield thread
    thread.call(lambda _: None)  # what was posted before has been done then: an attempt's last is not waited for
    thread.stop(60)
    assert not failures
    assert thread.engine.bank.free == 2


@pytest.fixture
def upload(registry: Registry, principal: Principal) -> Callable[..., str]:
    """Stores rows that teach one answer."""

    def make(answer: str, rows: int = 12) -> str:
        lines = (
            {"messages": [{"role": "user", "content": f"help {i}"}, {"role": "assistant", "content": answer}]}
            for i in range(rows)
        )
        data = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        return files.ingest(registry, principal, data, "rows.jsonl", "fine-tune").id

    return make


@pytest.fixture
def train(registry: Registry, principal: Principal, engine: EngineThread) -> Callable[..., Job]:
    """Submits a job, runs its attempt, and returns it as it then is."""

    def run(epochs: int = 2, osora: dict[str, Any] | None = None, **request: Any) -> Job:
        wanted = {"base": BASE, "seed": 1, "hyperparameters": {"n_epochs": epochs, "batch_size": 4}, **request}
        job = submit(registry, principal, osora={"rank": RANK, **(osora or {})}, **wanted)
        run_attempt(registry, engine, claim(registry, job), Reports(), a_place())
        return read(registry, principal, job)

    return run


@pytest.fixture
def events(registry: Registry, principal: Principal) -> Callable[[Job], list[JobEvent]]:
    def of(job: Job) -> list[JobEvent]:
        with registry.reading() as session:
            return list(jobs.events(session, principal, job.id, limit=1000).data)

    return of


@pytest.fixture
def client(settings: Settings, registry: Registry, api_key: str) -> Iterator[httpx.Client]:
    """The API as a real server, beside the worker's attempts."""
    headers = {"authorization": f"Bearer {api_key}"}
    with (
        running(Server(create_app(settings), settings)) as url,
        httpx.Client(base_url=url, headers=headers, timeout=100) as client,
    ):
        yield client
