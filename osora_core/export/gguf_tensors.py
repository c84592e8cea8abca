"""A model's tensors under llama.cpp's names, in its layout, one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from osora_core.errors import UserError
from osora_core.export.gguf_family import Family, head_size, refusal, rotary

_TYPES = {
    torch.float32: gguf.GGMLQuantizationType.F32,
    torch.float16: gguf.GGMLQuantizationType.F16,
    torch.bfloat16: gguf.GGMLQuantizationType.BF16,
}
FILE_TYPES = {
    torch.float32: gguf.LlamaFileType.ALL_F32,
    torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
}


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in the file; `values` makes it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Callable[[], Tensor]

    @property
    def type(self) -> gguf.GGMLQuantizationType:
        return _TYPES[self.dtype]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape))

    def array(self) -> "np.ndarray[Any, Any]":
        """The values. Raises UserError if one is not a finite number."""
        values = self.values().contiguous()
        if not torch.isfinite(values).all():
            raise UserError(
                f"{self.name} has values that are no finite numbers in {self.dtype}".replace("torch.", ""),
                next_action="take another dtype, or an adapter whose training did not diverge",
            )
        return values.view(torch.uint16).numpy() if self.dtype == torch.bfloat16 else values.numpy()


def tensors_of(model: PreTrainedModel, family: Family) -> Iterator[Stored]:
    """All tensors of a model, in its own order, in its dtype; what llama.cpp adds to others is float32.

    Raises UnsupportedBase for one that llama.cpp has no place for.
    """
    config: Any = model.config
    architecture = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[family.architecture]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        linear = name.split(".")[-2]
        if stored is None or (name.endswith(".bias") and linear not in family.biases and not linear.startswith("ln_")):
            raise refusal(f"llama.cpp has no place for {name} in a {config.model_type}")
        yield _stored(stored, model, name, parameter.data, family)
    yield from _rotary_factors(config)


def _stored(stored: str, model: PreTrainedModel, name: str, data: Tensor, family: Family) -> Stored:
    module = model.get_submodule(name.rpartition(".")[0])
    small = data.dim() == 1 or stored == "position_embd.weight"

    def values() -> Tensor:
        value = data.float() if small else data
        if isinstance(module, Conv1D) and data.dim() == 2:
            value = value.T
        if family.shifted_norms and name.endswith("norm.weight"):
            value = value + 1
        if family.permuted and ".q_proj." in name:
            value = paired(value, model.config.num_attention_heads)
        if family.permuted and ".k_proj." in name:
            value = paired(value, model.config.num_key_value_heads)
        return value

    shape = tuple(data.shape[::-1] if isinstance(module, Conv1D) else data.shape)
    return Stored(stored, shape, torch.float32 if small else data.dtype, values)


def paired(rows: Tensor, heads: int) -> Tensor:
    """Rows [heads * size, ...] of q or k in the order of llama.cpp's rotation.

    transformers rotates row i of a head with row i + size/2, llama.cpp row 2i with row 2i + 1.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def unpaired(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `paired`."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _rotary_factors(config: Any) -> Iterator[Stored]:
    """What frequencies are divided by, where that is another number for each."""
    rope = rotary(config)
    match rope.get("rope_type"):
        case "llama3":
            scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
            size = head_size(config)
            plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
            yield _factors("rope_freqs.weight", plain / scaled)
        case "longrope":
            yield _factors("rope_factors_long.weight", torch.tensor(rope["long_factor"]))
            yield _factors("rope_factors_short.weight", torch.tensor(rope["short_factor"]))


def _factors(name: str, values: Tensor) -> Stored:
    return Stored(name, tuple(values.shape), torch.float32, lambda: values.float())
