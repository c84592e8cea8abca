"""An adapter's vectors as PEFT stores them: by the names of their modules, without the adapter's own name."""

from collections.abc import Mapping

from torch import Tensor, nn

from osora_core.adapter_tensors import KEY_PREFIX
from osora_core.errors import CorruptArtifact
from osora_core.tuner.layer import OsoraTunerLinear

# What FSDP and activation checkpointing put into the names of modules, and leave out of those of a state dict.
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# What torch.compile puts around a model.
COMPILED = "_orig_mod"


def of_adapter(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's vectors under their keys in the model; those of `state_dict` where it has them (gathered shards)."""
    vectors = _vectors(model, adapter_name)
    return {f"{key}.{adapter_name}": state_dict.get(f"{key}.{adapter_name}", v) for key, v in vectors.items()}


def to_load(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A stored adapter under the keys of the model, whichever of the two was wrapped as a PeftModel.

    What is no vector of OSoRA passes where the model has it: modules saved whole, resized embeddings. Raises
    CorruptArtifact unless every vector is there with its shape, and nothing else.
    """
    vectors = _vectors(model, adapter_name)
    keys = {_stored_name(key): key for key in vectors}
    stored = {_stored_name(key): key for key in state_dict}
    others = stored.keys() - keys.keys()
    known = {_stored_name(key) for key in model.state_dict()} if others else set()
    wrong = sorted((keys.keys() - stored.keys()) | (others - known))
    if wrong:
        what = "lacks" if wrong[0] in keys else "holds, beyond what its config names,"
        raise CorruptArtifact(f"the stored adapter {what} {wrong[0]} ({len(wrong)} differences in all)")
    for name, key in keys.items():
        shape = state_dict[stored[name]].shape
        if shape != vectors[key].shape:
            raise CorruptArtifact(f"{name} has shape {tuple(shape)}, this base wants {tuple(vectors[key].shape)}")
    return {f"{keys[n]}.{adapter_name}" if n in keys else key: state_dict[key] for n, key in stored.items()}


def _vectors(model: nn.Module, adapter_name: str) -> dict[str, Tensor]:
    """An adapter's vectors by their key in the model's state dict, without the adapter's name."""
    vectors = {}
    for name, layer in model.named_modules():
        if isinstance(layer, OsoraTunerLinear) and adapter_name in layer.osora_sigma:
            for wrapper in _WRAPPERS:
                name = name.replace(wrapper, "")
            for part in layer.adapter_layer_names:
                if adapter_name in getattr(layer, part):
                    vectors[f"{name}.{part}"] = getattr(layer, part)[adapter_name].detach()
    return vectors


def _stored_name(key: str) -> str:
    """A key as the name in the base, which is one for an injected, a compiled and a wrapped model."""
    return key.replace(f"{COMPILED}.", "").removeprefix(KEY_PREFIX)
