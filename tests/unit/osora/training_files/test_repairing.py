"""A repaired copy can be trained on, and holds all that was good, in its order."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from osora.errors import OsoraUsageError
from osora.training_files import repairing
from osora.training_files.repairing import Repaired, repair
from osora_data import Row, check, read

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool", "narrator"]), TEXT), max_size=4)
CHATS = TURNS.map(lambda turns: {"messages": [{"role": role, "content": content} for role, content in turns]})
PAIRS = st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion, "id": 3}, TEXT, TEXT)
ALPACA = st.builds(lambda asked, said: {"instruction": asked, "input": "", "output": said}, TEXT, TEXT)
CHOSEN = st.builds(lambda p, a, b: {"prompt": p, "chosen": a, "rejected": b}, TEXT, TEXT, TEXT)
PLAIN = TEXT.map(lambda text: {"text": text})
BROKEN = st.sampled_from(
    [b"", b"  ", b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"a": 1, "a": 2}', b'{"prompt": NaN}', b"null"]
)


def lines(rows: "st.SearchStrategy[dict[str, Any]]") -> "st.SearchStrategy[bytes]":
    good = rows.map(lambda row: json.dumps(row).encode())
    ends = st.sampled_from([b"\n", b"\r\n"])
    parts = st.lists(st.one_of(good, good, good, BROKEN), min_size=1, max_size=8)
    return st.builds(
        lambda some, end, begin: begin + end.join(some), parts, ends, st.sampled_from([b"", b"\xef\xbb\xbf"])
    )


FILES = st.one_of(*(lines(rows) for rows in (CHATS, PAIRS, ALPACA, CHOSEN, PLAIN)))
KINDS = st.sampled_from(["plain", "gzip", "utf-16"])


def repaired(tmp_path: Path, content: bytes, **options: Any) -> tuple[Repaired, bytes]:
    (tmp_path / "in").write_bytes(content)
    found = repair(tmp_path / "in", tmp_path / "out", **{"drop_duplicates": False, "overlong_of": None, **options})
    return found, (tmp_path / "out").read_bytes()


def values(content: bytes) -> list[dict[str, Any]]:
    return [row.value for row in read(io.BytesIO(content)) if isinstance(row, Row)]


@few
@given(FILES, KINDS, st.booleans())
@example(b'{"prompt": "a", "completion": " b"}\n\n{"prompt": "a", "completion": " b"}', "plain", True)
def test_a_copy_passes_the_check(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str, drop: bool
) -> None:
    folder = tmp_path_factory.mktemp("repaired")
    if kind == "gzip":
        content = gzip.compress(content)
    if kind == "utf-16":
        content = content.decode("utf-8", "replace").encode("utf-16")
    good = values(content)
    if not good:
        with pytest.raises(OsoraUsageError, match="No row"):
            repaired(folder, content, drop_duplicates=drop)
        assert [path.name for path in folder.iterdir()] == ["in"], "nothing was written"
        return
    found, copy = repaired(folder, content, drop_duplicates=drop)
    checked = check(io.BytesIO(copy))
    assert checked.problems == []
    assert (checked.container, checked.rows) == ("jsonl", found.rows)
    if drop:
        assert len(values(copy)) == len({json.dumps(value) for value in good})
    else:
        assert values(copy) == good
    (folder / "in").write_bytes(copy)
    again = repair(folder / "in", folder / "again", drop_duplicates=drop, overlong_of=None)
    assert (folder / "again").read_bytes() == copy, "there is nothing left to repair"
    assert again.dropped == {}


def row(number: int) -> dict[str, str]:
    return {"prompt": f"ask {number}", "completion": f"answer {number}"}


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def test_every_row_left_out_is_told(tmp_path: Path) -> None:
    found, copy = repaired(tmp_path, jsonl(row(1), "x", row(1), row(2), row(1)), drop_duplicates=True)
    assert copy == jsonl(row(1), row(2))
    assert (found.rows, found.dropped) == (2, {"problem": 1, "duplicate": 2})
    assert [(change["line"], change["dropped"]) for change in found.changes] == [
        (2, "problem"),
        (3, "duplicate"),
        (5, "duplicate"),
    ]


def test_what_is_told_is_bounded_and_counted(tmp_path: Path) -> None:
    found, _ = repaired(tmp_path, jsonl(row(1), *["x"] * 300, *[row(1)] * 300), drop_duplicates=True)
    assert found.dropped == {"problem": 300, "duplicate": 300}
    assert len(found.changes) == 100


def test_rows_that_do_not_fit_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        "complete": True,
        "limit": 9,
        "over": [{"line": 2, "row": 2, "tokens": 12}],
        "refused": [{"line": 3, "row": 3, "problem": "the template says no"}],
    }
    monkeypatch.setattr(repairing, "measure", lambda *_, **__: measured)
    found, copy = repaired(tmp_path, jsonl(row(1), row(2), row(3), row(4)), overlong_of="tiny")
    assert copy == jsonl(row(1), row(4))
    assert [change["message"] for change in found.changes] == ["has 12 tokens, over 9", "the template says no"]
    measured["complete"] = False
    with pytest.raises(OsoraUsageError, match="could not be counted"):
        repaired(tmp_path, jsonl(row(1)), overlong_of="tiny")
    assert (tmp_path / "out").read_bytes() == copy, "what was there stays"


def test_a_copy_may_take_the_place_of_its_original(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(jsonl(row(1), "x"))
    mask = os.umask(0o027)
    try:
        repair(path, path, drop_duplicates=False, overlong_of=None)
    finally:
        os.umask(mask)
    assert path.read_bytes() == jsonl(row(1))
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["rows"]
