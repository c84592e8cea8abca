"""Files, jobs and models through the door that OpenAI's client knows."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai as package
import pytest
from openai import OpenAI
from openai.types import FilePurpose
from sqlalchemy import update

from registry import jobs
from registry.context import Registry
from registry.models import Adapter, File, Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.api.conftest import MAX_UPLOAD_BYTES, error_of
from tests.support.jobs import claim, record_checkpoint, submit

ROWS = b'{"prompt": "I was charged twice.", "completion": " billing"}\n' * 12


def upload(openai: OpenAI) -> str:
    return openai.files.create(file=("tickets.jsonl", ROWS), purpose="fine-tune").id


def test_a_file_from_upload_to_deletion(openai: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(ROWS)
    file = openai.files.create(file=path, purpose="fine-tune")
    assert (file.object, file.filename, file.bytes, file.purpose) == ("file", path.name, len(ROWS), "fine-tune")
    assert openai.files.wait_for_processing(file.id).status == "processed"
    assert openai.files.retrieve(file.id) == file
    assert openai.files.content(file.id).read() == ROWS
    deleted = openai.files.delete(file.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    with pytest.raises(package.NotFoundError) as caught:
        openai.files.retrieve(file.id)
    assert (caught.value.code, caught.value.param) == ("file_not_found", "file_id")
    assert caught.value.type == "invalid_request_error"


def test_a_bad_line_is_named(openai: OpenAI) -> None:
    with pytest.raises(package.BadRequestError) as caught:
        openai.files.create(file=("bad.jsonl", ROWS + b"{]\n"), purpose="fine-tune")
    assert (caught.value.code, caught.value.param) == ("invalid_file", "file")
    assert "line 13" in caught.value.message


def test_an_upload_may_be_as_large_as_through_the_native_door(openai: OpenAI) -> None:
    rows = ROWS * (MAX_UPLOAD_BYTES // len(ROWS))
    assert openai.files.create(file=("large.jsonl", rows), purpose="fine-tune").bytes == len(rows)
    with pytest.raises(package.APIStatusError) as caught:
        openai.files.create(file=("huge.jsonl", rows + ROWS * 2000), purpose="fine-tune")
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize("purpose", ["assistants", "batch", "evals", "user_data", "vision"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_purpose_that_nothing_here_has_a_use_for(openai: OpenAI, purpose: FilePurpose) -> None:
    with pytest.raises(package.BadRequestError, match="no route here reads such files: use 'fine-tune'") as caught:
        openai.files.create(file=("a.jsonl", ROWS), purpose=purpose)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "purpose")
    with pytest.raises(package.BadRequestError, match="no route here reads such files"):
        openai.uploads.create(bytes=5, filename="a.jsonl", mime_type="text/jsonl", purpose=purpose)


def test_a_file_that_expires(openai: OpenAI, registry: Registry) -> None:
    file = openai.files.create(
        file=("a.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    lasting = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    assert lasting.expires_at is None
    job = openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
    with registry.transaction() as session:
        session.execute(update(File).where(File.id == file.id).values(expires_at=1))
    for call in (openai.files.retrieve, openai.files.content, openai.files.delete):
        with pytest.raises(package.NotFoundError) as caught:
            call(file.id)
        assert caught.value.code == "file_not_found"
    assert [one.id for one in openai.files.list()] == [lasting.id]
    with pytest.raises(package.NotFoundError) as caught:
        openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
    assert caught.value.param == "training_file"
    assert openai.fine_tuning.jobs.retrieve(job.id).status == "queued", "a job that uses it goes on"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[seconds]": "3600"}, None),
        ({"expires_after[anchor]": "created_at"}, None),
    ],
)
def test_an_expiry_that_is_none(client: httpx.Client, fields: dict[str, str], param: str | None) -> None:
    response = client.post("/v1/files", data={"purpose": "fine-tune", **fields}, files={"file": ("a.jsonl", ROWS)})
    error = error_of(response, 400)
    assert error["param"] == param
    assert "expires_after[seconds]" in error["message"] or param == "expires_after[anchor]"


def test_pages_of_files(openai: OpenAI) -> None:
    made = [upload(openai) for _ in range(5)]
    assert [file.id for file in openai.files.list(limit=2, order="asc")] == made
    first = openai.files.list(limit=2)
    assert ([file.id for file in first.data], first.has_more) == (made[:2:-1], True)
    extra = first.model_extra or {}
    assert (extra["first_id"], extra["last_id"]) == (made[4], made[3])
    assert list(openai.files.list(purpose="fine-tune-results")) == []


def test_a_job_from_creation_to_cancellation(openai: OpenAI) -> None:
    file_id = upload(openai)
    job = openai.fine_tuning.jobs.create(
        model="osora-tiny",
        training_file=file_id,
        suffix="triage",
        seed=7,
        metadata={"team": "support"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        extra_body={"osora": {"rank": 8}},
    )
    assert job.id.startswith("ftjob-")
    assert (job.object, job.model, job.seed, job.training_file) == ("fine_tuning.job", "osora-tiny", 7, file_id)
    assert (job.fine_tuned_model, job.finished_at, job.error, job.result_files) == (None, None, None, [])
    assert job.metadata == {"team": "support"}
    assert job.method is not None
    assert job.method.type == "supervised"
    assert (job.model_extra or {})["osora"]["settings"] == {"rank": 8}
    assert openai.fine_tuning.jobs.pause(job.id).status == "paused"
    assert openai.fine_tuning.jobs.resume(job.id).status == "queued"
    assert openai.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert openai.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    events = list(openai.fine_tuning.jobs.list_events(job.id, limit=1))
    assert len(events) > 2, "all pages"
    assert {event.object for event in events} == {"fine_tuning.job.event"}
    assert events == sorted(events, key=lambda event: int(event.id.removeprefix("ftevent-")), reverse=True)


def test_a_conflict_is_not_retried(openai: OpenAI) -> None:
    job = openai.fine_tuning.jobs.create(model="osora-tiny", training_file=upload(openai))
    openai.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(package.ConflictError) as caught:
        openai.with_options(max_retries=2).fine_tuning.jobs.resume(job.id)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_jobs_by_metadata(openai: OpenAI) -> None:
    file_id = upload(openai)
    create = openai.fine_tuning.jobs.create
    support, sales = (
        create(model="osora-tiny", training_file=file_id, metadata={"team": team}).id for team in ("support", "sales")
    )
    plain = create(model="osora-tiny", training_file=file_id).id
    found = openai.fine_tuning.jobs.list
    assert [job.id for job in found(limit=1)] == [plain, sales, support]
    assert [job.id for job in found(metadata={"team": "support"})] == [support]
    assert [job.id for job in found(extra_query={"metadata": "null"})] == [plain]


def test_checkpoints_and_models(openai: OpenAI, registry: Registry, principal: Principal, adapter: Adapter) -> None:
    job = submit(registry, principal, suffix="triage")
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (5, 10):
            record_checkpoint(session, attempt, step)
    newest, oldest = openai.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert (newest.step_number, oldest.step_number, newest.object) == (10, 5, "fine_tuning.job.checkpoint")
    assert newest.metrics.step == 10
    assert [model.id for model in openai.models.list()] == ["osora-tiny", adapter.name]
    for name, owner in (("osora-tiny", "system"), (adapter.name, "default"), (newest.id, "default")):
        model = openai.models.retrieve(name)
        assert (model.object, model.owned_by) == ("model", owner)
    assert openai.models.retrieve(adapter.id).id == adapter.name
    deleted = openai.models.delete(adapter.name)
    assert (deleted.id, deleted.object, deleted.deleted) == (adapter.name, "model", True)
    with pytest.raises(package.NotFoundError) as caught:
        openai.models.retrieve(adapter.name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(package.PermissionDeniedError):
        openai.models.delete("osora-tiny")
    with pytest.raises(package.ConflictError):
        openai.models.delete(newest.fine_tuned_model_checkpoint)
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)


def test_a_model_that_is_not_here(openai: OpenAI) -> None:
    with pytest.raises(package.NotFoundError, match=r"no model 'gpt-4o-mini'.*osora-tiny"):
        openai.models.retrieve("gpt-4o-mini")


def test_what_a_job_cannot_have_is_refused_by_name(openai: OpenAI) -> None:
    file_id = upload(openai)
    wandb = [{"type": "wandb", "wandb": {"project": "x"}}]
    with pytest.raises(package.BadRequestError) as caught:
        openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file_id, integrations=wandb)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "integrations")
    openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file_id, integrations=None)
    with pytest.raises(package.BadRequestError) as caught:
        openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file_id, method={"type": "reinforcement"})
    assert caught.value.param == "method.type"


def test_headers_and_wrong_keys(openai: OpenAI, client: httpx.Client) -> None:
    response = openai.models.with_raw_response.list()
    assert response.headers["x-request-id"].startswith("req-")
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert "openai-processing-ms" not in client.get("/bases").headers
    with pytest.raises(package.AuthenticationError) as caught:
        openai.with_options(api_key="osk-wrong").models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


def test_wrong_methods_and_routes_have_the_shape(client: httpx.Client) -> None:
    response = client.put("/v1/fine_tuning/jobs")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    response = client.post("/v1/embedings", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert json.loads(client.get("/v1/models").text)["object"] == "list"


def test_what_is_not_offered_is_said_by_name(openai: OpenAI, client: httpx.Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: openai.embeddings.create(model="osora-tiny", input="x"),
        lambda: openai.responses.retrieve("resp_1"),
        lambda: openai.responses.delete("resp_1"),
        lambda: openai.responses.input_tokens.count(model="osora-tiny", input="x"),
        lambda: openai.chat.completions.list(),
        lambda: openai.chat.completions.retrieve("chatcmpl-1"),
        lambda: openai.conversations.create(),
        lambda: openai.batches.list(),
        lambda: openai.evals.runs.list("eval_1"),
        lambda: openai.fine_tuning.alpha.graders.run(grader={}, model_sample="x"),  # type: ignore[arg-type]
        lambda: openai.audio.transcriptions.create(file=b"x" * 100_000, model="whisper-1"),
        lambda: openai.vector_stores.files.list("vs_1"),
    ]
    for call in calls:
        with pytest.raises(package.NotFoundError, match=r"/v1/[^ ]* is not offered here: ") as caught:
            call()
        assert caught.value.code == "unsupported_endpoint"
        assert caught.value.type == "invalid_request_error"
    response = client.put("/v1/chat/completions", json={})
    assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")
    assert client.get("/v1/chat/completionsx").json()["error"]["code"] == "not_found"
    assert client.head("/v1/embeddings").status_code == 404


def test_the_day_on_which_a_model_goes(
    openai: OpenAI, client: httpx.Client, registry: Registry, principal: Principal, adapter: Adapter
) -> None:
    """By the settings here only checkpoints go, a week after the end of their job."""
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 5)
    checkpoint = f"ftckpt_{job.id[-16:]}_5"
    for model in ("osora-tiny", adapter.name, checkpoint):
        assert openai.models.retrieve(model).shutdown_date is None, "nothing is known of the end of its job"
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(status="cancelled", finished_at=1_762_300_420))
    assert openai.models.retrieve(checkpoint).shutdown_date == "2025-11-11"
    assert client.get(f"/adapters/{checkpoint}").json()["expires_at"] == 1_762_300_420 + 7 * 86_400
    assert client.get(f"/adapters/{adapter.id}").json()["expires_at"] is None
    client.post("/aliases", json={"name": "kept", "target": checkpoint}).raise_for_status()
    assert openai.models.retrieve(checkpoint).shutdown_date is None, "an alias keeps it"
    assert openai.models.retrieve("kept").shutdown_date is None


class TestRetention:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"adapter_retention_days": 90})

    def test_the_day_on_which_an_adapter_goes(self, openai: OpenAI, client: httpx.Client, adapter: Adapter) -> None:
        ends = adapter.created_at + 90 * 86_400
        day = datetime.fromtimestamp(ends, UTC).date().isoformat()
        assert {model.id: model.shutdown_date for model in openai.models.list()} == {
            "osora-tiny": None,
            adapter.name: day,
        }
        (listed,) = client.get("/adapters").json()["data"]
        assert listed["expires_at"] == ends
        client.post("/aliases", json={"name": "kept", "target": adapter.id}).raise_for_status()
        assert {model.shutdown_date for model in openai.models.list()} == {None}
