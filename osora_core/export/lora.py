"""An adapter as a LoRA that needs nothing of ours."""

import json

import torch
from safetensors.torch import save
from torch import Tensor

from osora_core.adapter import CONFIG_NAME, WEIGHTS_NAME, Adapter
from osora_core.adapter_tensors import KEY_PREFIX
from osora_core.basis import Basis
from osora_core.errors import UserError
from osora_core.operator import lora_factor

# What vLLM takes as max_lora_rank.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def to_lora(adapter: Adapter, basis: Basis, *, rank: int | None = None, base: str | None = None) -> dict[str, bytes]:
    """The adapter as the files of a PEFT LoRA directory, which computes the same.

    dW = (diag(o) U (diag(s) + C) - U diag(s0)) V^T has rank r already, with a mix C or without, so A = V^T [r, d_in]
    and B [d_out, r], both float32, are read off; lora_alpha is the rank, so nothing is scaled. Both are padded with
    zeros to `rank`, by default the next one that vLLM allows. `base` is what the files call their base, by default the
    name that it had in training.

    Raises IdentityMismatch if the basis is not the adapter's, UserError for a rank that is too small or that vLLM
    would refuse.
    """
    adapter.check(basis)
    rank = _padded(adapter.rank, rank)
    tensors: dict[str, Tensor] = {}
    for name, sigma in adapter.sigma.items():
        factors = basis.factors[name]
        A = torch.zeros(rank, factors.Vt.shape[1])
        A[: len(sigma)] = factors.Vt[: len(sigma)]
        B = torch.zeros(factors.U.shape[0], rank)
        U, S, s, o = (t.cpu().double() for t in (factors.U, factors.S, sigma, adapter.delta[name]))
        mix = adapter.mix[name].cpu().double() if adapter.mix_size else None
        B[:, : len(sigma)] = lora_factor(U, S, s, o, mix).float()
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
