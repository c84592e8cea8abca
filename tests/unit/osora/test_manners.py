"""Whatever goes wrong at the command line, a person reads one sentence and a program an exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app
from osora.cli.flags import in_flags

from .conftest import Answer, FakeService, Request, sse

JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "status": "running",
    "model": "osora-tiny",
    "created_at": 1,
    "training_file": "file-1",
    "fine_tuned_model": None,
}


def osora(*words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


def run(*words: str | bytes, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """In a process of its own, as from a shell."""
    command = [sys.executable, "-P", "-m", "osora", *words]
    return subprocess.run(command, env=os.environ | env, capture_output=True, check=False)


def unboxed(text: str) -> str:
    """What stands in typer's box for wrong usage, whatever lines it was folded into."""
    return " ".join(text.replace("│", " ").split())


def is_one_sentence(text: str) -> bool:
    return text.startswith("Error: ") and text.count("\n") == 1 and text.endswith(".\n")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OSORA_URL", "localhost:8000", "set it like http://localhost:8000"),
        ("OSORA_URL", "http://127.0.0.1:eight", "no URL"),
        ("OSORA_URL", "ftp://127.0.0.1", "http://"),
        ("OSORA_URL", "http://", "http://"),
        ("OSORA_API_KEY", "osk-s\u00e9cret", "character 6"),
        ("OSORA_API_KEY", "osk-secret\nosk-secret", "character 11"),
    ],
)
def test_an_address_or_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    result = osora("jobs")
    assert result.exit_code == 2
    assert is_one_sentence(result.stderr), result.stderr
    assert name in result.stderr
    assert said in result.stderr
    assert "osk-s" not in result.stderr


@pytest.mark.parametrize(
    "answer", [Answer(404, b"<h1>File not found</h1>"), Answer(200, b"<html>"), Answer(401, b"no"), Answer(302, b"")]
)
def test_a_server_that_is_not_osora(service: FakeService, answer: Answer) -> None:
    service.on("GET", "/jobs", answer)
    result = osora("jobs")
    assert result.exit_code == 3
    assert f"What answers at {service.url} is not Osora" in result.stderr
    assert "OSORA_URL" in result.stderr
    service.on("GET", "/jobs", Answer(200, ["something else"]))
    assert is_one_sentence(osora("jobs").stderr)


def test_a_download_that_is_cut_says_so_and_leaves_nothing(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"half", promised=8))
    for command in ("download", "export"):
        result = osora("adapters", command, "adp-1", "-o", str(tmp_path / "a"))
        assert result.exit_code == 3
        assert "broke off" in result.stderr
        assert "osora serve" not in result.stderr
        assert list(tmp_path.iterdir()) == []


def test_something_that_is_no_archive(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"zip!"))
    assert is_one_sentence(osora("adapters", "export", "adp-1", "-o", str(tmp_path / "a")).stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["download", "export"])
def test_a_target_that_is_there_or_whose_folder_is_not(service: FakeService, tmp_path: Path, command: str) -> None:
    (tmp_path / "mine").write_text("precious")
    there = osora("adapters", command, "adp-1", "-o", str(tmp_path / "mine"))
    assert (there.exit_code, "exists already" in unboxed(there.stderr)) == (2, True)
    nowhere = osora("adapters", command, "adp-1", "-o", str(tmp_path / "no" / "a"))
    assert (nowhere.exit_code, "there is no folder" in unboxed(nowhere.stderr)) == (2, True)
    assert (tmp_path / "mine").read_text() == "precious"
    assert service.requests == []


def test_deleting_asks(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.on("DELETE", "/adapters/adp-1", Answer(body={"deleted": True}))
    refused = osora("adapters", "delete", "adp-1")
    assert (refused.exit_code, "--yes" in refused.stderr, service.requests) == (2, True, [])
    monkeypatch.setattr("osora.cli.asking.is_asked", lambda: True)
    assert osora("adapters", "delete", "adp-1", stdin=b"n\n").exit_code == 1
    assert service.requests == []
    assert osora("adapters", "delete", "adp-1", stdin=b"y\n").exit_code == 0
    assert osora("adapters", "delete", "adp-1", "--yes").exit_code == 0
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("told", "param", "shown"),
    [
        ("hyperparameters.n_epochs is 99: should be", "hyperparameters.n_epochs", "--epochs is 99: should be"),
        ("method.dpo.hyperparameters.beta is 3: no", "x", "--beta is 3: no"),
        ("osora.learning_rate[1] is -1: no", None, "--learning-rate[1] is -1: no"),
        (
            "`osora.keep` goes by it, and there is no `validation_file`",
            None,
            "--keep goes by it, and there is no --validation",
        ),
        ("max_tokens is 0: should be", "max_tokens", "--max-tokens is 0: should be"),
        ("`strength` scales an adapter: name one", None, "--strength scales an adapter: name one"),
        ("suffix is 'a b': no", "suffix", "--suffix is 'a b': no"),
        ("no base of that name; stop the model", "base", "no base of that name; stop the model"),
        ("osora.max_length is 1: no", None, "osora.max_length is 1: no"),
        ("line 1: `messages` has no answer", "messages", "line 1: `messages` has no answer"),
    ],
)
def test_errors_speak_of_flags(told: str, param: str | None, shown: str) -> None:
    assert in_flags(told, param) == shown


def test_an_answer_that_was_cut_is_called_so(service: FakeService) -> None:
    cut = {"text": '{"a', "finish_reason": "length", "usage": {"completion_tokens": 10}}
    service.on("POST", "/generate", Answer(body=cut))
    whole = osora("generate", "Hi")
    assert (whole.exit_code, whole.stdout) == (0, '{"a\n')
    assert "cut after 10 tokens" in whole.stderr
    service.on("POST", "/generate", Answer(events=[sse("token", {"text": '{"a'}), sse("done", cut)]))
    assert "cut after 10 tokens" in osora("generate", "Hi", "--stream").stderr
    service.on("POST", "/generate", Answer(body={**cut, "finish_reason": "stop"}))
    assert osora("generate", "Hi").stderr == ""


def test_a_prompt_from_standard_input(service: FakeService) -> None:
    service.on("POST", "/generate", Answer(body={"text": "hi"}))
    assert osora("generate", "-", "--raw", stdin="hé\nllo\n".encode()).exit_code == 0
    assert service.requests[-1].json == {"prompt": "hé\nllo"}
    assert osora("generate", "-", stdin=b"\xff").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "dance"],
        ["train", "/nowhere/at/all"],
        ["train", "--epoch", "1"],
        ["jobs", "show"],
        ["generate", "a", "b"],
    ],
)
def test_wrong_usage_is_a_sentence_with_the_help_to_read_and_json_on_request(words: list[str]) -> None:
    told = osora(*words)
    assert (told.exit_code, told.stdout) == (2, "")
    assert is_one_sentence(told.stderr), told.stderr
    assert f"`osora {words[0]} " in told.stderr
    assert " -h`" in told.stderr
    as_json = osora(*words, "--json")
    assert (as_json.exit_code, as_json.stdout) == (2, "")
    error = json.loads(as_json.stderr)["error"]
    assert (error["code"], "-h`" in error["next_action"]) == ("usage", True)


def test_a_no_is_exit_code_1_and_nothing_is_done(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora.cli.asking.is_asked", lambda: True)
    for words in (["files", "delete", "file-1"], ["aliases", "delete", "a"], ["webhooks", "delete", "w"]):
        refused = osora(*words, stdin=b"n\n")
        assert (refused.exit_code, "Nothing was done" in refused.stderr) == (1, True)
    assert osora("key", "revoke", "key-1", stdin=b"n\n").exit_code == 1
    assert service.requests == []


def test_version_and_short_help() -> None:
    assert osora("--version").stdout.startswith("osora ")
    for words in (["-h"], ["jobs", "-h"], ["adapters", "delete", "-h"]):
        result = osora(*words)
        assert (result.exit_code, "Usage" in result.output) == (0, True)


def test_ids_are_whole_in_a_narrow_terminal(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = f"ft:osora-tiny:default:{'long-suffix-' * 5}:0123456789abcdef"
    job = {**JOB, "id": "ftjob-01k9v3x2b8mabcdefghjkmnpqrs", "fine_tuned_model": name}
    service.on("GET", "/jobs", Answer(body={"data": [job]}))
    (line,) = osora("jobs").stdout.splitlines()[1:]
    assert line.split()[0] == job["id"]
    assert line.split()[-1] == name


def test_events_show_what_was_sampled(service: FakeService) -> None:
    data = {"step": 3, "prompt": "Hi", "text": "Ho"}
    event = {"id": "ftevent-1", "type": "message", "message": "Sample after step 3", "created_at": 1, "data": data}
    service.on("GET", "/jobs/ftjob-1/events", Answer(body={"data": [event]}))
    assert "Sample after step 3: 'Hi' -> 'Ho'" in osora("jobs", "events", "ftjob-1").stdout


def checkpoint(step: int, loss: float, match: float) -> dict[str, Any]:
    return {"step_number": step, "metrics": {"step": step, "valid_loss": loss, "valid_exact_match": match}}


@pytest.mark.parametrize(
    ("keep", "shown"), [(None, ["0.2500 at step 8", "75%"]), ("last", ["0.5000 at step 12", "50%"])]
)
def test_a_job_is_shown_with_how_it_was_made_and_how_good_it_is(
    service: FakeService, keep: str | None, shown: list[str]
) -> None:
    job = {
        **JOB,
        "validation_file": "file-2",
        "user_provided_suffix": "tickets",
        "method": {"type": "dpo"},
        "hyperparameters": {"n_epochs": 3},
        "osora": {"settings": {"priority": "high", "keep": keep}},
    }
    service.on("GET", "/jobs/ftjob-1", Answer(body=job))
    found = [checkpoint(12, 0.5, 0.5), checkpoint(8, 0.25, 0.75), {"step_number": 6, "metrics": {"step": 6}}]
    service.on("GET", "/jobs/ftjob-1/checkpoints", Answer(body={"data": found}))
    lines = [line.split(maxsplit=1) for line in osora("jobs", "show", "ftjob-1").stdout.splitlines()]
    told = {name: value for name, value in lines}
    assert (told["suffix"], told["method"], told["priority"], told["epochs"]) == ("tickets", "dpo", "high", "3")
    assert [told["valid."].removeprefix("loss").strip(), told["exact"].removeprefix("match").strip()] == shown


def test_result_files_can_be_had(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/jobs/ftjob-1", Answer(body={**JOB, "result_files": ["file-9"]}))
    service.on("GET", "/files/file-9", Answer(body={"id": "file-9", "filename": "../curve.csv"}))
    service.on("GET", "/files/file-9/content", Answer(body=b"step,loss\n"))
    assert osora("jobs", "results", "ftjob-1", "-o", str(tmp_path)).exit_code == 0
    assert (tmp_path / "curve.csv").read_bytes() == b"step,loss\n"
    assert osora("jobs", "results", "ftjob-1", "-o", str(tmp_path)).exit_code == 2


def test_a_job_that_failed_ends_in_sentences_and_no_time_is_left(service: FakeService) -> None:
    data = {"step": 3, "total_steps": 9, "train_loss": 1.25, "tokens_per_second": 50.0, "remaining_seconds": 64.0}
    step = {"id": "ftevent-2", "type": "metrics", "message": "step 3", "created_at": 1, "data": data}
    error = {"message": "the loss became nan at step 3", "next_action": "lower hyperparameters.n_epochs"}
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[sse("metrics", step, 2), sse("done", {})]))
    service.on("GET", "/jobs/ftjob-1", Answer(body={**JOB, "status": "failed", "error": error}))
    output = osora("jobs", "watch", "ftjob-1").output
    assert "the loss became nan at step 3. Next: lower --epochs." in output
    assert "step 3/9" in output
    assert " left" not in output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_that_cannot_show_a_character(service: FakeService, encoding: str) -> None:
    text = "ž 🚚 — done"
    event = {"id": "ftevent-1", "type": "message", "message": text, "created_at": 1, "data": {}}
    live = Answer(events=[sse("message", event, 1), sse("done", {})])
    service.routes["GET", "/jobs/ftjob-1/events"] = lambda request: (
        live if "event-stream" in request.headers["accept"] else Answer(body={"data": [event]})
    )
    service.on("GET", "/jobs/ftjob-1", Answer(body={**JOB, "status": "failed", "error": {"message": text}}))
    done = run("jobs", "watch", "ftjob-1", PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    assert done.stdout.decode(encoding).count("done") == 2
    listed = run("jobs", "events", "ftjob-1", "--json", PYTHONIOENCODING=encoding)
    assert json.loads(listed.stdout)["message"] == text
    assert b"Traceback" not in done.stderr


def test_arguments_that_are_not_utf8(service: FakeService) -> None:
    asked = run("generate", b"caf\xe9")
    assert asked.returncode == 2
    assert is_one_sentence(asked.stderr.decode()), asked.stderr
    assert service.requests == []
    assert run("adapters", "show", b"caf\xe9").returncode == 5
    named = run("train", b"caf\xe9.jsonl")
    assert (named.returncode, b"Traceback" in named.stderr) == (2, False)


@pytest.mark.parametrize("command", [["jobs", "--json"], ["jobs"], ["jobs", "events", "ftjob-1"], ["--help"]])
@pytest.mark.parametrize("reads", [True, False])
def test_a_reader_that_leaves_is_no_accident(service: FakeService, command: list[str], reads: bool) -> None:
    """As `| head -1` does, or whoever does not even begin."""
    service.on("GET", "/jobs", Answer(body={"data": [JOB] * 2000}))
    event = {"type": "message", "message": "a", "created_at": 1, "level": "info"}
    service.on("GET", "/jobs/ftjob-1/events", Answer(body={"data": [event] * 2000}))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "osora", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if reads:
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_standard_output_that_takes_nothing(service: FakeService, output: str) -> None:
    service.on("GET", "/jobs", Answer(body={"data": [JOB]}))
    command = f"exec '{sys.executable}' -P -m osora jobs {output}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    if output == ">&-":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1
        assert is_one_sentence(done.stderr), done.stderr


def test_ctrl_c_while_an_answer_is_awaited(service: FakeService) -> None:
    asked, over = threading.Event(), threading.Event()

    def answer(_: Request) -> Answer:
        asked.set()
        over.wait(60)
        return Answer(body={})

    service.routes["POST", "/generate"] = answer
    command = [sys.executable, "-P", "-m", "osora", "generate", "Hi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        over.set()
    assert (process.returncode, stderr) == (130, "Error: Interrupted.\n")


def test_what_nobody_foresaw_is_a_sentence_and_a_traceback_on_request(service: FakeService) -> None:
    service.on("GET", "/jobs/ftjob-1", Answer(body={"id": "ftjob-1"}))
    told = run("jobs", "show", "ftjob-1")
    assert told.returncode == 1
    assert is_one_sentence(told.stderr.decode())
    assert b"OSORA_DEBUG=1" in told.stderr
    assert b"Traceback" in run("jobs", "show", "ftjob-1", OSORA_DEBUG="1").stderr
