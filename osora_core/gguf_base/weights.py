"""The tensors of a GGUF file as a model of transformers has them, one at a time, in float32."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from osora_core.export.gguf_tensors import unpaired
from osora_core.gguf_base.head import ROTARY_FACTORS, GgufFile, unsupported


class Place(NamedTuple):
    """Where a parameter's values lie: its name, its shape, and what the file calls it."""

    name: str
    shape: tuple[int, ...]
    stored: str

    @property
    def bytes(self) -> int:
        """In float32."""
        return 4 * int(np.prod(self.shape))


def places_of(file: GgufFile) -> list[Place]:
    """Of all parameters, in the model's order.

    Raises UnsupportedBase where file and model do not have the same tensors in the same shapes: nothing is left over.
    """
    config: Any = file.config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    architecture = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[file.architecture]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    places = []
    for name, parameter in model.named_parameters():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None or stored not in file.tensors:
            raise unsupported(f"{file.path.name} has no tensor for {name} of a {config.model_type}")
        place = Place(name, tuple(parameter.shape), stored)
        found = tuple(int(size) for size in reversed(file.tensors[stored].shape))
        if found != place.shape:
            raise unsupported(f"{stored} of {file.path.name} is {list(found)}, and {list(place.shape)} was expected")
        places.append(place)
    left = file.tensors.keys() - {place.stored for place in places} - {ROTARY_FACTORS}
    if left:
        raise unsupported(f"a {config.model_type} has no place for {sorted(left)[0]} of {file.path.name}")
    return places


def values_of(file: GgufFile, place: Place) -> Tensor:
    """A parameter's values in float32. Raises UnsupportedBase for a kind of quantisation that is not known."""
    tensor, config = file.tensors[place.stored], file.config
    try:
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    except NotImplementedError as error:
        raise unsupported(f"{place.stored} of {file.path.name} is of the kind {tensor.tensor_type.name}") from error
    values = values.reshape(place.shape)
    if not torch.isfinite(values).all():
        raise unsupported(f"{place.stored} of {file.path.name} has values that are no finite numbers")
    if file.family.shifted_norms and place.name.endswith("norm.weight"):
        values = values - 1
    if file.family.permuted and ".q_proj." in place.name:
        values = unpaired(values, config.num_attention_heads)
    if file.family.permuted and ".k_proj." in place.name:
        values = unpaired(values, config.num_key_value_heads)
    return values.contiguous()


def shards_of(places: list[Place], most_bytes: int) -> Iterator[list[Place]]:
    """The places in groups of at most so many bytes, or of one tensor that is larger."""
    group: list[Place] = []
    for place in places:
        if group and sum(one.bytes for one in group) + place.bytes > most_bytes:
            yield group
            group = []
        group.append(place)
    if group:
        yield group
