"""The shape that every benchmark's JSON has."""

import json
from pathlib import Path

import pytest

from benchmarks.report import Report


def test_rows_and_targets_are_printed_as_they_come_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("cpu", {"way": "6", "seconds": "9.3f"})
    report.add(way="one", seconds=1.23456, note="kept, not shown")
    report.target("time", 1.5, "s", "<= 2", True)
    report.target("memory", None, "GiB", "<= 2", False)
    printed = capsys.readouterr().out
    assert "1.235" in printed
    assert "note" not in printed
    assert "met     time: 1.5 s (target <= 2 s)" in printed
    assert "MISSED  memory: not measured" in printed
    report.write(tmp_path / "sub" / "report.json")
    written = json.loads((tmp_path / "sub" / "report.json").read_text())
    assert written["rows"] == [{"way": "one", "seconds": 1.23456, "note": "kept, not shown"}]
    assert written["targets"][0] == {"name": "time", "value": 1.5, "unit": "s", "target": "<= 2", "met": True}
    assert written["machine"]["device"] == "cpu"
    assert {"processor", "cores", "torch"} <= written["machine"].keys()


def test_a_row_that_fails_is_reported_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("cpu", {"way": "6"})
    for way in ("bad", "good"):
        with report.guard(way=way):
            if way == "bad":
                raise MemoryError("too large")
            report.add(way=way)
    assert report.rows == [{"way": "bad", "failed": "MemoryError: too large"}, {"way": "good"}]
    assert "too large" in capsys.readouterr().out
