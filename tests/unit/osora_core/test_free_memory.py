"""What a process can still have: the least of what the machine, its control groups and its own limits leave."""

import resource
from pathlib import Path

import pytest
import torch

from osora_core import control_groups, free_memory
from osora_core.free_memory import available_bytes, mappable_bytes

CPU = torch.device("cpu")
PAGE = resource.getpagesize()


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 8 MiB that are free, without limits, on which this process has mapped 100 pages, 40 of data."""
    monkeypatch.setattr(free_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(control_groups, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write(tmp_path / "proc" / "meminfo", "MemAvailable: 8192 kB\nCommitLimit: 5000 kB\nCommitted_AS: 2000 kB\n")
    write(tmp_path / "proc" / "self" / "statm", "100 50 10 1 0 40 0\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limited(group: Path, *, limit: str, used: int, idle: int) -> None:
    write(group / "memory.max", f"{limit}\n")
    write(group / "memory.current", f"{used}\n")
    write(group / "memory.stat", f"anon 5\ninactive_file {idle}\nactive_file 7\n")


def test_without_limits_it_is_what_the_machine_has() -> None:
    assert available_bytes(CPU) == 8 * 2**20
    assert mappable_bytes() == torch.inf


@pytest.mark.parametrize(("limit", "left"), [("3000000", 2_100_000), ("max", 8 * 2**20), ("1000", 0)])
def test_a_control_group_bounds_it_and_idle_pages_of_files_count_as_free(machine: Path, limit: str, left: int) -> None:
    write(machine / "own", "0::/osora.slice/osora.service\n")
    limited(machine / "groups" / "osora.slice" / "osora.service", limit=limit, used=1_000_000, idle=100_000)
    assert available_bytes(CPU) == left


def test_so_does_the_group_around_it(machine: Path) -> None:
    write(machine / "own", "0::/osora.slice/osora.service\n")
    limited(machine / "groups" / "osora.slice" / "osora.service", limit="max", used=10, idle=0)
    limited(machine / "groups" / "osora.slice", limit="5000", used=1000, idle=0)
    assert available_bytes(CPU) == 4000


def test_so_does_one_of_version_1(machine: Path) -> None:
    write(machine / "own", "4:memory:/docker/0a1b\n")
    group = machine / "groups" / "memory"
    write(group / "memory.limit_in_bytes", "4000000\n")
    write(group / "memory.usage_in_bytes", "1000000\n")
    write(group / "memory.stat", "inactive_file 1\ntotal_inactive_file 500\n")
    assert available_bytes(CPU) == 3_000_500


@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_AS", 100), ("RLIMIT_DATA", 40)])
def test_a_limit_on_address_space_bounds_it(monkeypatch: pytest.MonkeyPatch, limit: str, used: int) -> None:
    limits = {getattr(resource, limit): (1_000_000, resource.RLIM_INFINITY)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, unlimited))
    assert available_bytes(CPU) == mappable_bytes() == 1_000_000 - used * PAGE


def test_what_is_mapped_counts_where_the_kernel_promises_no_more_than_it_has(machine: Path) -> None:
    write(machine / "proc" / "sys" / "vm" / "overcommit_memory", "2\n")
    assert mappable_bytes() == 3000 * 1024
