"""A process computes on as many threads as it has cores, whatever the machine has."""

import os
from pathlib import Path

import pytest

from osora_core import control_groups
from osora_core.runtime import threads


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 16 cores without control groups."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(control_groups, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_the_cores_of_the_affinity_count() -> None:
    assert threads() == 16


def test_all_cores_count_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert threads() == 64


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "40")
    assert threads() == 40


@pytest.mark.parametrize(("quota", "expected"), [("max", 16), ("350000", 3), ("50000", 1), ("9900000", 16)])
def test_a_quota_bounds_them(groups: Path, quota: str, expected: int) -> None:
    write(groups / "own", "0::/system.slice/osora.service\n")
    write(groups / "groups" / "system.slice" / "osora.service" / "cpu.max", f"{quota} 100000\n")
    assert threads() == expected


def test_the_quota_of_a_group_around_it_counts_too(groups: Path) -> None:
    write(groups / "own", "0::/system.slice/osora.service\n")
    write(groups / "groups" / "system.slice" / "cpu.max", "200000 100000\n")
    write(groups / "groups" / "system.slice" / "osora.service" / "cpu.max", "max 100000\n")
    assert threads() == 2


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("200000", 2)])
def test_so_does_one_of_version_1_within_a_container(groups: Path, quota: str, expected: int) -> None:
    """Where the path is the host's, and the container sees its own group at the top."""
    write(groups / "own", "11:memory:/docker/0a1b\n4:cpu,cpuacct:/docker/0a1b\n")
    write(groups / "groups" / "cpu" / "cpu.cfs_quota_us", f"{quota}\n")
    write(groups / "groups" / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert threads() == expected
