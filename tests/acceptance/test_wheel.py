"""What `pip install osora` brings, without the checkout beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(ROOT)], check=True, capture_output=True)
    return target


def run(installed: Path, program: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=env, cwd=installed.parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_bundled_base_is_found_by_its_name(installed: Path) -> None:
    found = run(installed, "from osora_core.base_models import resolve; print(resolve('osora-tiny'))")
    assert found == str(installed / "osora_core" / "bundled" / "osora-tiny")
    names = {path.name for path in Path(found).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names


def test_every_program_is_there(installed: Path) -> None:
    modules = ("api", "worker", "inference", "registry", "osora", "migrations.versions")
    program = f"import importlib.util as u; print([u.find_spec(m).submodule_search_locations[0] for m in {modules}])"
    assert run(installed, program) == str([str(installed / module.replace(".", "/")) for module in modules])
