"""What a device has left for training."""

from pathlib import Path

import torch


def available_bytes(device: torch.device) -> float:
    """Bytes that this process can still allocate: on the GPU, or of the machine's and its control group's memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [torch.inf]
    machine, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if machine.exists():
        fields = dict(line.split(":", 1) for line in machine.read_text().splitlines())
        found.append(1024 * int(fields["MemAvailable"].split()[0]))
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        found.append(int(limit) - int((group / "memory.current").read_text()))
    return max(0.0, min(found))
