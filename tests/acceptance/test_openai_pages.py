"""The Python that the pages for OpenAI's client show, run as it stands but for address, key and data."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service, dataset

DOCS = Path(__file__).parents[2] / "docs"


def programs(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def said_by(program: str, service: Service, folder: Path) -> str:
    env = {**os.environ, "OPENAI_BASE_URL": f"{service.url}/v1", "OPENAI_API_KEY": service.key}
    program = program.replace("http://127.0.0.1:8000", service.url).replace("osk-…", service.key)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_from_openai(service: Service, tmp_path: Path) -> None:
    dataset(tmp_path / "tickets.jsonl", "Oslo")
    address, job, *_ = programs("migrate-from-openai.md")
    assert said_by(address + job, service, tmp_path) == "Oslo"


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
def test_tools(service: Service, tmp_path: Path, tool_choice: str) -> None:
    (program,) = programs("tools.md")
    # The limit: a base that has not learned when to stop calling goes on until its context ends.
    program = program.replace("tools=tools)", f"tools=tools, tool_choice={tool_choice!r}, max_tokens=200)", 1)
    said_by(program, service, tmp_path)
