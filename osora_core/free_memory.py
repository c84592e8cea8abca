"""How much memory this process can still have: of a GPU, of the machine, and within the limits that it is held to."""

import mmap
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from osora_core.control_groups import control_groups

_PROC = Path("/proc")
# Of /proc/self/statm, in pages: all that is mapped, and what of it RLIMIT_DATA counts.
_MAPPED, _DATA = 0, 5
_STRICT = "2"


def available_bytes(device: torch.device) -> float:
    """Bytes that this process can still use: of the GPU, or of the machine's and its control groups' memory and of the
    address space that it may have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [mappable_bytes(), *(left for group in control_groups("memory") for left in _left_in(group))]
    if (machine := _machine()) is not None:
        found.append(machine["MemAvailable"])
    return max(0.0, min(found))


def mappable_bytes() -> float:
    """Bytes of address space that this process can still have (`ulimit -v`, `ulimit -d`, strict overcommit), which
    memory counts against before it is used; infinite where nothing limits it."""
    found = [torch.inf]
    statm = _PROC / "self" / "statm"
    if statm.exists():
        pages = [int(field) for field in statm.read_text().split()]
        for limit, used in ((resource.RLIMIT_AS, pages[_MAPPED]), (resource.RLIMIT_DATA, pages[_DATA])):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                found.append(soft - used * mmap.PAGESIZE)
    policy = _PROC / "sys" / "vm" / "overcommit_memory"
    if policy.exists() and policy.read_text().strip() == _STRICT and (machine := _machine()) is not None:
        found.append(machine["CommitLimit"] - machine["Committed_AS"])
    return max(0.0, min(found))


def _machine() -> dict[str, int] | None:
    """What Linux says of the machine's memory, in bytes."""
    info = _PROC / "meminfo"
    if not info.exists():
        return None
    fields = (line.split(":", 1) for line in info.read_text().splitlines())
    return {name: 1024 * int(value.split()[0]) for name, value in fields}


def _left_in(group: Path) -> Iterator[int]:
    """What one control group's limit leaves, in the files of version 2 or 1; nothing if it has none.

    Pages of files that nobody has used lately do not count: they go when memory is needed.
    """
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if not (group / limit).exists() or (bound := (group / limit).read_text().strip()) == "max":
            continue
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        yield int(bound) - int((group / used).read_text()) + int(fields[idle])
