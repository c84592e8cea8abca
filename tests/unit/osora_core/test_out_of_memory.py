"""Memory that cannot be had is one sentence, wherever it is missing."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from osora_core import out_of_memory
from osora_core.base_check import refusing
from osora_core.basis import BasisCache
from osora_core.errors import MemoryTooSmall
from osora_core.out_of_memory import is_out_of_memory, refusing_to_run_out, require_room
from osora_core.runtime import Runtime
from tests.support.tiny_base import make_base

CPU = torch.device("cpu")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    left: dict[str, float] = {"bytes": 0.0}
    monkeypatch.setattr(out_of_memory, "available_bytes", lambda _: left["bytes"])
    return left


def test_a_base_is_refused_before_it_is_loaded(tmp_path: Path, free: dict[str, float]) -> None:
    base = make_base(tmp_path / "base")
    free["bytes"] = 2**28 + 1.25 * 4 * values_in(base / "model.safetensors")
    require_room("mine", str(base), torch.float32, CPU)
    require_room("mine", str(base), torch.bfloat16, CPU)
    free["bytes"] -= 1
    with pytest.raises(MemoryTooSmall, match=r"the base 'mine' takes 0\.00 GiB of memory as float32, up to 0\.25 GiB"):
        Runtime.load("mine", BasisCache(tmp_path / "cache"), path=str(base), device="cpu")
    require_room("mine", str(base), torch.bfloat16, CPU)
    assert not (tmp_path / "cache").exists()


def values_in(file: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(file).values())


def test_only_the_files_that_would_be_read_count(tmp_path: Path, free: dict[str, float]) -> None:
    """Some repositories hold the same weights twice."""
    base = make_base(tmp_path / "base")
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    (base / "consolidated.safetensors").write_bytes((base / "model-1.safetensors").read_bytes())
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    free["bytes"] = 2**28 + 1.25 * 4 * values_in(base / "model-1.safetensors")
    require_room("mine", str(base), torch.float32, CPU)
    free["bytes"] -= 1
    with pytest.raises(MemoryTooSmall):
        require_room("mine", str(base), torch.float32, CPU)


def test_a_thread_that_cannot_start_is_memorys_fault_where_address_space_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RuntimeError("can't start new thread")
    for left, is_memory in ((2.0**20, True), (torch.inf, False)):
        monkeypatch.setattr("osora_core.out_of_memory.mappable_bytes", lambda left=left: left)
        assert is_out_of_memory(error) is is_memory


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'])
def test_what_is_no_weights_is_said_by_whoever_loads_it(tmp_path: Path, free: dict[str, float], content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    require_room("mine", str(tmp_path), torch.float32, CPU)
    require_room("mine", "owner/name", torch.float32, CPU)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("unable to mmap 538 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    ],
)
def test_an_allocators_error_is_a_sentence_and_not_the_familys_fault(error: Exception) -> None:
    with (
        pytest.raises(MemoryTooSmall) as refused,
        refusing_to_run_out("the base 'mine'"),
        refusing("mine", None, "training"),
    ):
        raise error
    assert refused.value.message == "there is not enough memory for the base 'mine'"
    assert refused.value.next_action == out_of_memory.NEXT


def test_the_allocator_itself_is_understood() -> None:
    with pytest.raises(MemoryTooSmall), refusing_to_run_out("a tensor"):
        torch.empty(2**50)


def test_other_errors_and_refusals_that_say_more_pass() -> None:
    with pytest.raises(KeyError), refusing_to_run_out("a tensor"):
        raise KeyError("a")
    with pytest.raises(MemoryTooSmall, match="more exactly"), refusing_to_run_out("a tensor"):
        raise MemoryTooSmall("more exactly")
