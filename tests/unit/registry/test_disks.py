"""Which disks have to have room."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from registry import disks
from registry.settings import Settings

Usage = namedtuple("Usage", "total used free")


def test_only_disks_that_the_service_writes_to_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full: list[Path] = []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(1, 1, 0 if any(Path(path).is_relative_to(f) for f in full) else 2**40)
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "tmp").mkdir(parents=True)
    settings = Settings(data_dir=tmp_path / "data")
    full.append(tmp_path / "elsewhere")  # the system's temporary folder, which others fill
    assert disks.shortage(settings) is None
    full.append(tmp_path / "data" / "tmp")
    assert (disks.shortage(settings) or "").startswith("temporary files: 0 MiB free")
