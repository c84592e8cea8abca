"""The README's promises: what it shows is pasted into a shell, as a reader would, and must work."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

# CI is `make test`, the demo has tests of its own, and the service fixture is `osora serve`.
RUN_ELSEWHERE = {"make demo", "make test", ".venv/bin/osora serve"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader's checkout has in it, without the danger of leaving something there."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(service: Service) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    return {**own, "OSORA_URL": service.url, "OSORA_DATA_DIR": str(service.data_dir)}


@pytest.mark.timeout(240)
def test_every_command_works_as_it_stands(service: Service, folder: Path) -> None:
    """All bash blocks in one shell, then all python blocks in a process each: later ones stand on earlier ones."""
    walk = [block for block in blocks("bash") if block.strip() not in RUN_ELSEWHERE]
    assert len(walk) >= 5
    mark = "--- the next block"
    script = "set -euo pipefail\n" + f"echo '{mark}'\n".join(walk)
    shell = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(service), capture_output=True, text=True, timeout=200
    )
    assert shell.returncode == 0, shell.stdout[-3000:] + shell.stderr[-3000:]

    outputs = dict(zip(walk, shell.stdout.split(mark + "\n"), strict=True))
    events = next(text for block, text in outputs.items() if "/events" in block)
    assert events.count("event: done") == 1
    assert '"status":"succeeded"' in events.replace(" ", "")
    answer = json.loads(next(text for block, text in outputs.items() if "$URL/generate" in block))
    assert answer["receipt"]["adapter_id"] == answer["adapter_id"] is not None
    assert answer["usage"]["completion_tokens"] > 0
    with zipfile.ZipFile(folder / "tickets.zip") as archive:
        assert sorted(archive.namelist()) == ["adapter_config.json", "adapter_model.safetensors"]

    for block in blocks("python"):
        program = subprocess.run(
            [sys.executable, "-c", block], cwd=folder, env=environment(service), capture_output=True, text=True
        )
        assert program.returncode == 0, program.stderr[-3000:]
        assert program.stdout.strip()


def test_what_it_says_of_sizes_can_be_counted() -> None:
    config = json.loads((ROOT / "models" / "osora-tiny" / "config.json").read_text())
    hidden, inner, layers = (config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    osora = layers * sum(128 + d_out for _, d_out in shapes)
    lora = layers * sum(d_in + d_out for d_in, d_out in shapes)
    for number in (osora, osora * 4, lora * 8, lora):
        assert f"{number:,}" in README


def test_every_folder_and_file_it_names_exists() -> None:
    table = README.partition("## Where to look next")[2].partition("## ")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.partition(" | ")[0])]
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
