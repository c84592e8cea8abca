"""What a person sees: the command line in a terminal of 80 columns, against the real service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service, dataset
from tests.support import terminal

OSORA = [sys.executable, "-P", "-m", "osora"]


@pytest.fixture
def env(service: Service) -> dict[str, str]:
    return {**os.environ, "OSORA_URL": service.url, "OSORA_API_KEY": service.key}


def test_from_a_file_to_a_conversation(service: Service, env: dict[str, str], tmp_path: Path) -> None:
    """Train and see the losses fall, then talk to what came of it by the very command that was named."""
    training = dataset(tmp_path / "turin.jsonl", "Turin")
    validation = dataset(tmp_path / "held-out.jsonl", "Turin", rows=4)
    options = ["--validation", str(validation), "--epochs", "8", "--batch-size", "8", "--suffix", "turin"]
    with terminal.running([*OSORA, "train", str(training), *options], env) as screen:
        assert screen.finish(200) == 0, screen.screen.text
    text = screen.screen.text
    assert re.search("[\u2801-\u28ff]{3}", text), text
    assert "◆ validation loss" in text
    assert " left" not in text
    assert re.search(r"validation loss \d+\.\d+ -> 0\.\d+", text)
    assert re.search(r"step \d+/24 .* left", screen.seen)
    assert all(len(line) <= 80 for line in text.splitlines())
    (adapter,) = re.findall(r"osora chat (ft:\S+)", text)
    with terminal.running([*OSORA, "chat", adapter], env) as screen:
        screen.wait_for("\n>")
        screen.type("Which city?\n")
        screen.wait_for("\nTurin\n>")
        screen.type("/adapter\n")
        screen.wait_for("You talk to the bare base now.")
        screen.wait_for_prompt()
        screen.type(f"/save {tmp_path / 'said.jsonl'}\n")
        screen.wait_for("row 1")
        screen.end_input()
        assert screen.finish() == 0
    said = json.loads((tmp_path / "said.jsonl").read_text())["messages"]
    assert [message["content"] for message in said] == ["Which city?", "Turin"]
    again = subprocess.run(
        [*OSORA, "train", str(training), "--epochs", "0"], env=env, capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    before = len([*service.sdk.files.list()])
    refused = subprocess.run(
        [*OSORA, "train", str(dataset(tmp_path / "new.jsonl", "Pisa")), "--patience", "2"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1, refused.stderr
    assert "--patience goes by the validation loss" in refused.stderr
    assert len([*service.sdk.files.list()]) == before


@pytest.mark.usefixtures("trained")
def test_lists_fit_into_the_terminal(service: Service, env: dict[str, str]) -> None:
    service.sdk.keys.create("the nightly import of tickets", scopes=["read", "train", "generate", "admin"])
    for command in ("jobs", "adapters", "files", "key", "bases"):
        with terminal.running([*OSORA, command], env) as screen:
            assert screen.finish() == 0
        lines = screen.seen.replace("\r", "").splitlines()
        assert len(lines) >= 1
        plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
        assert all(len(line) <= 80 for line in plain), plain
