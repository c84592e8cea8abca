"""The service under attack: its address, the keys of both tenants, and the memory of its processes."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.service import serving

ROLES = ("api", "inference", "worker")
MIB = 2**20
_LOOK_SECONDS = 0.2
_SETTLED = 1.1


@dataclass(frozen=True)
class Place:
    """Where it is. Without a `pid`, that of `osora serve`, nobody looks at memory."""

    url: str
    healthy_key: str
    attacker_key: str
    pid: int | None
    temporary: Path | None
    """Where the service keeps its temporary files, if it is our own."""


@contextmanager
def own_place(folder: Path, **environment: str) -> Iterator[Place]:
    """A service of our own with two tenants that are strangers to each other and to whoever runs it."""
    temporary = folder / "tmp"
    temporary.mkdir()
    with serving(folder / "data", TMPDIR=str(temporary), **environment) as service:
        keys = [stranger(service.url, service.key, tenant) for tenant in ("healthy", "attacker")]
        yield Place(service.url, *keys, service.pid, temporary)


def stranger(url: str, operator_key: str, tenant: str) -> str:
    """A new key of a tenant, made if need be, with the scopes that any new key has."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {operator_key}"}, timeout=60) as client:
        client.post("/tenants", json={"name": tenant})  # it may be there
        answer = client.post("/keys", json={"name": "abuse", "tenant": tenant})
        return str(answer.raise_for_status().json()["key"])


class Memory:
    """Resident memory of the service's processes in MiB, by what they are; what they started counts as theirs.

    Peaks are of looks five times a second.
    """

    def __init__(self, pid: int | None) -> None:
        self._serve = None if pid is None else psutil.Process(pid)
        self._peaks: dict[str, float] = defaultdict(float)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def now(self) -> dict[str, float]:
        """As it stands."""
        found: dict[str, float] = defaultdict(float)
        for role, processes in self._processes().items():
            found[role] = sum(map(_resident, processes))
        return dict(found)

    def descriptors(self) -> int:
        """Open files and connections of all of them: a temporary file without a name has one, too."""
        return sum(process.num_fds() for processes in self._processes().values() for process in processes)

    def peaks(self) -> dict[str, float]:
        """The largest since the last call."""
        peaks, self._peaks = self._peaks, defaultdict(float)
        return dict(peaks)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            for role, resident in self.now().items():
                self._peaks[role] = max(self._peaks[role], resident)

    def _processes(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {}
        for child in self._serve.children() if self._serve is not None else ():
            try:
                role = next((role for role in ROLES if role in child.cmdline()), None)
                if role is not None:
                    found.setdefault(role, []).extend([child, *child.children(recursive=True)])
            except psutil.Error:  # it ended between two looks
                continue
        return found


def settled(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether every process is back within a tenth of what it had."""
    return all(now.get(role, 0.0) <= _SETTLED * had for role, had in before.items())


def _resident(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / MIB
    except psutil.Error:
        return 0.0
