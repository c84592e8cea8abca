"""What `pip install osora` brings without extras, and a Python that has nothing else."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = ("osora", "osora_common", "osora_data")

_HOOK = """
import sys
allowed = set({allowed!r}) | set(sys.stdlib_module_names) | {{"__main__"}}

class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Only())
"""


def modules() -> set[str]:
    """The top-level modules of the distributions that a client depends on, directly or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    seen: set[str] = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name in seen or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        waiting += [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    brought = importlib.metadata.packages_distributions()
    return {module for module, by in brought.items() if seen & {canonicalize_name(name) for name in by}}


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in which nothing else can be imported."""
    code = _HOOK.format(allowed=sorted({*modules(), *OURS})) + program
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **env}
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)
