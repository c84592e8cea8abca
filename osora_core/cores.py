"""How many processor cores this process may use, where it is held to fewer than the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path

# Where Linux names this process's control groups, and where it shows them.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """The cores of this process's affinity (`taskset`, a container's cpuset), within its quota, at least 1.

    The quota is that of its control groups (`docker run --cpus`, a pod's CPU limit, systemd's CPUQuota), rounded down.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quotas, in cores, of this process's control groups and of the groups around them."""
    if not _OWN_GROUPS.exists():
        return
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _GROUPS / "cpu" if controllers else _GROUPS
        own = root / path.lstrip("/")
        # Within a container the path may be the host's: then the groups that are shown begin with the container's own.
        for group in (own, *own.parents):
            if group.is_relative_to(root):
                yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    """The quota that one group sets itself, in the files of version 2 or 1; nothing if it sets none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except FileNotFoundError:
        return
    if quota not in ("max", "-1"):
        yield int(quota) / int(period)
