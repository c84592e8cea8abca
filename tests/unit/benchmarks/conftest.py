"""The programs run in this process, on one thread and bases of their own."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None) -> None:
    monkeypatch.setenv("OSORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a program's main with these arguments and return what it wrote to --json."""
    import json

    def run_main(program: ModuleType, *arguments: object) -> dict[str, Any]:
        path = tmp_path / "report.json"
        monkeypatch.setattr("sys.argv", [program.__name__, *map(str, arguments), "--json", str(path)])
        program.main()
        written: dict[str, Any] = json.loads(path.read_text())
        return written

    return run_main
