"""Bases of each family that a GGUF file is written of, with an adapter, and what reads such a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
)

from osora_core.adapter import Adapter
from osora_core.basis import Basis, compute_basis
from osora_core.weights import fingerprint_base
from tests.support.tiny_base import make_tokenizer

HEADS, SIZE, WINDOW = 4, 16, 24
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "partial_rotary_factor": 1.0,
}
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "long_factor": [4.0 + n for n in range(6)],
    "short_factor": [1.0 + n / 10 for n in range(6)],
    "original_max_position_embeddings": 256,  # llama.cpp makes room for so many tokens at least
}
_GEMMA_3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


@dataclass(frozen=True)
class Base:
    """A family's configuration; `wide`: its heads together are wider than its hidden states."""

    kind: Callable[..., PretrainedConfig]
    layers: int = 2
    wide: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


BASES = {
    "llama": Base(LlamaConfig, wide=True, extra={"attention_bias": True, "mlp_bias": True}),
    "llama, tied": Base(LlamaConfig, extra={"tie_word_embeddings": True}),
    "llama, llama3": Base(LlamaConfig, extra={"rope_parameters": _LLAMA_3}),
    "llama, linear": Base(
        LlamaConfig, extra={"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}
    ),
    "llama, yarn": Base(LlamaConfig, extra={"rope_parameters": _YARN}),
    "mistral": Base(MistralConfig, wide=True, extra={"sliding_window": WINDOW}),
    "qwen2": Base(Qwen2Config, extra={"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2, yarn": Base(Qwen2Config, extra={"rope_parameters": _YARN}),
    "qwen3": Base(Qwen3Config, wide=True),
    "gemma": Base(GemmaConfig, wide=True),
    "gemma2": Base(Gemma2Config, wide=True, extra={"sliding_window": WINDOW, "query_pre_attn_scalar": SIZE}),
    "gemma3": Base(
        Gemma3TextConfig, layers=6, wide=True,
        extra={"sliding_window": WINDOW, "query_pre_attn_scalar": SIZE, "rope_parameters": _GEMMA_3},
    ),
    "phi3": Base(Phi3Config, extra={"sliding_window": WINDOW}),
    "phi3, longrope": Base(
        Phi3Config,
        extra={
            "rope_parameters": _LONG, "original_max_position_embeddings": 256, "max_position_embeddings": 1024,
        },
    ),
    "gpt2": Base(GPT2Config),
}  # fmt: skip


def make_base(
    folder: Path, name: str, dtype: torch.dtype = torch.float32, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """A small base of a kind in BASES, all of whose parameters are random, with three embeddings more than tokens."""
    tokenizer = tokenizer or make_tokenizer()
    base = BASES[name]
    hidden = HEADS * SIZE // (2 if base.wide else 1)
    names: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 3, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.2,
    }  # fmt: skip
    if base.kind is GPT2Config:
        names |= {"n_embd": hidden, "n_layer": base.layers, "n_head": HEADS, "n_positions": 128}
    else:
        names |= {
            "hidden_size": hidden, "intermediate_size": 96, "num_hidden_layers": base.layers,
            "num_attention_heads": HEADS, "num_key_value_heads": 2, "max_position_embeddings": 128,
        }  # fmt: skip
        names |= {"head_dim": SIZE} if base.wide else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(base.kind(**names | base.extra))
    with torch.no_grad():  # biases and norms that are all zero or one would hide that they are left out
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapt(folder: Path, rank: int = 4) -> tuple[Adapter, Basis]:
    """An adapter of everything in a base, which changes it well beyond rounding."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    basis = compute_basis(model, "all-linear", rank, fingerprint_base(model))
    row = 0.1 * torch.randn(basis.row_length, generator=torch.Generator().manual_seed(4))
    modules = set(basis.target_modules)
    return Adapter.from_row(row, basis, rank=rank, modules=modules, base=str(folder)), basis
