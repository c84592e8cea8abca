"""A job as it would be: what is told of it is what becomes of it, and nothing is there afterwards."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from sqlalchemy import MetaData, select, update

from osora_data.measures import Kept, Measure
from registry import jobs, workers
from registry.context import Registry
from registry.db import now_seconds
from registry.models import ApiKey, Job, JobAttempt
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.jobs import CHAT_ROW, claim, new_adapter, submit, upload

ROWS = 200
SPANS = {"q_proj": [[128, 300], [64, 200]], "v_proj": [[128, 100], [128, 100]]}


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return ",".join(inference)


@pytest.fixture(autouse=True)
def measures(inference: dict[str, FakeInference]) -> dict[str, Any]:
    """What the inference servers measure: 200 rows, of which 12 are too long and 4 only by their answers."""
    measure = Measure(
        limit=1024, rows=ROWS, counted=ROWS, complete=True, rows_over=0, over=[], rows_refused=0, refused=[],
        tokens=20_000, trained_tokens=2_000, dropped=Kept(188, 9_000, 1_500), truncated=Kept(192, 13_000, 1_600, 4),
        histogram=[],
    )  # fmt: skip
    told = asdict(measure)
    for fake in inference.values():
        fake.measure, fake.spans = told, SPANS
    return told


@pytest.fixture
def training_file(registry: Registry, principal: Principal) -> str:
    rows = [{"messages": [{"role": "user", "content": f"{n}+2?"}, CHAT_ROW["messages"][1]]} for n in range(ROWS)]
    return upload(registry, principal, rows).id


Dry = Callable[..., httpx.Response]


@pytest.fixture
def dry(client: httpx.Client, training_file: str) -> Dry:
    def run(path: str = "/jobs", query: str = "dry_run=true", **fields: Any) -> httpx.Response:
        return client.post(f"{path}?{query}", json={"model": "osora-tiny", "training_file": training_file, **fields})

    return run


def tables(registry: Registry) -> dict[str, list[Any]]:
    """Every row of every table."""
    metadata = MetaData()
    metadata.reflect(registry.engine)
    with registry.reading() as session:
        return {
            name: sorted(map(repr, session.execute(select(table)).all())) for name, table in metadata.tables.items()
        }


@pytest.mark.parametrize("path", ["/jobs", "/v1/fine_tuning/jobs"])
def test_nothing_is_written(dry: Dry, registry: Registry, path: str) -> None:
    with registry.transaction() as session:  # that a key was used is written now and then, whatever was asked with it
        session.execute(update(ApiKey).values(last_used_at=now_seconds() + 3600))
    dry(path)  # which measures the file, and that is kept
    before = tables(registry)
    for fields in ({"seed": 1}, {"osora": {"learning_rate": "sweep"}}, {"training_file": "file-none"}):
        dry(path, **fields)
    assert tables(registry) == before


@pytest.mark.parametrize("path", ["/jobs", "/v1/fine_tuning/jobs"])
def test_all_that_is_told(dry: Dry, registry: Registry, path: str) -> None:
    with registry.transaction() as session:
        workers.seen(session, "worker-1", ["osora-tiny"], 2)
    told = dry(path, seed=7, osora={"learning_rate": 0.02, "rank": 100}).json()
    start = told.pop("estimated_start")
    assert start > 0
    hyperparameters = {"n_epochs": 8, "batch_size": 4, "learning_rate_multiplier": pytest.approx(2 / 3)}
    osora = told.pop("osora")
    assert (osora["rank"], osora["seed"], osora["batch_size"], osora["keep"]) == (100, 7, 4, "best")
    assert told == {
        "object": "fine_tuning.job.dry_run",
        "model": "osora-tiny",
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "hyperparameters": hyperparameters,
        "rows": {"training": 200, "validation": 0, "dropped": 0, "truncated": 0},
        "tokens": {"training": 20_000, "trained": 2_000, "validation": 0},
        "steps": 400,
        "queue_position": 0,
        "estimated_finish": None,
        "estimated_seconds": None,
        "points": [{"preset": None, "rank": 100, "mix": 0, "parameters": 1064, "adapter_bytes": 4256}],
        # 100 + 300, 64 + 200, twice 100 + 100 numbers of four bytes
        "adapter_bytes": 4 * (400 + 264 + 400),
        "warnings": ["How long it takes is not known: no supervised job on osora-tiny has succeeded yet."],
        "probe": None,
    }


@pytest.mark.parametrize(
    ("osora", "rows", "tokens"),
    [
        ({"overlong": "drop"}, {"training": 188, "validation": 0, "dropped": 12, "truncated": 0}, 9_000),
        ({"overlong": "truncate"}, {"training": 192, "validation": 0, "dropped": 8, "truncated": 4}, 13_000),
        (
            {"overlong": "drop", "validation_share": 0.25},
            {"training": 141, "validation": 47, "dropped": 12, "truncated": 0},
            6_750,
        ),
        ({"learning_rate": [0.1, 0.2]}, {"training": 180, "validation": 0, "dropped": 0, "truncated": 0}, 18_000),
    ],
)
def test_rows_are_those_that_are_left(
    dry: Dry, measures: dict[str, Any], osora: dict[str, Any], rows: dict[str, int], tokens: int
) -> None:
    measures["rows_over"] = 12 if "overlong" in osora else 0
    told = dry(osora=osora).json()
    assert (told["rows"], told["tokens"]["training"]) == (rows, tokens)
    batch, epochs = told["osora"]["batch_size"], told["osora"]["epochs"]
    assert told["steps"] == -(-rows["training"] // batch) * epochs


def test_a_sweep_tells_its_members(dry: Dry) -> None:
    told = dry(osora={"preset": "small", "learning_rate": [0.1, 0.2], "sigma_rate": 3}).json()
    assert told["osora"]["sweep"] == [
        {"learning_rate": 0.1, "sigma_rate": 3},
        {"learning_rate": 0.2, "sigma_rate": 3},
    ]
    assert any(words.startswith("A sweep of 2 takes longer") for words in told["warnings"])


@pytest.mark.parametrize(
    ("asked", "is_open"),
    [({}, True), ({"learning_rate": 0.1}, False), ({"learning_rate": "sweep"}, False)],
)
def test_what_a_worker_measures_first_is_said_to_be_open(dry: Dry, asked: dict[str, Any], is_open: bool) -> None:
    warnings = dry(osora=asked).json()["warnings"]
    assert any("The learning rate is left open" in words for words in warnings) == is_open


def test_a_seed_is_drawn_and_told(dry: Dry) -> None:
    told = dry().json()
    assert told["seed"] == told["osora"]["seed"]
    assert told["seed"] != dry().json()["seed"]


def test_jobs_of_before_tell_how_long_it_takes(dry: Dry, registry: Registry, principal: Principal) -> None:
    """Ten tokens a second, and five seconds beside; of another method nothing is told."""
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        jobs.complete(session, attempt, step=9, trained_tokens=1000, adapter=new_adapter(attempt), metrics={})
        session.execute(
            update(JobAttempt)
            .where(JobAttempt.job_id == job.id)
            .values(compute_seconds=100.0, started_at=1000, finished_at=1105)
        )
        workers.seen(session, "worker-1", ["osora-tiny"], 2)
    told = dry(hyperparameters={"n_epochs": 3}).json()
    assert told["estimated_seconds"] == 5 + 20_000 * 3 / 10
    assert told["estimated_finish"] == told["estimated_start"] + 6005


def test_where_no_inference_server_answers_words_say_so(
    dry: Dry, inference: dict[str, FakeInference], training_file: str
) -> None:
    for fake in inference.values():
        fake.bases = []
    told = dry().json()
    assert told["rows"]["training"] == ROWS
    assert told["tokens"] == {"training": None, "trained": None, "validation": 0}
    assert told["steps"] == 400
    assert told["adapter_bytes"] is None
    said = " ".join(told["warnings"])
    assert f"The tokens of file '{training_file}' are not known: no inference server" in said
    assert "The adapter's size is not known" in said
    assert "Its start is not known: it would wait for a worker: no live one serves osora-tiny." in said


def test_its_place_is_behind_those_that_wait(dry: Dry, registry: Registry, principal: Principal) -> None:
    for _ in range(3):
        submit(registry, principal)
    assert dry().json()["queue_position"] == 3


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"training_file": "file-none"}, 404, "training_file"),
        ({"model": "gpt-5"}, 400, "model"),
        ({"osora": {"rank": 1000}}, 400, "osora.rank"),
        ({"osora": {"target_modules": ["q_prof"]}}, 400, "osora.target_modules"),
        ({"osora": {"max_length": 99_999}}, 400, "osora.max_length"),
        ({"osora": {"from_adapter": "adp-none"}}, 404, "osora.from_adapter"),
    ],
)
def test_its_errors_are_those_of_the_job(
    dry: Dry, inference: dict[str, FakeInference], fields: dict[str, Any], status: int, param: str
) -> None:
    for fake in inference.values():
        fake.longest_row = 1024
    real, told = dry(query="", **fields), dry(**fields)
    assert error_of(told, status)["param"] == param
    assert told.json() == real.json()


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("probe=5", "probe"),
        ("dry_run=true&probe=0", "probe"),
        ("dry_run=true&probe=51", "probe"),
        ("dryrun=1", "dryrun"),
    ],
)
def test_what_is_asked_of_it_is_checked(dry: Dry, query: str, param: str) -> None:
    error = error_of(dry(query=query), 400)
    assert param in f"{error['param']} {error['message']}"


def test_a_key_for_requests_that_are_sent_again_is_not_spent(
    client: httpx.Client, training_file: str, registry: Registry
) -> None:
    body = {"model": "osora-tiny", "training_file": training_file}
    headers = {"idempotency-key": "once"}
    dry = client.post("/jobs?dry_run=true", json=body, headers=headers)
    assert dry.json()["object"] == "fine_tuning.job.dry_run"
    first = client.post("/jobs", json=body, headers=headers).json()
    assert first["object"] == "fine_tuning.job"
    assert client.post("/jobs", json=body, headers=headers).json() == first
    again = client.post("/jobs?dry_run=true", json=body, headers=headers)
    assert again.json()["object"] == "fine_tuning.job.dry_run"
    with registry.reading() as session:
        assert len(session.scalars(select(Job)).all()) == 1


def test_whoever_may_only_read_gets_none(client_with: Callable[..., httpx.Client], training_file: str) -> None:
    body = {"model": "osora-tiny", "training_file": training_file}
    assert client_with("read").post("/jobs?dry_run=true", json=body).status_code == 403
    assert client_with("train", tenant="other").post("/jobs?dry_run=true", json=body).status_code == 404


def test_without_a_worker_a_probe_is_not_waited_for(dry: Dry) -> None:
    told = dry(query="dry_run=true&probe=5").json()
    assert told["probe"] is None
    assert "There is no probe: no live worker serves osora-tiny." in told["warnings"]
