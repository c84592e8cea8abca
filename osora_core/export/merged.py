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
from osora_core.operator import merged_weight
from osora_core.weights import dense_weight, fingerprint_base


def merge(adapter: Adapter, basis: Basis, directory: Path, *, base: str | None = None, dtype: str = "auto") -> None:
    """Write the base with the adapter folded in as a plain checkpoint with its tokenizer: safetensors, no code.

    `base` is a path or name of the base, by default the name that it had in training. `dtype` is that of the written
    checkpoint, by default the base's own. Raises IdentityMismatch if base or basis are not the adapter's.
    """
    adapter.check(basis)
    source = base_models.resolve(base or adapter.base)
    merged_model(adapter, basis, source, dtype).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(directory)


def merged_model(adapter: Adapter, basis: Basis, source: str, dtype: str) -> PreTrainedModel:
    """The base at `source` with the adapter, whose basis this is, folded in, in `dtype`.

    Each weight is summed in float64 and rounded once, one after the other. Raises IdentityMismatch if the base is not
    the adapter's.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    own = own_values(model)
    found = fingerprint_base(own)
    if found != adapter.base_fingerprint:
        raise mismatch("base", adapter.base_fingerprint, found, "name the path of the adapter's own base with `base`")
    for name, sigma in adapter.sigma.items():
        module, whole = model.get_submodule(name), own.get_submodule(name)
        stored = basis.factors[name]
        factors = Factors(stored.U.cpu(), stored.S.cpu(), stored.Vt.cpu())
        merged = merged_weight(dense_weight(whole), factors, sigma, adapter.delta[name])
        weight = cast(Tensor, module.weight)
        merged = merged.to(weight.dtype)
        weight.data = merged.T.contiguous() if isinstance(module, Conv1D) else merged
    merged_whole: PreTrainedModel = model
    return merged_whole
