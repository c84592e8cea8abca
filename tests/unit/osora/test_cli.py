import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from .conftest import Answer, FakeService, sse

JOB = {
    "id": "ftjob-1",
    "status": "succeeded",
    "model": "osora-tiny",
    "created_at": 1_700_000_000,
    "training_file": "file-1",
    "fine_tuned_model": "ft:osora-tiny:default::ab",
    "error": None,
    "osora": {"adapter_id": "adp-1", "step": 3, "total_steps": 3},
}
STEP = {
    "id": "ftevent-2",
    "type": "metrics",
    "message": "step 3",
    "created_at": 1_700_000_000,
    "data": {
        "step": 3,
        "total_steps": 3,
        "train_loss": 1.25,
        "tokens_per_second": 5000.0,
        "remaining_seconds": 62.0,
    },
}
EVALUATION = {
    **STEP,
    "id": "ftevent-1",
    "data": {"step": 0, "total_steps": 3, "valid_loss": 4.5, "valid_exact_match": 0.25},
}


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def trained(service: FakeService, tmp_path: Path) -> Path:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "osora-tiny"}]}))
    service.on("POST", "/files", Answer(body={"id": "file-1"}))
    service.on("POST", "/jobs", Answer(body={**JOB, "status": "queued"}))
    service.on("GET", "/jobs/ftjob-1", Answer(body=JOB))
    events = [sse("metrics", EVALUATION, 1), sse("metrics", STEP, 2), sse("done", JOB)]
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=events))
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    return path


@pytest.mark.parametrize(("rows", "flags"), [("completion", " --raw"), ("chat", "")])
def test_an_adapter_is_to_be_asked_as_it_was_trained(
    service: FakeService, trained: Path, rows: str, flags: str
) -> None:
    service.on("GET", "/files/file-1", Answer(body={"id": "file-1", "osora": {"format": rows}}))
    for words in (("train", str(trained)), ("jobs", "watch", "ftjob-1")):
        assert f'osora generate "…"{flags} --adapter adp-1' in osora(*words).output


def test_train_uploads_queues_and_watches(service: FakeService, trained: Path) -> None:
    result = osora("train", str(trained), "--epochs", "2", "--learning-rate", "0.1", "--suffix", "x")
    assert result.exit_code == 0
    assert "validation loss 4.500 · exact match 25% (before training)" in result.output
    assert "--adapter adp-1" in result.output
    body = next(request.json for request in service.requests if request.path == "/jobs")
    assert body == {
        "model": "osora-tiny",
        "training_file": "file-1",
        "suffix": "x",
        "hyperparameters": {"n_epochs": 2},
        "osora": {"learning_rate": 0.1},
    }


def test_train_on_preferences(service: FakeService, trained: Path) -> None:
    options = ["--method", "dpo", "--beta", "0.2", "--learning-rate", "sweep"]
    assert osora("train", str(trained), *options).exit_code == 0
    body = next(request.json for request in service.requests if request.path == "/jobs")
    assert body["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    assert body["osora"] == {"learning_rate": "sweep"}
    refused = osora("train", str(trained), "--beta", "0.2")
    assert refused.exit_code == 2
    assert "it is for --method dpo" in refused.output


def test_train_takes_what_goes_by_evaluations_and_shows_samples(service: FakeService, trained: Path) -> None:
    data = {"step": 3, "prompt": "Hi [b]", "text": "Ho"}
    sampled = {**STEP, "type": "message", "message": "Sample after step 3", "data": data}
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[sse("message", sampled, 1), sse("done", JOB)]))
    options = ["--validation", str(trained), "--keep", "last", "--patience", "2", "--sample", "Hi", "--sample", "You"]
    options += ["--from-adapter", "adp-1", "--priority", "high"]
    result = osora("train", str(trained), *options)
    assert result.exit_code == 0
    assert "sample (step 3): 'Hi [b]' -> 'Ho'" in result.output
    body = next(request.json for request in service.requests if request.path == "/jobs")
    assert body["osora"] == {
        "priority": "high",
        "from_adapter": "adp-1",
        "keep": "last",
        "early_stopping_patience": 2,
        "sample_prompts": ["Hi", "You"],
    }


@pytest.mark.parametrize(
    ("rates", "sent"),
    [
        (["--learning-rate", "sweep"], {"learning_rate": "sweep"}),
        (["--learning-rate", "auto"], {"learning_rate": "auto"}),
        (["--learning-rate", "0.01,0.03, 0.1"], {"learning_rate": [0.01, 0.03, 0.1]}),
        (["--learning-rate", "0.1", "--sigma-rate", "1,4"], {"learning_rate": 0.1, "sigma_rate": [1.0, 4.0]}),
        (["--preset", "balanced"], {"preset": "balanced"}),
        (
            ["--preset", "small, balanced", "--mix-rate", "0.1,0.3"],
            {"preset": ["small", "balanced"], "mix_rate": [0.1, 0.3]},
        ),
        (["--rank", "64", "--mix", "0"], {"rank": 64, "mix": 0}),
    ],
)
def test_train_takes_several_rates(service: FakeService, trained: Path, rates: list[str], sent: dict[str, Any]) -> None:
    assert osora("train", str(trained), "--no-watch", *rates).exit_code == 0
    body = next(request.json for request in service.requests if request.path == "/jobs")
    assert body["osora"] == sent


def test_a_rate_that_is_none_is_wrong_usage(trained: Path) -> None:
    result = osora("train", str(trained), "--learning-rate", "fast")
    assert result.exit_code == 2
    assert "0.01,0.03" in result.output


def test_train_json_is_json_lines_and_nothing_else(trained: Path) -> None:
    result = osora("train", str(trained), "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [EVALUATION, STEP, JOB]


def test_train_without_watching_returns_the_queued_job(trained: Path) -> None:
    assert json.loads(osora("train", str(trained), "--json", "--no-watch").stdout)["status"] == "queued"
    assert "osora jobs watch ftjob-1" in osora("train", str(trained), "--no-watch").output


def test_train_asks_which_base_if_there_are_several(service: FakeService, trained: Path) -> None:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "a"}, {"name": "b"}]}))
    result = osora("train", str(trained))
    assert result.exit_code == 2
    assert "a, b" in result.output


def test_a_failed_job_is_exit_code_1_and_says_what_to_do(service: FakeService, trained: Path) -> None:
    error = {"code": "bad", "message": "Too long.", "next_action": "Shorten it."}
    service.on("GET", "/jobs/ftjob-1", Answer(body={**JOB, "status": "failed", "error": error}))
    result = osora("jobs", "watch", "ftjob-1")
    assert result.exit_code == 1
    assert "Too long. Next: Shorten it." in result.output


def test_checkpoints_with_what_was_measured_and_the_name_to_call(service: FakeService) -> None:
    name = "ft:osora-tiny:default:x:0123456789abcdef:ckpt-step-8"
    early = {"id": "c-1", "step_number": 4, "metrics": {"step": 4}, "fine_tuned_model_checkpoint": name[:-1] + "4"}
    metrics = {"step": 8, "valid_loss": 0.25, "valid_exact_match": 0.5}
    late = {"id": "c-2", "step_number": 8, "metrics": metrics, "fine_tuned_model_checkpoint": name}
    service.on("GET", "/jobs/ftjob-1/checkpoints", Answer(body={"data": [late, early]}))
    lines = osora("jobs", "checkpoints", "ftjob-1").output.splitlines()
    assert lines[1].split() == ["8", "0.2500", "50%", name]
    assert lines[2].split() == ["4", name[:-1] + "4"]
    assert json.loads(osora("jobs", "checkpoints", "ftjob-1", "--json").stdout) == [late, early]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_request", 1),
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (404, "not_found", 5),
        (500, "x", 1),
    ],
)
def test_exit_codes_of_answers(service: FakeService, status: int, code: str, exit_code: int) -> None:
    error = {"message": "No.", "code": code, "next_action": "Do this."}
    service.on("GET", "/jobs/ftjob-1", Answer(status, {"error": error}))
    result = osora("jobs", "show", "ftjob-1")
    assert result.exit_code == exit_code
    advice = "set OSORA_API_KEY" if status == 401 else "Do this."
    assert result.stderr.startswith(f"Error: No. Next: {advice}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    as_json = osora("jobs", "show", "ftjob-1", "--json")
    assert as_json.exit_code == exit_code
    assert as_json.stdout == ""
    printed = json.loads(as_json.stderr)["error"]
    assert (printed["message"], printed["code"], printed["status"]) == ("No.", code, status)


def test_a_file_error_names_its_line_once(service: FakeService, trained: Path) -> None:
    service.on("POST", "/files", Answer(400, {"error": {"message": "Bad role", "line": 7}}))
    assert "Error: Bad role (line 7).\n" in osora("train", str(trained)).stderr
    service.on("POST", "/files", Answer(400, {"error": {"message": "Line 7: bad role", "line": 7}}))
    assert osora("train", str(trained)).stderr == "Error: Line 7: bad role.\n"


def test_no_service_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSORA_URL", "http://127.0.0.1:1")
    result = osora("jobs")
    assert result.exit_code == 3
    assert "osora serve" in result.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert osora("train", "/nowhere/at/all").exit_code == 2
    assert osora("jobs", "dance").exit_code == 2


def test_help_documents_the_exit_codes() -> None:
    text = " ".join(osora("--help").output.split())
    assert "3 the service cannot be reached" in text


LISTS: list[tuple[list[str], str, dict[str, Any], str]] = [
    (["jobs"], "/jobs", JOB, "ftjob-1"),
    (["jobs", "list"], "/jobs", JOB, "3/3"),
    (
        ["adapters"],
        "/adapters",
        {"id": "adp-1", "name": "ft:a[b]", "base": "t", "bytes": 2048, "created_at": 1},
        "2.0 KiB",
    ),
    (
        ["webhooks"],
        "/webhook_endpoints",
        {"id": "webhook-1", "name": "n", "url": "https://[::1]/", "osora": {"enabled": True, "failing_since": 1}},
        "failing since",
    ),
    (["key", "list"], "/keys", {"id": "key-1", "name": "ci [x]", "scopes": ["read"]}, "ci [x]"),
    (["tenant"], "/tenants", {"id": "tenant-1", "name": "acme", "created_at": 1, "suspended_at": None}, "acme"),
]


@pytest.mark.parametrize(("words", "path", "item", "shown"), LISTS, ids=lambda value: str(value)[:20])
def test_lists(service: FakeService, words: list[str], path: str, item: dict[str, Any], shown: str) -> None:
    service.on("GET", path, Answer(body={"data": [item], "has_more": False}))
    assert shown in osora(*words).output
    assert json.loads(osora(*words, "--json").stdout) == [item]
    service.on("GET", path, Answer(body={"data": [], "has_more": False}))
    assert "No " in osora(*words).output


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_utc")
def test_a_job_is_shown_with_all_that_an_operator_asks(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lost = {
        "number": 1,
        "worker_id": "box-7",
        "first_step": 0,
        "last_step": 40,
        "compute_seconds": 3_725.4,
        "started_at": 1_700_000_000,
        "finished_at": 1_700_003_800,
        "outcome": "lost",
        "reason": "Attempt 1 was lost: worker box-7 [gpu] stopped renewing its lease, and nobody knows why",
        "error": {"code": "worker_lost"},
    }
    running = {
        **lost,
        "number": 2,
        "worker_id": "box-8",
        "first_step": 40,
        "last_step": 61,
        "compute_seconds": 62,
        "finished_at": None,
        "outcome": None,
        "reason": None,
        "error": None,
    }
    details = {
        "step": 61,
        "total_steps": 120,
        "queue_position": 3,
        "waiting_for": "3 jobs ahead",
        "estimated_start": 1_700_010_000,
        "started_at": 1_700_000_000,
        "compute_seconds": 3_787.4,
        "attempts": [lost, running],
    }
    job = {**JOB, "status": "queued", "trained_tokens": 123, "estimated_finish": 1_700_020_000, "osora": details}
    service.on("GET", "/jobs/ftjob-1", Answer(body={**job, "result_files": ["file-2"]}))
    assert osora("jobs", "show", "ftjob-1").output.splitlines() == [
        "job            ftjob-1",
        "status         queued",
        "waiting for    3 jobs ahead",
        "jobs ahead     3",
        "base           osora-tiny",
        "training file  file-1",
        "step           61/120",
        "tokens         123",
        "compute        1 h 03 min",
        "created        2023-11-14 22:13:20",
        "started        2023-11-14 22:13:20",
        "likely start   2023-11-15 01:00:00",
        "likely end     2023-11-15 03:46:40",
        "adapter        ft:osora-tiny:default::ab",
        "result file    file-2",
        "fetch it       osora jobs results ftjob-1",
        "next           osora jobs watch ftjob-1",
        "",
        "attempt 1      lost, steps 0 to 40, 1 h 02 min of compute",
        "  worker       box-7",
        "  time         2023-11-14 22:13:20 to 2023-11-14 23:16:40",
        f"  why          {lost['reason']}",
        "",
        "attempt 2      running, steps 40 to 61, 1 min 02 s of compute",
        "  worker       box-8",
        "  time         since 2023-11-14 22:13:20",
    ]


def test_events_are_shown_oldest_first(service: FakeService) -> None:
    service.on("GET", "/jobs/ftjob-1/events", Answer(body={"data": [STEP, EVALUATION]}))
    lines = osora("jobs", "events", "ftjob-1", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["ftevent-1", "ftevent-2"]


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_job_actions(service: FakeService, action: str) -> None:
    service.on("POST", f"/jobs/ftjob-1/{action}", Answer(body=JOB))
    assert "ftjob-1" in osora("jobs", action, "ftjob-1").output


def test_generate(service: FakeService) -> None:
    service.on("POST", "/generate", Answer(body={"text": "[bold] hi", "usage": {}}))
    result = osora("generate", "Hello", "--system", "Be brief", "--adapter", "adp-1", "--temperature", "0.5")
    assert result.stdout == "[bold] hi\n"
    assert service.requests[0].json == {
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}],
        "adapter_id": "adp-1",
        "temperature": 0.5,
    }
    assert json.loads(osora("generate", "Hello", "--json").stdout)["text"] == "[bold] hi"
    assert osora("generate", "Once", "--raw").exit_code == 0
    assert service.requests[-1].json == {"prompt": "Once"}
    assert osora("generate", "Once", "--raw", "--system", "Be brief").exit_code == 2


def test_generate_with_options(service: FakeService, tmp_path: Path) -> None:
    service.on("POST", "/generate", Answer(body={"text": "{}", "usage": {}}))
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    options = ["--seed", "7", "--top-p", "0.9", "--stop", "a", "--stop", "b", "--strength", "0.5"]
    assert osora("generate", "Hi", "--raw", *options, "--schema", str(schema)).exit_code == 0
    assert service.requests[0].json == {
        "prompt": "Hi",
        "seed": 7,
        "top_p": 0.9,
        "stop": ["a", "b"],
        "strength": 0.5,
        "json_schema": {"type": "object"},
    }
    schema.write_text("{")
    assert osora("generate", "Hi", "--schema", str(schema)).exit_code == 2


def test_generate_streams(service: FakeService) -> None:
    pieces = [sse("token", {"text": "a"}), sse("token", {"text": "b"}), sse("done", {"text": "ab"})]
    service.on("POST", "/generate", Answer(events=pieces))
    assert osora("generate", "Hello", "--stream").stdout == "ab\n"
    lines = osora("generate", "Hello", "--stream", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "a"}, {"text": "b"}, {"text": "ab"}]


def test_webhooks(service: FakeService, in_utc: None) -> None:
    endpoint = {"id": "webhook-1", "signing_secret": "whsec_hush"}
    service.on("GET", "/webhook_event_types", Answer(body={"data": ["a", "b"]}))
    service.on("POST", "/webhook_endpoints", Answer(body=endpoint))
    assert "whsec_hush" in osora("webhooks", "create", "https://hooks.example.com/").output
    assert service.requests[-1].json["event_types"] == ["a", "b"]
    osora("webhooks", "create", "https://hooks.example.com/", "--event", "b", "--name", "n")
    assert service.requests[-1].json == {"url": "https://hooks.example.com/", "event_types": ["b"], "name": "n"}
    path = "/webhook_endpoints/webhook-1"
    service.on("POST", f"{path}/rotate_secret", Answer(body=endpoint))
    assert "whsec_hush" in osora("webhooks", "rotate", "webhook-1", "--keep-old").output
    assert service.requests[-1].json == {"keep_old_secret_active_for_24_hours": True}
    service.on("POST", path, Answer(body=endpoint))
    assert osora("webhooks", "enable", "webhook-1").exit_code == 0
    assert service.requests[-1].json == {"osora": {"enabled": True}}
    good, bad = (
        {"status_code": code, "osora": {"error": why}} for code, why in ((204, None), (500, "it answered 500"))
    )
    service.on("POST", f"{path}/test", Answer(body=good), Answer(body=bad))
    assert osora("webhooks", "test", "webhook-1").exit_code == 0
    result = osora("webhooks", "test", "webhook-1", "--event", "b")
    assert (result.exit_code, "it answered 500" in result.output) == (1, True)
    assert service.requests[-1].json == {"event_type": "b"}
    attempts = [{"number": 1, "at": 1, "status_code": 500, "seconds": 0.25, "error": "it answered 500"}]
    line = {
        "id": "wh_1",
        "created_at": 0,
        "event_type": "b",
        "status": "pending",
        "next_attempt_at": 86_400,
        "attempts": attempts,
        "data": {"id": "ftjob-1"},
    }
    service.on("GET", f"{path}/deliveries", Answer(body={"data": [line]}))
    shown = osora("webhooks", "log", "webhook-1").output
    for word in ("ftjob-1", "pending", "it answered 500 (0.2 s)", "1970-01-02 00:00:00", "wh_1"):
        assert word in shown
    service.on("DELETE", path, Answer(body={}))
    assert osora("webhooks", "delete", "webhook-1").exit_code == 0


@pytest.mark.parametrize(("said", "seconds"), [("90d", 90 * 86_400), ("12h", 43_200), ("5m", 300), ("60", 60)])
def test_how_long_a_key_lasts(service: FakeService, said: str, seconds: int) -> None:
    service.on("POST", "/keys", Answer(body={"id": "key-1", "key": "osk-secret"}))
    assert osora("key", "create", "ci", "--expires", said).exit_code == 0
    assert service.requests[-1].json == {"name": "ci", "expires_in": seconds}


@pytest.mark.parametrize("said", ["", "0d", "soon", "-1", "1y", "1.5h"])
def test_what_is_no_time(service: FakeService, said: str) -> None:
    refused = osora("key", "create", "ci", "--expires", said)
    assert refused.exit_code == 2
    assert "--expires" in refused.output
    assert service.requests == []


def test_tenants(service: FakeService) -> None:
    tenant = {"id": "tenant-1", "name": "acme", "created_at": 1, "suspended_at": None}
    for path in ("/tenants", "/tenants/acme/suspend", "/tenants/acme/resume"):
        service.on("POST", path, Answer(body=tenant))
    assert "osora key create NAME --tenant acme" in osora("tenant", "create", "acme").output
    assert "osora tenant resume acme" in osora("tenant", "suspend", "acme", "--yes").output
    assert json.loads(osora("tenant", "resume", "acme", "--json").stdout) == tenant


def test_keys_that_hang_on_an_old_secret_are_told_of(service: FakeService) -> None:
    keys = [{"id": f"key-{n}", "name": "ci", "server_secret": state} for n, state in enumerate(["current", "fallback"])]
    service.on("GET", "/keys", Answer(body={"data": keys, "has_more": False}))
    assert "Not hashed with the current server secret yet: 1 of these" in osora("key", "list").output


def test_key_create_and_adapter_download_and_delete(service: FakeService, tmp_path: Path) -> None:
    service.on("POST", "/keys", Answer(body={"id": "key-1", "key": "osk-secret"}))
    service.on("DELETE", "/keys/key-1", Answer(body={"deleted": True}))
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"zip!"))
    service.on("DELETE", "/adapters/adp-1", Answer(body={"deleted": True}))
    assert "osk-secret" in osora("key", "create", "ci", "--scope", "read", "--scope", "train").output
    assert service.requests[-1].json == {"name": "ci", "scopes": ["read", "train"]}
    assert osora("key", "revoke", "key-1").exit_code == 0
    service.on("GET", "/keys", Answer(body={"data": [{"id": "key-2", "name": "ci", "tenant": "acme"}]}))
    assert "acme" in osora("key", "list", "--tenant", "acme").output
    assert service.requests[-1].query == "limit=20&tenant=acme"
    target = tmp_path / "a.zip"
    assert json.loads(osora("adapters", "download", "adp-1", "-o", str(target), "--json").stdout)["bytes"] == 4
    assert (service.requests[-1].query, target.read_bytes()) == ("", b"zip!")  # a LoRA comes as it came
    target = tmp_path / "b.zip"
    assert osora("adapters", "download", "adp-1", "--format", "gguf", "-o", str(target)).exit_code == 0
    assert (service.requests[-1].query, target.read_bytes()) == ("format=gguf", b"zip!")
    assert json.loads(osora("adapters", "delete", "adp-1", "--yes", "--json").stdout)["deleted"]


def test_adapter_export_unpacks_into_a_folder_or_leaves_none(service: FakeService, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("adapter_config.json", "{}")
    service.on("GET", "/adapters/adp-1/download", Answer(body=archive.getvalue()))
    target = tmp_path / "lora"
    told = json.loads(osora("adapters", "export", "adp-1", "-o", str(target), "--json").stdout)
    assert told == {"path": str(target), "bytes": 2}
    assert service.requests[-1].query == "format=lora"
    assert (target / "adapter_config.json").read_text() == "{}"
    again = osora("adapters", "export", "adp-1", "-o", str(target))
    assert (again.exit_code, "exists" in again.output) == (2, True)
    assert osora("adapters", "export", "adp-2", "-o", str(tmp_path / "other")).exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_ctrl_c_while_watching_leaves_the_job_and_says_how_to_come_back(service: FakeService) -> None:
    service.on("GET", "/jobs/ftjob-1", Answer(body=JOB))
    # A stream that never comes to its end: the command reconnects again and again.
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[sse("metrics", STEP, 2)]))
    command = [
        sys.executable,
        "-P",
        "-m",
        "osora",
        "jobs",
        "watch",
        "ftjob-1",
        "--json",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == STEP
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "osora jobs watch ftjob-1" in json.loads(stderr)["error"]["next_action"]
    assert not [request for request in service.requests if request.method == "POST"]


def test_the_command_starts_fast_and_without_torch() -> None:
    code = "import sys, osora.cli; sys.exit('torch' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
