"""What is suggested for a name that nobody knows, and what completes one that is being typed."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app, names
from osora.cli.names import completing, nearest

from ..conftest import Answer, FakeService, Request

NAME = "ft:osora-tiny:default:tickets:45kaskcrbd6cnxyr"
ADAPTER = {"id": "adp-45kaskcrbd6cnxyr", "name": NAME}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is slow on a busy machine is none that hangs."""
    monkeypatch.setattr(names, "_PATIENCE_SECONDS", 60)


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def missing(what: str, name: str) -> Answer:
    message = f"no {what} {name!r}"
    error = {"message": message, "code": f"{what}_not_found", "next_action": f"list the {what}s for their ids"}
    return Answer(404, {"error": error})


def test_the_nearest_name() -> None:
    assert nearest("osora-tinny", ["osora-tiny", "qwen"]) == "osora-tiny"
    assert nearest("tickets", {ADAPTER["id"]: NAME, NAME: ""}) == NAME
    assert nearest("something else", ["osora-tiny", "qwen"]) is None
    assert nearest("qwen", ["qwen"]) is None


@pytest.mark.parametrize(
    ("words", "path", "answer", "lists", "known", "meant"),
    [
        (
            ["adapters", "show", "tickets"],
            "/adapters/tickets",
            missing("adapter", "tickets"),
            "/adapters",
            ADAPTER,
            NAME,
        ),
        (
            ["jobs", "show", "ftjob-13"],
            "/jobs/ftjob-13",
            missing("job", "ftjob-13"),
            "/jobs",
            {"id": "ftjob-12", "status": "queued"},
            "ftjob-12",
        ),
        (
            ["files", "show", "file-13"],
            "/files/file-13",
            missing("file", "file-13"),
            "/files",
            {"id": "file-12", "filename": "a"},
            "file-12",
        ),
        (
            ["aliases", "show", "triag"],
            "/aliases/triag",
            missing("alias", "triag"),
            "/aliases",
            {"name": "triage", "targets": {"a": 1}},
            "triage",
        ),
    ],
)
def test_a_name_that_nobody_knows_is_answered_with_the_nearest(
    service: FakeService,
    words: list[str],
    path: str,
    answer: Answer,
    lists: str,
    known: dict[str, Any],
    meant: str,
) -> None:
    service.on("GET", path, answer)
    for other in ("/adapters", "/aliases"):
        service.on("GET", other, Answer(body={"data": []}))
    service.on("GET", lists, Answer(body={"data": [known]}))
    result = osora(*words)
    assert result.exit_code == 5
    assert f"did you mean {meant}?" in result.stderr
    assert f"`osora {lists[1:]}` lists all" in result.stderr
    service.on("GET", lists, Answer(body={"data": []}))
    assert f"Next: `osora {lists[1:]}` lists them.\n" in osora(*words).stderr


def test_a_base_that_is_not_on_offer(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "osora-tiny"}, {"name": "qwen"}]}))
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    refused = osora("train", str(tmp_path / "a.jsonl"), "--base", "osora-tinny")
    assert refused.exit_code == 2
    assert "did you mean osora-tiny?" in refused.stderr
    assert [request.path for request in service.requests] == ["/bases"]


def test_commands_and_flags_that_are_not_there() -> None:
    assert "Did you mean 'jobs'?" in osora("job").stderr
    assert "--epochs" in osora("train", "--epoch", "3").stderr


def test_ids_complete_and_a_name_completes_once_it_is_begun(service: FakeService) -> None:
    service.on("GET", "/adapters", Answer(body={"data": [ADAPTER]}))
    service.on("GET", "/aliases", Answer(body={"data": [{"name": "triage", "targets": {NAME: 1}}]}))
    complete = completing("adapter")
    assert complete("") == [(ADAPTER["id"], NAME), ("triage", NAME)]
    assert complete("ad") == [(ADAPTER["id"], NAME)]
    assert complete("ft:") == [(NAME, ADAPTER["id"])]
    assert complete("zz") == []


def completed(shell: str, line: str) -> "subprocess.CompletedProcess[str]":
    words = line.split(" ")
    if shell == "bash":
        asked = {"COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": str(len(words) - 1)}
    else:
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    env = {**os.environ, **asked, "_OSORA_COMPLETE": f"complete_{shell}"}
    patience = f"names._PATIENCE_SECONDS = {names._PATIENCE_SECONDS}"
    program = f"from osora.cli import app, names; {patience}; app(prog_name='osora')"
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_given_commands_and_ids(service: FakeService, shell: str) -> None:
    service.on("GET", "/jobs", Answer(body={"data": [{"id": "ftjob-1", "status": "running"}]}))
    assert "jobs" in completed(shell, "osora jo").stdout
    assert "ftjob-1" in completed(shell, "osora jobs show ft").stdout


def test_completion_is_silent_and_quick_while_the_service_is_away_or_hangs(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_PATIENCE_SECONDS", 0.1)
    over = threading.Event()

    def hang(_: Request) -> Answer:
        over.wait(60)
        return Answer(body={"data": [{"id": "ftjob-1", "status": "running"}]})

    service.routes["GET", "/jobs"] = hang
    assert completing("job")("") == [], "it was waited for"
    over.set()
    monkeypatch.setenv("OSORA_URL", "http://127.0.0.1:1")
    done = completed("bash", "osora jobs show f")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", ["files report", "files show", "files report --base", "adapters import --base"])
def test_files_and_bases_complete_wherever_they_are_named(service: FakeService, words: str) -> None:
    for path in ("/files", "/bases"):
        service.on("GET", path, Answer(body={"data": [{"id": "known", "name": "known", "filename": "a.jsonl"}]}))
    assert "known" in completed("bash", f"osora {words} kn").stdout
