"""What a GGUF file says of a base, as transformers' configuration.

A setting that is not known here may change what the base computes, so whatever is not known is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from osora_core.errors import UnsupportedBase, UserError
from osora_core.export.gguf_family import FAMILIES, Family

# What each of llama.cpp's architectures is called by transformers, of those that can be told without doubt.
_KINDS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma"}
_ACTIVATIONS = {"gemma": {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}}
_EPSILON = "attention.layer_norm_rms_epsilon"
_NEEDED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    _EPSILON: "rms_norm_eps",
}
# Of the architecture; anything else would change what is computed.
_KNOWN = {
    *_NEEDED, "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.freq_base",
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.finetuned", "vocab_size",
    "tensor_data_layout", "rope.scale_linear",
}  # fmt: skip
ROTARY_FACTORS = "rope_freqs.weight"
_OTHERWISE = "take the base as safetensors: a directory, or owner/name on a model hub"


class _Reader(gguf.GGUFReader):
    """Believes no count or length of a file that the file has no room for: the library itself takes what is beyond the
    end for values of no bytes, and would read on for ever."""

    def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        values = super()._get(offset, dtype, count, override_order)
        if len(values) < count:
            raise ValueError("it is cut short or damaged, as it says that it has more than its bytes")
        return values


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file: `says` what its head says, and its tensors by name, which are mapped and not read."""

    path: Path
    says: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, gguf.ReaderTensor] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> "GgufFile":
        """Takes seconds for a large vocabulary. Raises UserError for a file that is none, or is cut short."""
        try:
            reader = _Reader(path)
            says = {name: part.contents() for name, part in reader.fields.items()}
            tensors = {tensor.name: tensor for tensor in reader.tensors}
        except Exception as error:  # of numpy, struct or the library itself, whichever stumbles
            raise UserError(
                f"{path.name} cannot be read as a GGUF file: {' '.join(str(error).split())[:200]}",
                param="source",
                next_action="copy or download the file again",
            ) from error
        if says.get("split.count", 0) > 1:
            raise UserError(
                f"{path.name} is one of {says['split.count']} parts",
                param="source",
                next_action="join them with llama.cpp's llama-gguf-split --merge, and name the whole file",
            )
        return cls(path, says, tensors)

    @property
    def architecture(self) -> str:
        return str(self.says.get("general.architecture", ""))

    @property
    def kind(self) -> str:
        """transformers' name of its family. Raises UnsupportedBase."""
        if self.architecture not in _KINDS:
            raise unsupported(
                f"GGUF files of the architecture {self.architecture!r} are not read, only of {', '.join(_KINDS)}"
            )
        return _KINDS[self.architecture]

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind]

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Raises UnsupportedBase for what is missing or not known."""
        return _config(self)


def unsupported(problem: str) -> UnsupportedBase:
    """That a file cannot be read as a base, and what else to do."""
    return UnsupportedBase(problem, param="source", next_action=_OTHERWISE)


def _config(file: GgufFile) -> PreTrainedConfig:
    kind, prefix = file.kind, f"{file.architecture}."
    said = {name.removeprefix(prefix): value for name, value in file.says.items() if name.startswith(prefix)}
    if missing := sorted(_NEEDED.keys() - said.keys()):
        raise unsupported(f"{file.path.name} does not say its {prefix}{missing[0]}")
    if unknown := sorted(said.keys() - _KNOWN):
        raise unsupported(f"{file.path.name} has the setting {prefix}{unknown[0]}, which is not known here")
    _check_numbers(file, said)
    settings = {ours: said[theirs] for theirs, ours in _NEEDED.items()}
    heads = settings["num_attention_heads"]
    size = said.get("attention.key_length", settings["hidden_size"] // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if said.get(name, size) != size:
            raise unsupported(f"{file.path.name} has a {prefix}{name} of {said[name]} beside heads of {size}")
    embedded = file.tensors.get("token_embd.weight")
    if embedded is None:
        raise unsupported(f"{file.path.name} has no tensor token_embd.weight")
    ids = {name: file.says.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    padding = file.says.get("tokenizer.ggml.padding_token_id")
    settings |= {
        "num_key_value_heads": said.get("attention.head_count_kv", heads),
        "head_dim": size,
        "vocab_size": int(embedded.shape[-1]),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": padding,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "rope_parameters": _rotary(file, said, size),
        "dtype": "float32",
        **_ACTIVATIONS.get(kind, {}),
    }
    if kind != "llama":
        settings.pop("mlp_bias")
    if kind in ("qwen2", "gemma"):
        settings.pop("attention_bias")
    if kind == "qwen2" and size * heads != settings["hidden_size"]:
        raise unsupported(f"{file.path.name} has heads of {size}, and a qwen2 has no such")
    return AutoConfig.for_model(kind, **settings)


def _check_numbers(file: GgufFile, said: Mapping[str, Any]) -> None:
    """Raises UnsupportedBase for a size that no model has: what is made of it would be of that size."""
    sizes = [*(_NEEDED.keys() - {_EPSILON}), "attention.head_count_kv", "attention.key_length"]
    for name in sorted(said.keys() & set(sizes)):
        if isinstance(said[name], list):
            raise unsupported(f"{file.path.name} has another {file.architecture}.{name} in each layer")
        if not isinstance(said[name], int) or said[name] < 1:
            raise unsupported(f"{file.path.name} has a {file.architecture}.{name} of {said[name]!r}")
    if said["block_count"] > len(file.tensors):
        raise unsupported(f"{file.path.name} has {said['block_count']} layers, and only {len(file.tensors)} tensors")


def _rotary(file: GgufFile, said: Mapping[str, Any], size: int) -> dict[str, Any]:
    theta = float(said.get("rope.freq_base", 10_000.0))
    plain: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    factors = file.tensors.get(ROTARY_FACTORS)
    scaling = said.get("rope.scaling.type", "none")
    if factors is not None:
        if scaling != "none":
            raise unsupported(f"{file.path.name} scales its rotary embeddings in two ways")
        return _llama_3(file, plain, torch.tensor(factors.data.copy()).float().reshape(-1), size, said)
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "none": lambda: plain,
        "linear": lambda: {**plain, "rope_type": "linear", "factor": float(said["rope.scaling.factor"])},
        "yarn": lambda: {
            **plain,
            "rope_type": "yarn",
            "factor": float(said["rope.scaling.factor"]),
            "original_max_position_embeddings": int(said["rope.scaling.original_context_length"]),
            "beta_fast": float(said.get("rope.scaling.yarn_beta_fast", 32.0)),
            "beta_slow": float(said.get("rope.scaling.yarn_beta_slow", 1.0)),
        },
    }
    if scaling not in readers:
        raise unsupported(f"{file.path.name} scales its rotary embeddings by {scaling!r}, only none, linear and yarn")
    try:
        return readers[scaling]()
    except KeyError as error:
        raise unsupported(f"{file.path.name} does not say its {file.architecture}.{error.args[0]}") from error


def _llama_3(
    file: GgufFile, plain: Mapping[str, Any], factors: torch.Tensor, size: int, said: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that give these factors [size / 2]: the file holds what came of them, and not them."""
    for power in range(5, 18):
        rope = {
            **plain, "rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 2**power,
        }  # fmt: skip
        config = AutoConfig.for_model(
            "llama", rope_parameters=rope, head_dim=size, max_position_embeddings=said["context_length"]
        )
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        unscaled = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
        if torch.allclose(unscaled / scaled, factors, rtol=1e-4):
            return rope
    raise unsupported(f"{file.path.name} divides its rotary frequencies by factors that are not Llama 3's")
