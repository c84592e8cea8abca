"""Memory that cannot be had: said in one sentence, before it is asked for where that can be told, or when it fails."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from osora_common.safetensors_files import INDEX, WHOLE, listed_in, read_header
from osora_core.errors import MemoryTooSmall
from osora_core.free_memory import available_bytes, mappable_bytes

NEXT = "give this process more memory (a container's limit, `ulimit -v`), or choose a smaller base"
# What safetensors calls the dtypes of numbers; other tensors are left as they are.
_NUMBERS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocator's way to say that there is no memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if "can't start new thread" in str(error):
        return mappable_bytes() != torch.inf  # a thread's stack is address space; else threads are what is limited
    return any(words in str(error) for words in ("can't allocate memory", "annot allocate memory", "out of memory"))


@contextmanager
def refusing_to_run_out(what: str, next_action: str = NEXT) -> Iterator[None]:
    """Memory that cannot be had inside is raised as MemoryTooSmall: there is not enough for `what`."""
    try:
        yield
    except MemoryTooSmall:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryTooSmall(f"there is not enough memory for {what}", next_action=next_action) from error


def require_room(name: str, source: str, dtype: torch.dtype, device: torch.device) -> None:
    """Raises MemoryTooSmall where the weights of base `name` in the directory `source` take more than is free.

    A kernel that has no memory left kills the process without a word, so this is asked before they are loaded. What is
    no directory, but a name on a hub, is not asked.
    """
    try:
        values = sum(_bytes_of(file, dtype) for file in _weights(Path(source)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
        return  # these are no weights: who loads them says so
    free = available_bytes(device)
    # A GPU's allocator says when it has no more: there it is enough that a load is not in vain.
    needed = _loading(values) if device.type == "cpu" else values
    if values and needed > free:
        raise MemoryTooSmall(
            f"the base {name!r} takes {_gib(values)} of memory as {str(dtype).removeprefix('torch.')}, up to "
            f"{_gib(needed)} while it is loaded, and {_gib(free)} are free",
            param="model",
            next_action=NEXT,
        )


def _loading(weights: int) -> float:
    """Bytes that a base takes until it has been loaded, hashed and checked, and its basis is there."""
    return 1.25 * weights + 2**28  # measured: 0.7 GiB for weights of 0.5


def _weights(folder: Path) -> list[Path]:
    """The files that transformers would read."""
    whole, index = folder / WHOLE, folder / INDEX
    if whole.exists() or not index.exists():
        return [whole] if whole.exists() else []
    return [folder / name for name in listed_in(index)]


def _bytes_of(file: Path, dtype: torch.dtype) -> int:
    """Bytes of a file's tensors once they are loaded, from its header."""
    tensors = read_header(file)[1].values()
    sizes = [(tensor["dtype"], tensor["data_offsets"][1] - tensor["data_offsets"][0]) for tensor in tensors]
    return sum(size * dtype.itemsize // _NUMBERS[kind] if kind in _NUMBERS else size for kind, size in sizes)


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
