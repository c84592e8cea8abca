"""Records outlive the process, a damaged disk and a full one; what was handed out keeps its number for ever."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference import spool as module
from inference.spool import Spool

ROOM = 10**9


def record(name: int | str) -> dict[str, object]:
    return {"id": f"gen-{name}"}


def ids(spool: Spool) -> list[object]:
    """What it hands out until nothing is left, each acknowledged."""
    found: list[object] = []
    while (taken := spool.take(2)) is not None:
        segment, records = taken
        found += [one["id"] for _, one in records]
        spool.acknowledge({segment: records[-1][0]})
    return found


def test_what_is_acknowledged_leaves_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 100)
    spool = Spool(tmp_path, ROOM)
    for index in range(50):
        spool.append(record(index))
    assert len(list(tmp_path.iterdir())) > 5
    assert ids(spool) == [f"gen-{index}" for index in range(50)]
    spool.acknowledge({})
    assert len(list(tmp_path.iterdir())) <= 1
    spool.close()


def test_a_killed_process_leaves_its_records_to_the_next_and_a_living_one_does_not(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from inference.spool import Spool\n"
        f"spool = Spool(Path({str(tmp_path)!r}), 10**9)\n"
        "spool.append({'id': 'gen-dead'}); print('written', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        beside = Spool(tmp_path, ROOM)
        assert beside.take(10) is None
        beside.close()
        process.kill()
    after = Spool(tmp_path, ROOM)
    assert ids(after) == ["gen-dead"]
    after.close()


@pytest.mark.parametrize("at", ["open", "flock"])
def test_what_its_owner_deletes_meanwhile_is_not_handed_out_again_and_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A record that has been fetched would be charged twice."""
    for name in ("0", "1"):
        spool = Spool(tmp_path, ROOM)
        spool.append(record(name))
        spool.close()
        next(path for path in tmp_path.iterdir() if len(path.stem) > 1).rename(tmp_path / f"{name}.records")
    gone = tmp_path / "0.records"
    module_of = {"open": os, "flock": fcntl}[at]
    real = getattr(module_of, at)

    def late(*arguments: object) -> object:
        gone.unlink(missing_ok=True)
        return real(*arguments)

    monkeypatch.setattr(module_of, at, late)
    after = Spool(tmp_path, ROOM)
    assert ids(after) == ["gen-1"]
    after.close()


def test_a_damaged_record_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, ROOM)
    for name in "abc":
        spool.append(record(name))
    spool.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"gen-b", b"gen-x"))
    spool = Spool(tmp_path, ROOM)
    assert ids(spool) == ["gen-a", "gen-c"]
    assert f"record 2 of {path} is damaged" in caplog.text
    spool.close()


def test_a_disk_that_takes_nothing_is_said_and_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append(record("before"))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        for index in range(3):
            spool.append(record(index))
    assert "cannot be written to" in caplog.text
    assert caplog.text.count("kept in memory") == 1
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    spool._try_again_at = 0.0
    spool.append(record("after"))
    assert ids(spool) == ["gen-before", "gen-0", "gen-1", "gen-2", "gen-after"]
    spool.close()


def test_what_nobody_fetches_has_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, 200)
    for index in range(100):
        spool.append(record(index))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 300
    assert "are lost: nobody has fetched those" in caplog.text
    spool.close()


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = Spool(tmp_path / "file" / "usage", ROOM)
    spool.append(record("a"))
    assert "cannot be kept" in caplog.text
    assert ids(spool) == ["gen-a"]
    spool.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "usage", ROOM)
    spool.append(record("a"))
    (path,) = (tmp_path / "usage").iterdir()
    assert ((tmp_path / "usage").stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    spool.close()
