"""Jobs: submitting, listing, stopping; and the way from the outbox to the broker."""

import base64
import json
import time
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import Engine, event, func, select

from registry import jobs, workers
from registry.context import Registry
from registry.jobs import Attempt, Remark
from registry.models import Adapter, OutboxMessage
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.support.jobs import CHAT_ROW, claim, new_adapter, record_checkpoint, submit, upload


@pytest.fixture
def training_file(registry: Registry, principal: Principal) -> str:
    return upload(registry, principal).id


def create(client: httpx.Client, training_file: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "osora-tiny", "training_file": training_file, **fields}
    response = client.post("/jobs", json=body)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


def pending(registry: Registry) -> int:
    with registry.reading() as session:
        return session.scalars(select(func.count()).select_from(OutboxMessage)).one()


def test_a_job_as_openai_shapes_it(client: httpx.Client, training_file: str) -> None:
    job = create(client, training_file, suffix="triage", seed=7, metadata={"team": "support"})
    assert job | {"id": "", "created_at": 0} == {
        "id": "",
        "object": "fine_tuning.job",
        "created_at": 0,
        "finished_at": None,
        "estimated_finish": None,
        "status": "queued",
        "model": "osora-tiny",
        "fine_tuned_model": None,
        "organization_id": "default",
        "user_provided_suffix": "triage",
        "training_file": training_file,
        "validation_file": None,
        "result_files": [],
        "hyperparameters": (auto := dict.fromkeys(AUTO, "auto")),
        "method": {"type": "supervised", "supervised": {"hyperparameters": auto}},
        "seed": 7,
        "trained_tokens": None,
        "metadata": {"team": "support"},
        "error": None,
        "osora": {
            "step": 0,
            "total_steps": None,
            "adapter_id": None,
            "started_at": None,
            "requested": None,
            "queue_position": 0,
            "resolved": None,
            "rows": None,
            "settings": {},
            "points": [{"preset": "small", "rank": 128, "mix": 0}],
            "train_loss": None,
            "valid_loss": None,
            "compute_seconds": 0,
            "attempts": [],
            "estimated_start": None,
            "waiting_for": "a worker: no live one serves osora-tiny",
        },
    }
    assert client.get(f"/jobs/{job['id']}").json() == job


def test_all_that_an_operator_asks(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    job, next_one = submit(registry, principal), submit(registry, principal)
    with registry.transaction() as session:
        workers.seen(session, "worker-1", ["osora-tiny"], slots=1)
    attempt = claim(registry, job)
    report(registry, attempt, step=3, compute_seconds=1.25)
    with registry.transaction() as session:
        jobs.release(session, attempt, "its worker is stopping")
    attempt, began = claim(registry, job), int(time.time())
    report(registry, attempt, step=5, compute_seconds=0.75)

    shown = client.get(f"/jobs/{job.id}").json()
    assert (shown["status"], shown["trained_tokens"]) == ("running", 50)
    details = shown["osora"]
    assert (details["step"], details["total_steps"], details["compute_seconds"]) == (5, 10, 2.0)
    assert (details["queue_position"], details["estimated_start"], details["waiting_for"]) == (None, None, None)
    first, second = details["attempts"]
    assert first.pop("started_at") <= first.pop("finished_at")
    assert first == {
        "number": 1,
        "worker_id": "worker-1",
        "first_step": 0,
        "last_step": 3,
        "compute_seconds": 1.25,
        "outcome": "released",
        "reason": "its worker is stopping",
        "error": None,
    }
    assert (second["number"], second["last_step"], second["compute_seconds"]) == (2, 5, 0.75)
    assert (second["finished_at"], second["outcome"], second["reason"]) == (None, None, None)

    waiting = client.get(f"/jobs/{next_one.id}").json()
    assert waiting["osora"]["queue_position"] == 0
    assert waiting["osora"]["waiting_for"] == "a free slot: 1 of 1 taken"
    assert waiting["osora"]["estimated_start"] == shown["estimated_finish"] >= began + 3600
    # In a list, only what need not be worked out for each.
    listed = client.get("/jobs?order=asc").json()["data"]
    assert [job["estimated_finish"] for job in listed] == [shown["estimated_finish"], None]
    shown = client.get(f"/jobs/{job.id}").json()
    del shown["osora"]["estimated_start"], shown["osora"]["waiting_for"]
    assert listed[0] == shown


def report(registry: Registry, attempt: Attempt, *, step: int, compute_seconds: float) -> None:
    with registry.transaction() as session:
        jobs.record_progress(
            session,
            attempt,
            step=step,
            total_steps=10,
            trained_tokens=10 * step,
            metrics={},
            compute_seconds=compute_seconds,
            remaining_seconds=3600,
        )


def test_a_long_list_takes_no_more_queries(
    client: httpx.Client, registry: Registry, principal: Principal, training_file: str
) -> None:
    def a_running_and_a_queued_one() -> None:
        claim(registry, submit(registry, principal, training_file=training_file))
        submit(registry, principal, training_file=training_file)

    def listed() -> list[dict[str, Any]]:
        queries.clear()
        found: list[dict[str, Any]] = client.get("/jobs?limit=100&order=asc").json()["data"]
        return found

    queries: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "job" in statement:  # what else there is comes now and then: keys, limits, webhooks
            queries.append(statement)

    event.listen(Engine, "before_cursor_execute", note)  # of every engine: the server has one of its own
    try:
        a_running_and_a_queued_one()
        assert len(listed()) == 2
        for_two = len(queries)
        assert for_two
        for _ in range(5):
            a_running_and_a_queued_one()
        found = listed()
        assert len(queries) == for_two
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert [len(job["osora"]["attempts"]) for job in found] == [1, 0] * 6
    assert [job["osora"]["queue_position"] for job in found if job["status"] == "queued"] == [0, 1, 2, 3, 4, 5]


AUTO = ("n_epochs", "batch_size", "learning_rate_multiplier")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "place",
    [
        {"hyperparameters": {"n_epochs": 4}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}},
    ],
)
def test_knobs(client: httpx.Client, training_file: str, place: dict[str, Any]) -> None:
    knobs = {"rank": 8, "learning_rate": 1, "target_modules": ["q_proj"], "train": "s", "evaluate": "never"}
    job = create(client, training_file, validation_file=training_file, osora=knobs, **place)
    assert job["osora"]["settings"] == knobs
    assert job["hyperparameters"] == dict.fromkeys(AUTO, "auto") | {"n_epochs": 4}
    assert job["validation_file"] == training_file


def test_a_job_shows_what_auto_became(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    """Of a sweep, OpenAI's numbers as far as they are decided; its rates when it has ended."""
    attempt = claim(registry, submit(registry, principal, hyperparameters={"n_epochs": 4, "batch_size": "auto"}))
    members = [{"epochs": 4, "learning_rate": rate} for rate in (0.03, 0.1)]
    known: dict[str, Any] = {"n_epochs": 4, "batch_size": 8}
    with registry.transaction() as session:
        jobs.record_plan(session, attempt, {"specs": members, "hyperparameters": known}, [Remark("Training")])
    job = client.get(f"/jobs/{attempt.job_id}").json()
    assert job["osora"]["resolved"] is None
    assert job["hyperparameters"] == known
    known["learning_rate_multiplier"] = 2.0
    with registry.transaction() as session:
        jobs.complete(
            session, attempt, step=2, trained_tokens=9, adapter=new_adapter(attempt), metrics={},
            plan={"specs": members[1:], "hyperparameters": known},
        )  # fmt: skip
    job = client.get(f"/jobs/{attempt.job_id}").json()
    assert job["osora"]["resolved"] == members[1]
    assert job["hyperparameters"] == job["method"]["supervised"]["hyperparameters"] == known


def test_pages(client: httpx.Client, training_file: str) -> None:
    ids = [create(client, training_file, metadata={"n": str(n)})["id"] for n in range(3)]
    page = client.get("/jobs?limit=2").json()
    assert [job["id"] for job in page["data"]] == [ids[2], ids[1]]
    assert page["has_more"] is True
    page = client.get("/jobs", params={"after": ids[1]}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == ([ids[0]], False)
    found = client.get("/jobs", params={"metadata[n]": "1"}).json()["data"]
    assert [job["id"] for job in found] == [ids[1]]
    client.post(f"/jobs/{ids[0]}/cancel")
    found = client.get("/jobs?status=cancelled").json()["data"]
    assert [job["id"] for job in found] == [ids[0]]
    assert [job["osora"]["queue_position"] for job in client.get("/jobs").json()["data"]] == [1, 0, None]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_priorities_move_a_job_in_the_queue(client: httpx.Client, training_file: str) -> None:
    for priority in ("low", "normal", "high"):
        assert create(client, training_file, osora={"priority": priority})["osora"]["settings"]["priority"] == priority
    newest_first = client.get("/jobs").json()["data"]
    assert [job["osora"]["queue_position"] for job in newest_first] == [0, 1, 2]
    body = {"model": "osora-tiny", "training_file": training_file, "osora": {"priority": "urgent"}}
    error = error_of(client.post("/jobs", json=body), 400)
    assert error["param"] == "osora.priority"
    assert "'low', 'normal' or 'high'" in error["message"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestStopping:
    def test_while_it_waits(self, client: httpx.Client, training_file: str) -> None:
        job_id = create(client, training_file)["id"]
        assert client.post(f"/jobs/{job_id}/pause").json()["status"] == "paused"
        assert client.post(f"/jobs/{job_id}/resume").json()["status"] == "queued"
        assert client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"
        assert client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"
        response = client.post(f"/jobs/{job_id}/pause")
        assert error_of(response, 409)["code"] == "job_not_live"
        assert response.headers["x-should-retry"] == "false"

    def test_while_it_runs(self, client: httpx.Client, registry: Registry, principal: Principal) -> None:
        job = submit(registry, principal)
        attempt = claim(registry, job)
        running = client.post(f"/jobs/{job.id}/cancel").json()
        assert (running["status"], running["osora"]["requested"]) == ("running", "cancel")
        (shown,) = running["osora"]["attempts"]
        assert (shown["number"], shown["worker_id"], shown["outcome"]) == (1, "worker-1", None)
        assert attempt.token not in client.get(f"/jobs/{job.id}").text
        with registry.transaction() as session:
            jobs.release(session, attempt, "its tenant cancelled it")
        assert client.get(f"/jobs/{job.id}").json()["status"] == "cancelled"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_goes_by_the_validation_loss_needs_one(client: httpx.Client, training_file: str) -> None:
    for knob in ({"keep": "best"}, {"early_stopping_patience": 2}):
        (name,) = knob
        for lacks in ({"osora": knob}, {"validation_file": training_file, "osora": {**knob, "evaluate": "never"}}):
            body = {"model": "osora-tiny", "training_file": training_file, **lacks}
            error = error_of(client.post("/jobs", json=body), 400)
            assert error["param"] == f"osora.{name}"
            assert "validation loss" in error["message"]
        job = create(client, training_file, validation_file=training_file, osora=knob)
        assert job["osora"]["settings"] == knob
    assert create(client, training_file, osora={"keep": "last"})["status"] == "queued"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("osora", "param"),
    [
        ({"sample_prompts": ["a"], "evaluate": "never"}, "osora.sample_prompts"),
        ({"sample_tokens": 8}, "osora.sample_tokens"),
        ({"sample_prompts": ["a"], "sample_tokens": 65}, "osora.sample_tokens"),
        ({"sample_prompts": ["a"] * 5}, "osora.sample_prompts"),
        ({"sample_prompts": ["a", ""]}, "osora.sample_prompts[1]"),
        ({"sample_prompts": ["a" * 2001]}, "osora.sample_prompts[0]"),
    ],
)
def test_samples_are_few_and_short(client: httpx.Client, training_file: str, osora: dict[str, Any], param: str) -> None:
    body = {"model": "osora-tiny", "training_file": training_file, "osora": osora}
    assert error_of(client.post("/jobs", json=body), 400)["param"] == param


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_going_on_from_an_adapter(client: httpx.Client, training_file: str, adapter: Adapter) -> None:
    by_name = create(client, training_file, model=adapter.name)
    by_knob = create(client, training_file, osora={"from_adapter": adapter.id})
    for job, name in ((by_name, adapter.name), (by_knob, adapter.id)):
        assert job["model"] == "osora-tiny"
        assert job["osora"]["settings"] == {"from_adapter": name}
        assert job["osora"]["points"] == [{"preset": None, "rank": 16, "mix": 0}]
    body = {"model": adapter.name, "training_file": training_file, "osora": {"from_adapter": adapter.id}}
    assert error_of(client.post("/jobs", json=body), 400)["param"] == "osora.from_adapter"
    body = {"model": "ft:osora-tiny:default::nothing", "training_file": training_file}
    assert error_of(client.post("/jobs", json=body), 404)["param"] == "model"
    error = error_of(client.delete(f"/adapters/{adapter.id}"), 409)
    assert error["code"] == "adapter_in_use"
    for job in (by_name, by_knob):
        client.post(f"/jobs/{job['id']}/cancel")
    assert client.delete(f"/adapters/{adapter.id}").json()["deleted"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_checkpoints(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal, suffix="triage")
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (5, 10):
            record_checkpoint(session, attempt, step, metrics={"train_loss": step / 4})
    newest, oldest = client.get(f"/jobs/{job.id}/checkpoints").json()["data"]
    assert (newest["step_number"], newest["metrics"]) == (10, {"step": 10, "train_loss": 2.5})
    assert newest["object"] == "fine_tuning.job.checkpoint"
    assert newest["id"] == f"ftckpt_{job.id[-16:]}_10"
    assert newest["fine_tuned_model_checkpoint"] == f"ft:osora-tiny:default:triage:{job.id[-16:]}:ckpt-step-10"
    page = client.get(f"/jobs/{job.id}/checkpoints", params={"after": newest["id"]}).json()
    assert page["data"] == [oldest]
    for details in (client.get(f"/jobs/{job.id}").json()["osora"], client.get("/jobs").json()["data"][0]["osora"]):
        assert (details["train_loss"], details["valid_loss"]) == (2.5, None)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_is_accepted_while_the_broker_is_down(
    client: httpx.Client, registry: Registry, training_file: str
) -> None:
    for _ in range(3):
        create(client, training_file)
    assert pending(registry) == 3


class TestBroker:
    @pytest.fixture
    def broker(self, broker_url: str) -> str:
        return broker_url

    def test_the_message_goes_out_after_the_commit(
        self, client: httpx.Client, registry: Registry, training_file: str, broker_url: str
    ) -> None:
        job_id = create(client, training_file)["id"]
        with redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://")) as queue:
            found = queue.blpop(["train.osora-tiny"], timeout=60)
            assert found is not None
            assert json.loads(base64.b64decode(json.loads(found[1])["body"]))[0] == ["osora-tiny"]
            assert b"osora.train" in found[1]
            deadline = time.monotonic() + 60  # the row goes right after the message
            while pending(registry) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert pending(registry) == 0
            client.post(f"/jobs/{job_id}/pause")
            client.post(f"/jobs/{job_id}/resume")
            assert queue.blpop(["train.osora-tiny"], timeout=60) is not None


def test_rows_to_validate_on_come_from_a_file_or_are_a_share(
    client: httpx.Client, registry: Registry, principal: Principal
) -> None:
    training_file = upload(registry, principal, [CHAT_ROW] * 3).id
    body = {"model": "osora-tiny", "training_file": training_file, "osora": {"validation_share": 0.1, "keep": "best"}}
    assert client.post("/jobs", json=body).status_code == 200
    error = client.post("/jobs", json={**body, "validation_file": training_file}).json()["error"]
    assert error["param"] == "osora.validation_share"
    assert "leave out one of them" in error["next_action"]
    single = client.post("/jobs", json={**body, "training_file": upload(registry, principal).id})
    assert "has a single row" in single.json()["error"]["message"]
    for share in (0, 0.5, -1):
        refused = client.post("/jobs", json={**body, "osora": {"validation_share": share}})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "osora.validation_share")


def test_a_multiplier_that_leaves_no_rate_is_refused_at_once(client: httpx.Client, training_file: str) -> None:
    hyperparameters = {"learning_rate_multiplier": 5e-324}
    body = {"model": "osora-tiny", "training_file": training_file, "hyperparameters": hyperparameters}
    refused = client.post("/jobs", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (
        400,
        "hyperparameters.learning_rate_multiplier",
    )
