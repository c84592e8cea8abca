"""Writes docker/*.lock: every package of the image with its version and the hashes of its files.

    python docker/lock.py        after a change of pyproject.toml or constraints.txt; needs `uv`

PyTorch and what only it needs come into a file of their own, so that an image without a GPU can take another build;
what builds the image and lists what is in it, into another.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OF_TORCH = re.compile(r"(torch|triton|nvidia-.+|cuda-.+)==")
_SERVICE = ("pyproject.toml", "--extra", "server", "--extra", "parquet")
_BUILDERS = "cyclonedx-bom\nhatchling\n"
_OPTIONS = (
    "--constraints", "constraints.txt", "--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28",
    "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet",
)  # fmt: skip
_HEAD = "# Made by docker/lock.py; change pyproject.toml or constraints.txt instead.\n"


def main() -> None:
    """The command."""
    packages = _compile(*_SERVICE)
    _write("torch", [package for package in packages if _OF_TORCH.match(package)])
    _write("requirements", [package for package in packages if not _OF_TORCH.match(package)])
    _write("build", _compile("-", given=_BUILDERS))


def _compile(*words: str, given: str | None = None) -> list[str]:
    """Packages with their hashes, a few lines each."""
    command = ("uv", "pip", "compile", *words, *_OPTIONS)
    compiled = subprocess.run(command, input=given, cwd=ROOT, capture_output=True, text=True)
    if compiled.returncode != 0:
        sys.exit(compiled.stderr)
    return re.findall(r"^\S.*(?:\n +--hash=.*)+", compiled.stdout, re.MULTILINE)


def _write(name: str, packages: list[str]) -> None:
    (ROOT / "docker" / f"{name}.lock").write_text(_HEAD + "\n".join(packages) + "\n")


if __name__ == "__main__":
    main()
