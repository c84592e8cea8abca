"""A large file takes no more memory than a small one."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import large_upload


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_the_memory_of_the_api_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in parts nor in one piece, and in parts neither when they come nor when they are joined."""
    path = tmp_path / "report.json"
    monkeypatch.setattr("sys.argv", ["large_upload", "--mebibytes", "192", "--json", str(path)])
    large_upload.main()
    written = json.loads(path.read_text())
    assert [(row["sent"], row["mebibytes"]) for row in written["rows"]] == [("in parts", 192), ("in one piece", 192)]
    (target,) = written["targets"]
    assert 0 < target["value"] < 128, target
