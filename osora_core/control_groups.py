"""The control groups of this process (`docker run --cpus --memory`, a pod's limits, systemd's CPUQuota, MemoryMax)."""

from collections.abc import Iterator
from pathlib import Path

# Where Linux names this process's control groups, and where it shows them.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def control_groups(controller: str) -> Iterator[Path]:
    """The folders of those that a controller ("cpu", "memory") holds this process to, and of the groups around them."""
    if not _OWN_GROUPS.exists():
        return
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controller if controllers else _GROUPS
        own = root / path.lstrip("/")
        # Within a container the path may be the host's: then the groups that are shown begin with the container's own.
        for group in (own, *own.parents):
            if group.is_relative_to(root):
                yield group
