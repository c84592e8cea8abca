"""The program of `make demo-openai`, on a few of its rows."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.acceptance.conftest import BASE, Service

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = EXAMPLES / "tickets_openai.py"


def test_the_program_fine_tunes_and_asks(service: Service, tmp_path: Path) -> None:
    shutil.copy(PROGRAM, tmp_path)
    data = tmp_path / "support-tickets"
    data.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        rows = (EXAMPLES / data.name / name).read_text().splitlines(keepends=True)
        (data / name).write_text("".join(rows[:8]))
    env = {**os.environ, "OPENAI_BASE_URL": f"{service.url}/v1", "OPENAI_API_KEY": service.key}
    command = [sys.executable, "-I", str(tmp_path / PROGRAM.name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    *_, base, adapter = done.stdout.splitlines()
    assert base.startswith(f"{BASE} answers ")
    assert adapter.startswith(f"ft:{BASE}:default:tickets:")
    assert adapter.endswith("of 8 tickets right")


def test_it_is_short_and_uses_nothing_but_openais_client() -> None:
    text = PROGRAM.read_text()
    assert len(text.splitlines()) <= 40
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"openai"}
