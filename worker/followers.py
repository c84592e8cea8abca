"""The further devices of a worker: a process for each, started, watched and ended with it."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from osora_common.ranks import Rank
from osora_core.basis import BasisCache
from osora_core.cores import available_cores
from osora_core.errors import UserError
from osora_core.runtime import Runtime
from osora_core.training.distributed import LEADER, Followers, join, shard
from registry.settings import Settings

_COMMAND = (sys.executable, "-P", "-m", "worker.follower")
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """What a process of the worker must know to take its place; a follower's first line of input, as JSON."""

    rank: int
    world_size: int
    rendezvous: str
    device: str
    base: str
    path: str
    basis_rank: Rank | Literal["auto"]
    cache: str
    shard: bool

    def load(self, cache: BasisCache) -> Runtime:
        """The base, on this place's device or, if it is to be sharded, in host memory."""
        device = torch.device(self.device)
        return Runtime.load(
            self.base,
            cache,
            path=self.path,
            device="cpu" if self.shard else self.device,
            rank=self.basis_rank,
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        )

    def join(self, runtime: Runtime, before_forward: Callable[[], None] = lambda: None) -> Runtime:
        """Meet the others; the runtime to train with, sharded if it is to be."""
        device = torch.device(self.device)
        join(self.rendezvous, self.rank, self.world_size, device)
        return shard(runtime, device, before_forward) if self.shard else runtime


class FollowerProcesses:
    """The processes of ranks 1 and up."""

    def __init__(self, places: list[Place]) -> None:
        self._stopping = threading.Event()
        self._processes = [subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, text=True) for _ in places]
        self.followers = Followers([process.stdin for process in self._processes if process.stdin is not None])
        self.followers.tell([asdict(place) for place in places])

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` if one ends before `stop`: a step without it would be wrong, or wait for it in vain."""

        def wait(process: "subprocess.Popen[str]") -> None:
            process.wait()
            if not self._stopping.is_set():
                on_end()

        for process in self._processes:
            threading.Thread(target=wait, args=(process,), name="follower-watch", daemon=True).start()

    def stop(self) -> None:
        """End them: with their input, or by force if they are in the middle of something that lasts."""
        self._stopping.set()
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.close()
                process.wait(_END_SECONDS)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
        dist.destroy_process_group()


def spread(settings: Settings, cache: BasisCache) -> tuple[Runtime, FollowerProcesses]:
    """Load the one base there is for several devices, start a follower for each of the others, and let all meet.

    Raises UserError if there are too few devices.
    """
    count = settings.worker_devices
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if cuda and torch.cuda.device_count() < count:
        raise UserError(
            f"OSORA_WORKER_DEVICES is {count}, and this machine has {torch.cuda.device_count()} GPUs",
            next_action=f"set OSORA_WORKER_DEVICES to at most {torch.cuda.device_count()}",
        )
    if sys.platform == "linux":
        # All are on this host; a host name that resolves to an address elsewhere must not lead them astray.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not cuda:
        # `set_threads` reads it, here and in the followers.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // count)))
    ((base, path),) = settings.base_paths.items()
    with tempfile.TemporaryDirectory() as folder:
        leader, *others = (
            Place(
                rank=rank,
                world_size=count,
                rendezvous=str(Path(folder, "rendezvous")),
                device=f"cuda:{rank}" if cuda else "cpu",
                base=base,
                path=path,
                basis_rank=settings.basis_rank,
                cache=str(cache.directory),
                shard=settings.worker_shard_base,
            )
            for rank in range(LEADER, count)
        )
        # First the leader: the others find in its cache what it fetched or computed.
        runtime = leader.load(cache)
        processes = FollowerProcesses(others)
        return leader.join(runtime, processes.followers.come_along), processes
