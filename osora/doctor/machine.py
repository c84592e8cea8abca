"""The machine: its directory, ports, memory and GPU, and the broker that comes along."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from osora.doctor.finding import Finding
from osora.serve.broker import NoRedisError, find_binary
from osora.serve.ports import Ports, PortTakenError
from osora.serve.run import DEFAULT_INFERENCE_PORT, DEFAULT_PORT, is_served

_GIB = 2**30
_LEAST_DISK = _GIB
_TORCH_SECONDS = 60
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_ASK_TORCH = """
import torch
if torch.cuda.is_available():
    name, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    print(f"{torch.cuda.device_count()} x {name}, {total / 2**30:.0f} GiB each")
"""


def check_data_dir(data_dir: Path) -> Finding:
    """Whether the data directory can be written, or made, and its disk has room."""
    name = "data directory"
    there = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, f"{data_dir} cannot be used: {there} cannot be written", "set OSORA_DATA_DIR to another")
    free = shutil.disk_usage(there).free
    said = f"{data_dir}, {free / _GIB:.1f} GiB free" + ("" if there == data_dir else ", made at the first start")
    return Finding(
        name, said, None if free > _LEAST_DISK else "make room on its disk, or set OSORA_DATA_DIR to another"
    )


def check_broker() -> Finding:
    """Whether `osora serve` has a broker to start."""
    try:
        return Finding("broker", f"{find_binary()} is started by `osora serve`")
    except NoRedisError:
        return Finding(
            "broker",
            "no redis-server or valkey-server was found",
            "install one (apt install redis-server; brew install redis), or set OSORA_BROKER_URL",
        )


def check_ports(data_dir: Path, env: Mapping[str, str]) -> Finding:
    """Whether `osora serve` gets the ports that it asks for."""
    if is_served(data_dir):
        return Finding("ports", "an `osora serve` runs on this data directory and has its ports")
    ports, host, asked = Ports(), env.get("OSORA_HOST") or "127.0.0.1", env.get("OSORA_PORT")
    try:
        api = ports.take(host, int(asked)) if asked else ports.take_near(host, DEFAULT_PORT)
        asked = env.get("OSORA_INFERENCE_PORT")
        inference = (
            ports.take("127.0.0.1", int(asked)) if asked else ports.take_near("127.0.0.1", DEFAULT_INFERENCE_PORT)
        )
    except PortTakenError as error:
        return Finding(
            "ports",
            f"port {error} is taken",
            "set OSORA_PORT and OSORA_INFERENCE_PORT to free ones, or leave them out",
        )
    except ValueError as error:
        return Finding("ports", f"a port is no number: {error}", "correct OSORA_PORT and OSORA_INFERENCE_PORT")
    finally:
        ports.close()
    return Finding("ports", f"{api} for the API and {inference} for the inference server are free")


def check_device(env: Mapping[str, str]) -> Finding:
    """Which device bases are loaded on: a GPU that is there and that torch cannot use is a fault."""
    asked = env.get("OSORA_DEVICE") or "auto"
    try:
        told = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, env=dict(env)
        )
    except subprocess.TimeoutExpired:
        return Finding("device", f"torch was not imported within {_TORCH_SECONDS} s", "try again on an idle machine")
    if told.returncode != 0:
        reason = (told.stderr.strip().splitlines() or ["no reason was given"])[-1]
        return Finding("device", f"torch cannot be imported: {reason}", "install it again: pip install torch")
    found = told.stdout.strip()
    if asked == "cpu" or not found:
        if asked == "cuda":
            return Finding("device", "OSORA_DEVICE is 'cuda', and torch finds no GPU here", "set it to `auto` or `cpu`")
        hidden = env.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        if asked == "auto" and not hidden and Path("/dev/nvidia0").exists():
            return Finding("device", "there is a GPU, and this torch cannot use it", "install a torch for its driver")
        return Finding("device", f"the CPU, with {len(os.sched_getaffinity(0))} cores")
    return Finding("device", found)


def check_memory(values: int, device_is_cpu: bool) -> Finding:
    """Whether bases of so many values fit: worker and inference server hold them both."""
    free = _available_bytes()
    limit = _limit_bytes()
    said = f"{free / _GIB:.1f} GiB free"
    if limit is not None:
        said += f", of which `ulimit` lets each program have {limit / _GIB:.1f} GiB"
    if not device_is_cpu or not values:
        return Finding("memory", said)
    needed = 2 * 4 * values
    said += f"; the bases alone take {needed / _GIB:.1f} GiB, in worker and inference server together"
    if limit is not None and needed / 2 >= limit:
        return Finding("memory", said, "raise `ulimit -v` or `ulimit -d`, or use a smaller base")
    return Finding("memory", said, None if needed < free else "use a smaller base, a larger machine or a GPU")


def _limit_bytes() -> int | None:
    """What one program may map at most, if it is limited: worker and inference server are held to it each."""
    soft = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min((limit for limit in soft if limit != resource.RLIM_INFINITY), default=None)


def _available_bytes() -> int:
    """What can still be had: the machine's, or less where a container has a limit."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    else:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = _CONTROL_GROUP / "memory.max"
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        # Pages of files that nobody has used lately go when memory is needed.
        fields = dict(line.split() for line in (_CONTROL_GROUP / "memory.stat").read_text().splitlines())
        used = int((_CONTROL_GROUP / "memory.current").read_text()) - int(fields["inactive_file"])
        found.append(int(text) - used)
    return min(found)
