"""Where the service runs: in a folder that has names in common with it, and under another Python."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from osora import Osora
from tests.acceptance.conftest import wait_until_ready
from tests.support import shadows
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "tests" / "unit" / "osora" / "stubs"
HEAVY = {"llguidance", "numpy", "peft", "safetensors", "tokenizers", "torch", "transformers"}
"""What only worker and inference server need."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The command `osora` as pip makes it."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["osora"]
    module, _, function = entry.partition(":")
    path = tmp_path / "bin" / "osora"
    path.parent.mkdir()
    path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return path


def test_folders_with_our_names_do_not_shadow_us(tmp_path: Path, script: Path) -> None:
    (tmp_path / "here").mkdir()
    here = shadows.cast(tmp_path / "here")
    env = {**os.environ, "OSORA_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, str(script), "serve", "--json", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=here, env=env, stdout=subprocess.PIPE) as server:
        try:
            wait_until_ready(server)
            for program in ([str(script)], ["-P", "-m", "osora"]):
                listing = [sys.executable, *program, "jobs", "--json"]
                done = subprocess.run(listing, cwd=here, env=env, capture_output=True, text=True, check=False)
                assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
        finally:
            server.terminate()
            server.communicate(timeout=60)


def test_whatever_starts_a_program_of_ours_starts_it_safely() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = [*packages["packages"], "benchmarks", "examples"]
    sources = {path: path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    found = [(path, line) for path, text in sources.items() for line in text.splitlines() if '"-m", ' in line]
    assert len(found) >= 4
    unsafe = [(path, line) for path, line in found if '"-P", "-m"' not in line]
    assert unsafe == []


def other_python() -> str | None:
    """Another Python that we support, of another minor version than this one; the newest there is."""
    names = [f"python3.{minor}" for minor in range(11, 20)]
    on_path = [found for name in names if (found := shutil.which(name))]
    of_pyenv = map(str, (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    found = {}
    for python in (*on_path, *of_pyenv):
        code = "import ensurepip, sys, venv; print(sys.version_info.minor)"
        said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
        if said.isdigit() and int(said) >= 11 and int(said) != sys.version_info.minor:
            found[int(said)] = python
    return found[max(found)] if found else None


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Another Python with what API, registry and client need."""
    interpreter = other_python()
    if interpreter is None:
        pytest.skip("this machine has no second Python from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    light = [name for name in needed if re.split(r"[\[>=;]", name)[0] not in HEAVY]
    subprocess.run([interpreter, "-m", "venv", str(tmp_path / "venv")], check=True)
    own = str(tmp_path / "venv" / "bin" / "python")
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "-c", str(ROOT / "constraints.txt")]
    done = subprocess.run([own, "-m", "pip", "install", *options, *light], capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr and "versions: none" in done.stderr:
        pytest.skip("this machine reaches no package index")
    assert done.returncode == 0, done.stderr
    return own


@pytest.mark.timeout(1800)
def test_another_python_runs_all_that_needs_no_torch(python: str, tmp_path: Path) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    compiling = [python, "-W", "error", "-m", "compileall", "-q", *(str(ROOT / name) for name in packages["packages"])]
    compiled = subprocess.run(compiling, env=env, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    # Worker and inference server are stand-ins; broker, database, API and command line are real.
    for name in ("inference", "worker"):
        shutil.copytree(STUBS / name, tmp_path / "stubs" / name)
    shutil.copy(STUBS / "stub.py", tmp_path / "stubs")
    for name in ("torch", "transformers"):  # to be seen; whoever imports them fails
        (tmp_path / "stubs" / f"{name}.py").write_text(f"raise ImportError('{name} is not for this program')\n")
    installed = tmp_path / "stubs" / "osora-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: osora\nVersion: 0\n")
    env |= {"PYTHONPATH": f"{tmp_path / 'stubs'}{os.pathsep}{ROOT}", "OSORA_DATA_DIR": str(tmp_path / "data")}
    command = [python, "-P", "-m", "osora", "serve", "--json", "--port", str(free_port())]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as server:
        try:
            url = wait_until_ready(server)
            rows = tmp_path / "rows.jsonl"
            rows.write_text(json.dumps({"prompt": "Which city?", "completion": " Rome"}) + "\n")
            training = [python, "-P", "-m", "osora", "train", str(rows), "--base", "osora-tiny", "--no-watch", "--json"]
            done = subprocess.run(training, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            with Osora(url, (tmp_path / "data" / "local.key").read_text().strip()) as sdk:
                assert [job["id"] for job in sdk.jobs.list()] == [json.loads(done.stdout)["id"]]
        finally:
            server.terminate()
            assert server.wait(timeout=60) == 0
