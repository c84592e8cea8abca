"""The README's walk, pasted as it stands."""

import io
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


@pytest.mark.timeout(180)
def test_the_walk_works_as_written(service: Service) -> None:
    readme = (ROOT / "README.md").read_text()
    walk = readme[readme.index("<!-- walk: begin") : readme.index("<!-- walk: end")]
    script = "set -euo pipefail\n" + "\n".join(re.findall(r"```bash\n(.*?)```", walk, re.DOTALL))
    env = {**os.environ, "OSORA_URL": service.url, "OSORA_DATA_DIR": str(service.data_dir)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events, _, answer = done.stdout.rpartition("\n")
    assert "event: done" in events
    generation = json.loads(answer)
    assert generation["text"]
    assert generation["receipt"]["adapter_sha256"]
    archive = zipfile.ZipFile(io.BytesIO(Path("/tmp/adapter.zip").read_bytes()))
    assert sorted(archive.namelist()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.timeout(180)
def test_the_library_works_as_written(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    env = {**os.environ, "OSORA_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", program.replace("/tmp/tickets", str(tmp_path / "tickets"))]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trainable params: 26,624 || all params: 6,977,792" in done.stdout
    lora = json.loads((tmp_path / "tickets" / "lora_adapter_config.json").read_text())
    assert (lora["peft_type"], lora["r"]) == ("LORA", 128)


def test_files_and_folders_that_it_links_to_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith("https:")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
    named = re.findall(r"`(tests/[\w/.]+)`", readme)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_make_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
