"""What an operator sees of the installation now, and nobody else."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import update

from registry import jobs, workers
from registry.context import Registry
from registry.models import Worker
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import LOAD, FakeInference
from tests.support.jobs import claim, submit

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return ",".join([DEAD, *inference])


@pytest.fixture
def operator(client_with: Callable[..., httpx.Client]) -> httpx.Client:
    return client_with("operator")


def test_servers_with_what_their_banks_hold(operator: httpx.Client, inference: dict[str, FakeInference]) -> None:
    silent, first, second = operator.get("/system").json()["inference"]
    assert silent == {"number": 1, "answers": False, "bases": []}
    assert first == {"number": 2, "answers": True, "bases": [{"base": "osora-tiny", **LOAD}]}
    assert second["number"] == 3


def test_workers_and_the_queue_of_all_tenants(
    operator: httpx.Client, registry: Registry, principal: Principal, stranger: Principal
) -> None:
    running = submit(registry, principal)
    submit(registry, stranger)
    submit(registry, stranger)
    attempt = claim(registry, running, "worker-a")
    with registry.transaction() as session:
        for worker_id in ("worker-a", "worker-b"):
            workers.seen(session, worker_id, ["osora-tiny"], 8)
        session.execute(update(Worker).where(Worker.id == "worker-b").values(seen_at=Worker.seen_at - 3600))
        for pace in (10.0, 123.4):
            jobs.add_event(session, attempt, "a step", type="metrics", data={"tokens_per_second": pace})
        jobs.add_event(session, attempt, "a word that is no figure")
    system = operator.get("/system").json()
    by_id = {worker["id"]: worker for worker in system["workers"]}
    assert {"live": True, "jobs": 1, "slots": 8, "tokens_per_second": 123.4}.items() <= by_id["worker-a"].items()
    assert {"live": False, "jobs": 0, "tokens_per_second": 0}.items() <= by_id["worker-b"].items()
    assert system["queue"] == [{"base": "osora-tiny", "validating_files": 0, "queued": 2, "running": 1, "paused": 0}]


def test_it_takes_an_operator(client_with: Callable[..., httpx.Client]) -> None:
    error = error_of(client_with("admin").get("/system"), 403)
    assert "'operator'" in error["message"]
