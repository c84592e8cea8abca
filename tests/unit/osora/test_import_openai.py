import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from osora.cli import app
from tests.support.fake_openai import KEY, Gate, playing, say


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi"}\n')
    return str(path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--all", "--price-in", "0"], "--price-in"),
        (["--output", "x"], "--output"),
        (["--record", "FILE"], "--model"),
        (["--record", "FILE", "--model", "ft:a", "--model", "ft:b"], "--model"),
        (["--record", "FILE", "--model", "ft:a", "--all"], "--all"),
        (["--record", "FILE", "--model", "ft:a", "--dry-run"], "--dry-run"),
        (["--record", "FILE", "--model", "ft:a", "--price-in", "1"], "--price-out"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    prompts: str, options: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    words = [prompts if word == "FILE" else word for word in options]
    result = CliRunner().invoke(app, ["import", "openai", *words], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert named in result.output


def test_a_line_that_is_no_prompt_is_named_before_anything_is_done(
    prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    Path(prompts).write_text('{"prompt": "Hi"}\n{"text": "Hi"}\n')
    output = tmp_path / "out"
    options = ["--model", "ft:a", "--output", str(output), "--yes"]
    result = CliRunner().invoke(app, ["import", "openai", "--record", prompts, *options])
    assert result.exit_code == 2
    assert "line 2" in result.output
    assert not output.exists()


def test_a_key_over_an_open_wire_is_said(prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "osk-ours")
    options = ["--model", "ft:a", "--from", "http://gateway.example/v1"]
    result = CliRunner().invoke(app, ["import", "openai", "--record", prompts, *options])
    assert "unencrypted" in result.output
    assert "a key of Osora" in result.output
    assert "osk-ours" not in result.output


def test_ctrl_c_keeps_the_answers_that_are_under_way(prompts: str, tmp_path: Path) -> None:
    Path(prompts).write_text("".join(f'{{"prompt": "ask {number}"}}\n' for number in range(9)))
    gate = Gate()

    def choose(body: Any) -> dict[str, Any]:
        if body["messages"][0]["content"] == "ask 3":
            gate.reached.set()
            gate.opened.wait(60)
        return say("yes")

    with playing() as there:
        there.choose = choose
        options = ["--model", "ft:a", "--output", str(tmp_path / "out"), "--yes", "--concurrency", "1"]
        words = ["import", "openai", "--record", prompts, *options, "--requests-per-minute", "100000"]
        command = [sys.executable, "-P", "-m", "osora", *words]
        env = os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": there.url}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert gate.reached.wait(60)
            process.send_signal(signal.SIGINT)
            gate.opened.set()
            _, complained = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "run it again to go on" in complained
        asked = len(there.asked)
    kept = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()[1:]
    assert 4 <= len(kept) == asked
    assert not (tmp_path / "out" / "train.jsonl").exists()
