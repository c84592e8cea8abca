"""The programs of docs/python.md, each run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service, dataset

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SAID = ("succeeded ft:osora-tiny:default:tickets:", "8\n", "9 ", "True", "queued\n")


@pytest.mark.usefixtures("trained")  # one of them shows that there is a second job
def test_the_programs_work_as_written(service: Service, tmp_path: Path) -> None:
    dataset(tmp_path / "tickets.jsonl", "Oslo")
    env = {**os.environ, "OSORA_URL": service.url, "OSORA_API_KEY": service.key}
    for program, said in zip(PROGRAMS, SAID, strict=True):
        command = [sys.executable, "-P", "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout, done.stdout
    assert (tmp_path / "copy.jsonl").read_text().count("Oslo") == 8
