"""The benchmark of waiting runs through against the running installation."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import service as benchmark
from tests.acceptance.conftest import Service


def test_every_wait_is_measured(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def running(_: Path) -> Iterator[benchmark.Service]:
        yield benchmark.Service(service.url, service.key, service.pid)

    monkeypatch.setattr(benchmark, "serving", running)
    monkeypatch.setattr(benchmark, "_ROWS", 8)
    monkeypatch.setattr(benchmark, "_EPOCHS", 1)
    path = tmp_path / "report.json"
    monkeypatch.setattr("sys.argv", ["service", "--jobs", "2", "--submitters", "2", "--json", str(path)])
    benchmark.main()
    written = json.loads(path.read_text())
    rows = {(row["submitters"], row["what"]): row for row in written["rows"]}
    assert set(rows) == {(n, what) for n in (1, 2) for what in ("first_loss", "adapter", "checkpoint")}
    for n in (1, 2):
        assert 0 < rows[n, "first_loss"]["median"] < rows[n, "adapter"]["median"]
    names = {target["name"] for target in written["targets"]}
    assert names == {"POST to first loss, one submitter", "checkpoint's event to its first answer"}
