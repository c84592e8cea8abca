"""One server for a data directory, and others who look whether there is one."""

import fcntl
from pathlib import Path
from types import SimpleNamespace

import pytest

from osora.serve import run


def test_who_looks_just_now_is_not_taken_for_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / run.LOCK).open("ab") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_served` does for a moment
        moment = SimpleNamespace(sleep=lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        monkeypatch.setattr(run, "time", moment)
        with run._only_one(tmp_path, lambda _: None):
            assert run.is_served(tmp_path)
            with pytest.raises(run.AlreadyServedError), run._only_one(tmp_path, lambda _: None):
                pass
    assert not run.is_served(tmp_path)
