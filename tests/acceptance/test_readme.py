"""The README's walk, pasted as it stands."""

import io
import json
import os
import re
import subprocess
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


def test_the_two_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
