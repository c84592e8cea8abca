"""Zeros on a CPU that take memory only where something has been written, page by page."""

import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import prod

import torch

_LINUX = sys.platform == "linux"
# Without a claim on the machine's memory, which the kernel would refuse where all of it could not be had at once.
_UNCLAIMED = getattr(mmap, "MAP_NORESERVE", 0x4000) if _LINUX else 0


class LazyZeros:
    """`tensor` of `shape` and `dtype`. Raises OSError where the process may not have so much address space."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        size = prod(shape) * dtype.itemsize
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _UNCLAIMED)
        if _LINUX:
            # A huge page would be taken as a whole, for a few tokens that are written to it. Kernels that are built
            # without them refuse the advice.
            with suppress(OSError):
                self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.tensor = torch.frombuffer(self._memory, dtype=torch.uint8).view(dtype).view(tuple(shape))

    def clear(self, first: int, size: int) -> None:
        """Make bytes [first, first + size) zero again and free their memory; they begin and end with a page."""
        if _LINUX:
            self._memory.madvise(mmap.MADV_DONTNEED, first, size)
        else:  # the advice promises no zeros
            self.tensor.view(-1).view(torch.uint8)[first : first + size] = 0


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> torch.Tensor:
    """As torch's; on a CPU lazy ones."""
    if device.type == "cpu":
        return LazyZeros(shape, dtype).tensor
    return torch.zeros(shape, dtype=dtype, device=device)
