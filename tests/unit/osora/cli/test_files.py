import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from ..conftest import Answer, FakeService

ROW = b'{"prompt": "a", "completion": "b"}\n'
FILE: dict[str, Any] = {
    "id": "file-1",
    "filename": "train.jsonl",
    "bytes": len(ROW),
    "created_at": 1,
    "purpose": "fine-tune",
    "expires_at": None,
    "osora": {"format": "completion", "rows": 1, "sha256": hashlib.sha256(ROW).hexdigest()},
}
JOB = {"id": "ftjob-1", "status": "queued", "model": "osora-tiny", "created_at": 1, "training_file": "file-1"}


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def sent(service: FakeService) -> list[str]:
    """What was changed at the service."""
    return [f"{request.method} {request.path}" for request in service.requests if request.method != "GET"]


@pytest.fixture
def data(service: FakeService, tmp_path: Path) -> Path:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "osora-tiny"}]}))
    service.on("GET", "/files", Answer(body={"data": []}))
    service.on("POST", "/files", Answer(body=FILE))
    service.on("POST", "/jobs", Answer(body=JOB))
    service.on("DELETE", "/files/file-1", Answer(body={"deleted": True}))
    path = tmp_path / "train.jsonl"
    path.write_bytes(ROW)
    return path


def test_identical_bytes_are_sent_once(service: FakeService, data: Path) -> None:
    first = osora("files", "upload", str(data))
    assert first.output == "file-1: train.jsonl, 1 row (completion), 35 B\n"
    service.on("GET", "/files", Answer(body={"data": [FILE]}))
    again = osora("files", "upload", str(data))
    assert "already there: not sent again" in again.output
    assert json.loads(osora("files", "upload", str(data), "--json").stdout) == FILE
    assert osora("train", str(data), "--no-watch").exit_code == 0
    assert sent(service) == ["POST /files", "POST /jobs"]


@pytest.mark.parametrize(
    "other",
    [
        {"expires_at": 2_000_000_000},
        {"purpose": "fine-tune-results"},
        {"osora": {"sha256": "0" * 64}},
        {"osora": None},
    ],
)
def test_what_is_not_the_same_file_is_not_taken_for_it(service: FakeService, data: Path, other: dict[str, Any]) -> None:
    service.on("GET", "/files", Answer(body={"data": [{**FILE, **other}]}))
    assert osora("files", "upload", str(data)).exit_code == 0
    assert sent(service) == ["POST /files"]


def test_bad_rows_are_all_named_before_anything_is_sent(service: FakeService, data: Path) -> None:
    data.write_bytes(ROW + b'{"prompt": 1, "completion": "b"}\n{"prompt": "a"}\n' + b"[]\n" * 40)
    for words in (["train", str(data)], ["files", "upload", str(data)]):
        refused = osora(*words)
        assert (refused.exit_code, sent(service)) == (1, [])
        first, *others, last = refused.stderr.splitlines()
        assert first.startswith("Error: line 2: ")
        assert "41 more" in first
        assert others[0].startswith("  line 3 ")
        assert len(others) == 19
        assert last == "  and 22 more; with --json the first 42 are listed."
    error = json.loads(osora("train", str(data), "--json").stderr)["error"]
    assert (error["code"], error["line"], error["problem_count"]) == ("invalid_file", 2, 42)
    assert [problem["line"] for problem in error["problems"]] == list(range(2, 44))


def test_a_file_that_cannot_be_read_here_is_for_the_service_to_judge(service: FakeService, data: Path) -> None:
    data.write_bytes(b"PAR1 something")
    assert osora("files", "upload", str(data)).exit_code == 0
    assert sent(service) == ["POST /files"]


def test_a_job_that_is_refused_leaves_no_files_behind(service: FakeService, data: Path) -> None:
    refusal = Answer(400, {"error": {"message": "osora.rank is 9: no", "param": "osora.rank"}})
    service.on("POST", "/jobs", refusal)
    refused = osora("train", str(data))
    assert refused.exit_code == 1
    assert "--rank is 9" in refused.stderr
    assert sent(service) == ["POST /files", "POST /jobs", "DELETE /files/file-1"]


def test_a_validation_file_that_is_refused_takes_the_training_file_with_it(service: FakeService, data: Path) -> None:
    service.on("POST", "/files", Answer(body=FILE), Answer(400, {"error": {"message": "line 1: no", "line": 1}}))
    assert osora("train", str(data), "--validation", str(data)).exit_code == 1
    assert sent(service) == ["POST /files", "POST /files", "DELETE /files/file-1"]


def test_a_file_that_was_there_before_stays_when_a_job_is_refused(service: FakeService, data: Path) -> None:
    service.on("GET", "/files", Answer(body={"data": [FILE]}))
    service.on("POST", "/jobs", Answer(400, {"error": {"message": "no"}}))
    assert osora("train", str(data)).exit_code == 1
    assert sent(service) == ["POST /jobs"]


def test_files_of_a_job_whose_answer_was_lost_stay(service: FakeService, data: Path) -> None:
    """It may have been made."""
    service.on("POST", "/jobs", Answer(body=b"{", promised=100))
    assert osora("train", str(data)).exit_code == 3
    assert "DELETE /files/file-1" not in sent(service)


def test_show_and_download(service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service.on("GET", "/files/file-1", Answer(body={**FILE, "filename": "../../etc/curve.csv"}))
    service.on("GET", "/files/file-1/content", Answer(body=b"step,loss\n"))
    shown = osora("files", "show", "file-1").output
    assert FILE["osora"]["sha256"] in shown
    assert osora("files", "download", "file-1").output == "curve.csv: 10 B\n"
    assert (tmp_path / "curve.csv").read_bytes() == b"step,loss\n"
    again = osora("files", "download", "file-1")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    assert json.loads(osora("files", "download", "file-1", "-o", "b.csv", "--json").stdout)["bytes"] == 10
    service.on("GET", "/files/file-1/content", Answer(body=b"half", promised=8))
    assert osora("files", "download", "file-1", "-o", "c.csv").exit_code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv", "curve.csv"]


def test_deleting_takes_a_yes(service: FakeService, data: Path) -> None:
    refused = osora("files", "delete", "file-1")
    assert (refused.exit_code, "--yes" in refused.stderr, sent(service)) == (2, True, [])
    assert osora("files", "delete", "file-1", "--yes").output == "Deleted file-1.\n"
    assert json.loads(osora("files", "delete", "file-1", "-y", "--json").stdout) == {"id": "file-1", "deleted": True}


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('{"question": "a", "answer": "b"}\n', "rename them to `prompt` and `completion`."),
        ('{"mesages": []}\n', "did you mean `messages`?"),
    ],
)
def test_keys_of_rows_are_not_taken_for_flags(service: FakeService, data: Path, text: str, advice: str) -> None:
    data.write_text(text)
    assert advice in osora("files", "upload", str(data)).stderr


def test_columns_that_the_service_names_are_not_taken_for_flags(service: FakeService, data: Path) -> None:
    data.write_text("Frage;Antwort\na;b\n")
    error = {
        "message": "no column is known",
        "code": "invalid_file",
        "next_action": "name one `prompt`",
        "param": "file",
    }
    service.on("POST", "/files", Answer(400, {"error": error}))
    assert "name one `prompt`" in osora("files", "upload", str(data)).stderr
