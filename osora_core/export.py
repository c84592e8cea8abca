"""Adapters for the world outside: as a LoRA that needs nothing of ours, and merged into a plain checkpoint.

Both take the stored artifact and its basis (`BasisCache.find` gives it without the base).
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from osora_core import base_models
from osora_core.adapter import CONFIG_NAME, KEY_PREFIX, WEIGHTS_NAME, Adapter
from osora_core.basis import Basis, Factors
from osora_core.checkpoint import own_values
from osora_core.errors import UserError
from osora_core.identity import mismatch
from osora_core.lora import Lora
from osora_core.operator import lora_factor, merged_weight
from osora_core.weights import dense_weight, fingerprint_base

# What vLLM takes as max_lora_rank.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def to_lora(adapter: Adapter, basis: Basis, *, rank: int | None = None, base: str | None = None) -> dict[str, bytes]:
    """The adapter as the files of a PEFT LoRA directory, which computes the same.

    dW = (diag(o) U diag(s) - U diag(s0)) V^T has rank r already, so A = V^T [r, d_in] (in the basis's dtype) and
    B [d_out, r] (float32) are read off; lora_alpha is the rank, so nothing is scaled. Both are padded with zeros to
    `rank`, by default the next one that vLLM allows. `base` is what the files call their base, by default the name
    that it had in training.

    Raises IdentityMismatch if the basis is not the adapter's, UserError for a rank that is too small or that vLLM
    would refuse.
    """
    adapter.check(basis)
    rank = _padded(adapter.rank, rank)
    tensors: dict[str, Tensor] = {}
    for name, sigma in adapter.sigma.items():
        factors = basis.factors[name]
        A = torch.zeros(rank, factors.Vt.shape[1], dtype=factors.Vt.dtype)
        A[: len(sigma)] = factors.Vt[: len(sigma)]
        B = torch.zeros(factors.U.shape[0], rank)
        exact = (t.cpu().double() for t in (factors.U, factors.S, sigma, adapter.delta[name]))
        B[:, : len(sigma)] = lora_factor(*exact).float()
        tensors[f"{KEY_PREFIX}{name}.lora_A.weight"] = A
        tensors[f"{KEY_PREFIX}{name}.lora_B.weight"] = B
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or adapter.base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "target_modules": _targets(adapter, basis),
    }
    origin = {"osora_base_fingerprint": adapter.base_fingerprint, "osora_basis_fingerprint": adapter.basis_fingerprint}
    return {
        CONFIG_NAME: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_NAME: save(tensors, metadata={"format": "pt", **origin}),
    }


def merge(
    adapter: Adapter | Lora, basis: Basis, directory: Path, *, base: str | None = None, dtype: str = "auto"
) -> None:
    """Write the base with the adapter folded in as a plain checkpoint with its tokenizer: safetensors, no code.

    `base` is a path or name of the base, by default the name that it had in training. `dtype` is that of the written
    checkpoint, by default the base's own. Each weight is summed in float64 and rounded once. Raises
    IdentityMismatch if base or basis are not the adapter's; a LoRA's base is the basis's.
    """
    adapter.check(basis)
    named = adapter.config.base if isinstance(adapter, Lora) else adapter.base
    source = base_models.resolve(base or named)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    own = own_values(model)
    found = fingerprint_base(own)
    if found != basis.base_fingerprint:
        raise mismatch("base", basis.base_fingerprint, found, "name the path of the adapter's own base with `base`")
    for name in adapter.A if isinstance(adapter, Lora) else adapter.sigma:
        module, whole = model.get_submodule(name), own.get_submodule(name)
        weight = cast(Tensor, module.weight)
        merged = _merged(adapter, name, dense_weight(whole), basis).to(weight.dtype)
        weight.data = merged.T.contiguous() if isinstance(module, Conv1D) else merged
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(directory)


def _merged(adapter: Adapter | Lora, name: str, weight: Tensor, basis: Basis) -> Tensor:
    """The weight [d_out, d_in] of a module with what the adapter adds to it."""
    if isinstance(adapter, Lora):
        update = adapter.B[name].double() @ adapter.A[name].double() * adapter.config.scale_of(name)
        return (weight.double() + update).to(weight.dtype)
    stored = basis.factors[name]
    factors = Factors(stored.U.cpu(), stored.S.cpu(), stored.Vt.cpu())
    return merged_weight(weight, factors, adapter.sigma[name], adapter.delta[name])


def _padded(own: int, wanted: int | None) -> int:
    """The rank to write: `wanted`, or the first allowed one that holds `own`."""
    if wanted is not None:
        if wanted < own:
            raise UserError(
                f"rank {wanted} cannot hold the adapter's {own}", param="rank", next_action=f"choose {own} or more"
            )
        return wanted
    for allowed in LORA_RANKS:
        if allowed >= own:
            return allowed
    raise UserError(
        f"vLLM takes no LoRA above rank {LORA_RANKS[-1]}; the adapter's rank is {own}",
        param="rank",
        next_action=f"pass rank={own} to export it for PEFT alone",
    )


def _targets(adapter: Adapter, basis: Basis) -> list[str]:
    """Module names for the config: their last components where every such module is adapted, else in full."""
    ends = set(adapter.target_modules)
    covered = {name for name in basis.factors if name.rpartition(".")[2] in ends}
    return sorted(ends if covered == set(adapter.sigma) else adapter.sigma)
