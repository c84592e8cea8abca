"""Zeros that take no memory before they are written."""

import errno
import mmap
import os
import sys
from pathlib import Path

import pytest
import torch

from osora_core import lazy_zeros
from osora_core.lazy_zeros import LazyZeros, zeros


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_memory_is_taken_where_something_is_written_and_given_back() -> None:
    size = 2**30
    before = resident()
    made = LazyZeros((64, size // 64), torch.uint8)
    assert not made.tensor[3, :1000].any()
    assert resident() - before < 2**26
    made.tensor[10:42] = 1
    assert resident() - before > size // 4
    made.clear(10 * size // 64, 32 * size // 64)
    assert resident() - before < 2**26
    assert not made.tensor[9:43].any()


@pytest.mark.parametrize("linux", [True, False])
def test_what_is_cleared_is_zero_and_nothing_beside_it(monkeypatch: pytest.MonkeyPatch, linux: bool) -> None:
    made = LazyZeros((4, mmap.PAGESIZE // 2), torch.bfloat16)
    made.tensor.fill_(1)
    monkeypatch.setattr(lazy_zeros, "_LINUX", linux)
    made.clear(mmap.PAGESIZE, 2 * mmap.PAGESIZE)
    assert made.tensor.any(dim=1).tolist() == [True, False, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="others are not advised")
def test_a_kernel_without_huge_pages_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mapped(mmap.mmap):
        def madvise(self, option: int, *where: int) -> None:
            if option == mmap.MADV_NOHUGEPAGE:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as Linux says it
            super().madvise(option, *where)

    monkeypatch.setattr(mmap, "mmap", Mapped)
    made = LazyZeros((2, mmap.PAGESIZE), torch.uint8)
    made.tensor[:] = 1
    made.clear(0, mmap.PAGESIZE)
    assert made.tensor.any(dim=1).tolist() == [False, True]


def test_a_tensor_outlives_whoever_made_it() -> None:
    found = zeros(3, 5, device=torch.device("cpu"))
    assert found.dtype == torch.float32
    found += 2
    assert found.sum() == 30
