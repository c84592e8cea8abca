from pathlib import Path

import pytest

from osora.errors import OsoraUsageError
from osora.migrate.journal import Journal

HEADER = {"model": "ft:a", "temperature": 0.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_what_was_added_is_there_again(path: Path) -> None:
    with Journal(path, HEADER) as journal:
        journal.add({"key": "a", "text": "é\ud83d"})
        assert journal["a"]["text"] == "é\ud83d"
    with Journal(path, HEADER) as journal:
        journal.add({"key": "b", "text": "second"})
        assert [journal[key]["text"] for key in "ab"] == ["é\ud83d", "second"]
        assert "c" not in journal


@pytest.mark.parametrize("half", [b'{"key": "b", "te', b'{"key": "b"}'])
def test_a_line_without_its_end_is_dropped(path: Path, half: bytes) -> None:
    with Journal(path, HEADER) as journal:
        journal.add({"key": "a"})
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    with Journal(path, HEADER) as journal:
        assert "b" not in journal
        journal.add({"key": "c"})
    assert path.read_bytes() == whole + b'{"key": "c"}\n'


def test_half_a_header_is_as_good_as_none(path: Path) -> None:
    path.write_bytes(b'{"mod')
    with Journal(path, HEADER) as journal:
        journal.add({"key": "a"})
    with Journal(path, HEADER) as journal:
        assert "a" in journal


def test_two_processes_do_not_write_one_journal(path: Path) -> None:
    with Journal(path, HEADER), pytest.raises(OsoraUsageError, match="by another process"):
        Journal(path, HEADER)
    with Journal(path, HEADER):
        pass


def test_it_is_of_one_model(path: Path) -> None:
    with Journal(path, HEADER):
        pass
    with pytest.raises(OsoraUsageError, match="recorded with model 'ft:a', not 'ft:b'"):
        Journal(path, {**HEADER, "model": "ft:b"})


def test_a_line_that_somebody_broke_is_named(path: Path) -> None:
    with Journal(path, HEADER) as journal:
        journal.add({"key": "a"})
    path.write_bytes(path.read_bytes() + b"{]\n")
    with pytest.raises(OsoraUsageError, match="line 3"):
        Journal(path, HEADER)
