"""`osora files check`, `fix` and `report`."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app
from osora.training_files import checking
from osora.training_files.tokens import NotMeasuredError, default_base
from tests.unit.osora.conftest import Answer, FakeService

TICKETS = Path(__file__).parents[4] / "examples" / "support-tickets"
GOOD = [{"prompt": f"ask {number}", "completion": f"answer {number}" + "!" * 90} for number in range(10)]
TOKENS = {
    "limit": 100,
    "rows": 30_000,
    "counted": 20_000,
    "complete": True,
    "rows_over": 7,
    "over": [{"line": line, "row": line, "tokens": 100 + line} for line in range(1, 8)],
    "rows_refused": 0,
    "refused": [],
    "tokens": 123_456,
    "trained_tokens": 65_432,
    "histogram": [{"from": 65, "to": 100, "rows": 29_993}, {"from": 101, "to": 128, "rows": 7}],
    "samples": [
        {"line": 3, "segments": [{"text": "<user>a\x1b[2Jb\n", "trained": False}, {"text": "so", "trained": True}]}
    ],
    "warnings": [],
}


def osora(*words: object) -> Result:
    return CliRunner().invoke(app, ["files", *map(str, words)])


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows))
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked to be measured; the answer is TOKENS."""
    asked: list[tuple[Any, ...]] = []

    def measure(*arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return TOKENS

    monkeypatch.setattr(checking, "measure", measure)
    return asked


def test_a_file_is_checked_in_the_tokens_of_the_bundled_base() -> None:
    """The whole way, with the program that counts."""
    result = osora("check", TICKETS / "valid.jsonl", "--training", TICKETS / "train.jsonl", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert (report["rows"], report["format"], report["container"]) == (125, "chat", "jsonl")
    assert (report["problems"], report["warnings"]) == ([], [])
    tokens = report["tokens"]["osora-tiny"]
    assert (tokens["rows"], tokens["counted"], tokens["rows_over"], tokens["limit"]) == (125, 125, 0, 1024)
    assert 0 < tokens["trained_tokens"] < tokens["tokens"]
    assert len(tokens["samples"]) == 3


def test_problems_are_told_and_end_with_1(tmp_path: Path, measured: list[tuple[Any, ...]]) -> None:
    path = written(tmp_path / "rows.jsonl", *GOOD, "nope", {"prompt": "x"}, GOOD[0])
    result = osora("check", path, "--base", "tiny")
    assert result.exit_code == 1
    assert "11 rows (completion), jsonl" in result.output
    assert "problem  line 11: is not JSON" in result.output
    assert "problem  line 12: `completion`" in result.output
    assert "warning  1 row the same as an earlier one" in result.output
    assert measured == [(path, "tiny", 11)]
    report = json.loads(osora("check", path, "--json").output)
    assert (report["problem_count"], len(report["problems"])) == (2, 2)


def test_tokens_for_people(tmp_path: Path, measured: list[tuple[Any, ...]]) -> None:
    result = osora("check", written(tmp_path / "rows.jsonl", *GOOD))
    assert result.exit_code == 1, "a job refuses the rows that are too long"
    assert "about 123,456 an epoch, about 65,432 of them trained; a row has at most 100" in result.output
    assert "too long 7 rows: line 1 (101), line 2 (102)" in result.output
    assert "--overlong drop" in result.output
    assert "101 to 128" in result.output
    assert "[[so]]" in result.output
    assert "a\\x1b[2Jb" in result.output, "a file does not steer the terminal"


def test_rows_that_the_base_refuses_end_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"line": 4, "row": 4, "problem": "the template says no", "next_action": "ask otherwise"}
    monkeypatch.setattr(checking, "measure", lambda *_: {**TOKENS, "rows_refused": 9, "refused": [refused]})
    result = osora("check", written(tmp_path / "rows.jsonl", *GOOD))
    assert result.exit_code == 1
    assert "refused  line 4: the template says no. Next: ask otherwise." in result.output
    assert "and 8 more" in result.output


def test_without_the_server_all_but_tokens_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora.training_files.tokens.find_spec", lambda name: None)
    result = osora("check", written(tmp_path / "rows.jsonl", *GOOD, GOOD[0]))
    assert result.exit_code == 0
    assert "warning  1 row the same" in result.output
    assert 'Next: pip install "osora[server]"' in result.output


def test_a_base_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotMeasuredError("there is no base 'x'", "name one")

    monkeypatch.setattr(checking, "measure", refuse)
    result = osora("check", written(tmp_path / "rows.jsonl", *GOOD), "--base", "x")
    assert "Tokens of x: there is no base 'x'. Next: name one." in result.output


def test_the_base_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSORA_BASES", raising=False)
    assert default_base() == "osora-tiny"
    monkeypatch.setenv("OSORA_BASES", " qwen = /models/qwen, osora-tiny")
    assert default_base() == "qwen"


def test_a_repaired_copy(tmp_path: Path) -> None:
    path, copy = written(tmp_path / "rows.jsonl", *GOOD, "nope", GOOD[0]), tmp_path / "copy.jsonl"
    result = osora("fix", path, "-o", copy, "--drop-duplicates")
    assert result.exit_code == 0, result.output
    assert "line 11 left out: is not JSON" in result.output
    assert "line 12 left out: is the same as an earlier row" in result.output
    assert "10 rows written, 2 left out (1 the same as earlier ones; 1 with a problem)" in result.output
    assert [json.loads(line) for line in copy.read_text().splitlines()] == GOOD
    before = copy.read_bytes()
    refused = osora("fix", path, "-o", copy)
    assert (refused.exit_code, copy.read_bytes()) == (2, before)
    told = osora("fix", path, "-o", copy, "--force", "--json")
    assert json.loads(told.output)["dropped"] == {"problem": 1}
    assert osora("fix", path, "-o", tmp_path / "no" / "copy.jsonl").exit_code == 2
    assert osora("fix", path, "-o", tmp_path / "new.jsonl", "--base", "x").exit_code == 2


def test_a_file_of_which_nothing_is_left(tmp_path: Path) -> None:
    result = osora("fix", written(tmp_path / "rows.jsonl", "{"), "-o", tmp_path / "copy.jsonl")
    assert result.exit_code == 2
    assert "nothing was written" in result.output
    assert not (tmp_path / "copy.jsonl").exists()


def test_the_services_report(service: FakeService) -> None:
    report = {
        "object": "file.report",
        "file_id": "file-1",
        "container": "csv",
        "format": "completion",
        "rows": 30_000,
        "bytes": 2048,
        "notes": [{"message": "the key `id` is ignored", "count": 30_000, "lines": [2, 3]}],
        "warnings": [],
        "tokens": {"tiny": TOKENS, "other": {"unavailable": "it is still being measured: ask again in a moment"}},
    }
    service.on("GET", "/files/file-1/report", Answer(body=report))
    service.on("GET", "/files/file-1", Answer(body={"id": "file-1", "filename": "rows.csv"}))
    result = osora("report", "file-1", "--base", "tiny")
    assert result.exit_code == 0, result.output
    assert "rows.csv: 30,000 rows (completion), csv, 2.0 KiB" in result.output
    assert "note     the key `id` is ignored: 30,000 times [lines 2, 3, …]" in result.output
    assert "Tokens of other: it is still being measured: ask again in a moment." in result.output
    assert service.requests[0].query == "base=tiny"
    assert json.loads(osora("report", "file-1", "--json").output) == report
