"""The tensors of an adapter's file: read in one copy, and told apart by their names."""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

KEY_PREFIX = "base_model.model."
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# A header of two tensors for each linear of 80 layers takes an eighth of it. Strangers' may be of megabytes.
_KEPT_HEADER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Layout:
    """A safetensors file's dtype, the sizes of its tensors as they lie in it, and which is whose sigma, delta and C."""

    dtype: torch.dtype
    sizes: list[int]
    sigma: dict[str, int]
    delta: dict[str, int]
    mix: dict[str, int]

    @property
    def is_whole(self) -> bool:
        found = self.sigma.keys()
        parts = [self.sigma, self.delta, *([self.mix] if self.mix else [])]
        return (
            bool(found) and all(found == part.keys() for part in parts) and len(parts) * len(found) == len(self.sizes)
        )

    def side(self, name: str) -> int:
        """Of a module's C, which is square."""
        return math.isqrt(self.sizes[self.mix[name]])


def read_tensors(weights: memoryview) -> tuple[Layout, Sequence[Tensor]]:
    """The tensors of a safetensors file, float32, copied as one; its own reader makes hundreds of copies.

    The format: the header's length in 8 bytes, the header in JSON, the tensors one behind the other. Raises ValueError,
    KeyError, TypeError, AttributeError, RuntimeError or struct.error for anything else, and for dtypes that differ.
    """
    (length,) = struct.unpack("<Q", weights[:8])
    header = bytes(weights[8 : 8 + length])
    layout = _layout(header) if length <= _KEPT_HEADER_BYTES else _layout.__wrapped__(header)
    content, expected = np.frombuffer(weights[8 + length :], np.uint8), sum(layout.sizes) * layout.dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes of tensors, where the header says {expected}")
    # Numpy's copy lets other threads run, a bytearray's does not.
    return layout, torch.split(torch.from_numpy(content.copy()).view(layout.dtype).float(), layout.sizes)


# Adapters of one spec have one header: what it takes is taken once, and holds up no other thread again.
@lru_cache(maxsize=64)
def _layout(header: bytes) -> Layout:
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    dtypes = {_DTYPES[entry["dtype"]] for entry in entries.values()}
    if len(dtypes) != 1:
        raise ValueError(f"tensors of {len(dtypes)} types")
    layout = Layout(dtypes.pop(), [], {}, {}, {})
    parts = {".osora_sigma": layout.sigma, ".osora_delta": layout.delta, ".osora_mix": layout.mix}
    end = 0
    for index, name in enumerate(sorted(entries, key=lambda name: entries[name]["data_offsets"])):
        shape = entries[name]["shape"]
        suffix = next((suffix for suffix in parts if name.endswith(suffix)), "")
        if len(shape) != (2 if suffix == ".osora_mix" else 1) or any(side != shape[0] for side in shape):
            raise ValueError(f"{name} is no vector or mix of OSoRA; an adapter with modules_to_save is for PEFT alone")
        size = shape[0] ** len(shape)
        begin, end = end, end + size * layout.dtype.itemsize
        if shape[0] < 1 or entries[name]["data_offsets"] != [begin, end]:
            raise ValueError(f"{name} does not lie where the tensor before it ends")
        layout.sizes.append(size)
        if suffix:
            parts[suffix][name.removeprefix(KEY_PREFIX).removesuffix(suffix)] = index
    return layout
