"""An adapter folded into its base: a plain checkpoint."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from osora_core import base_models
from osora_core.adapter import Adapter
from osora_core.basis import Basis, Factors
from osora_core.checkpoint import own_values
from osora_core.identity import mismatch
from osora_core.lora import Lora
from osora_core.operator import merged_weight
from osora_core.weights import dense_weight, fingerprint_base


def merge(
    adapter: Adapter | Lora, basis: Basis, directory: Path, *, base: str | None = None, dtype: str = "auto"
) -> None:
    """Write the base with the adapter folded in as a plain checkpoint with its tokenizer: safetensors, no code.

    `base` is a path or name of the base, by default the name that it had in training. `dtype` is that of the written
    checkpoint, by default the base's own. Raises IdentityMismatch if base or basis are not the adapter's; a LoRA's base
    is the basis's.
    """
    adapter.check(basis)
    source = base_models.resolve(base or named_base(adapter))
    merged_model(adapter, basis, source, dtype).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(directory)


def named_base(adapter: Adapter | Lora) -> str:
    """What the adapter calls its base."""
    return adapter.config.base if isinstance(adapter, Lora) else adapter.base


def merged_model(adapter: Adapter | Lora, basis: Basis, source: str, dtype: str) -> PreTrainedModel:
    """The base at `source` with the adapter, whose basis this is, folded in, in `dtype`.

    Each weight is summed in float64 and rounded once, one after the other. Raises IdentityMismatch if the base is not
    the adapter's.
    """
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
    merged_whole: PreTrainedModel = model
    return merged_whole


def _merged(adapter: Adapter | Lora, name: str, weight: Tensor, basis: Basis) -> Tensor:
    """The weight [d_out, d_in] of a module with what the adapter adds to it."""
    if isinstance(adapter, Lora):
        update = adapter.B[name].double() @ adapter.A[name].double() * adapter.config.scale_of(name)
        return (weight.double() + update).to(weight.dtype)
    stored = basis.factors[name]
    factors = Factors(stored.U.cpu(), stored.S.cpu(), stored.Vt.cpu())
    return merged_weight(weight, factors, adapter.sigma[name], adapter.delta[name], adapter.mix.get(name))
