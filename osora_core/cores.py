"""How many processor cores this process may use, where it is held to fewer than the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path

from osora_core.control_groups import control_groups


def available_cores() -> int:
    """The cores of this process's affinity (`taskset`, a container's cpuset), within the quota of its control groups,
    rounded down, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (quota for group in control_groups("cpu") for quota in _quota(group))
    return max(1, int(min([cores, *quotas])))


def _quota(group: Path) -> Iterator[float]:
    """The quota, in cores, that one group sets itself, in the files of version 2 or 1; nothing if it sets none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except FileNotFoundError:
        return
    if quota not in ("max", "-1"):
        yield int(quota) / int(period)
