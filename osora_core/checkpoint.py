"""The values of a base's checkpoint, which are its identity, where it was loaded in a dtype that cannot hold them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from osora_common.safetensors_files import INDEX, WHOLE, listed_in, read_header
from osora_core.weights import base_values, compute_dtype

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def own_values(model: nn.Module) -> nn.Module:
    """A model with the values of the checkpoint that `model` was loaded from; mostly `model` itself.

    Where it was loaded in a narrower dtype than it is stored in, the checkpoint is read once more, in float32, on the
    CPU. A model that has no checkpoint on this machine, or that was changed since, has its own values.
    """
    if not isinstance(model, PreTrainedModel) or getattr(model.config, "quantization_config", None) is not None:
        return model
    dtype, source = compute_dtype(model), model.name_or_path
    place: dict[str, Any] = {
        "revision": getattr(model.config, "_commit_hash", None) or "main",
        "local_files_only": True,
    }
    if not source or all(torch.promote_types(stored, dtype) == dtype for stored in _dtypes(source, place)):
        return model
    whole = type(model).from_pretrained(
        source, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, **place
    )
    return whole if _rounds_to(whole, model) else model


def _dtypes(source: str, place: dict[str, Any]) -> set[torch.dtype]:
    """The floating-point dtypes in the checkpoint's files; none if there are no such files here."""
    found = set()
    for file in _files(source, place):
        _, tensors = read_header(file)
        found |= {_DTYPES[entry["dtype"]] for entry in tensors.values() if entry["dtype"] in _DTYPES}
    return found


def _files(source: str, place: dict[str, Any]) -> list[Path]:
    index = _file(source, INDEX, place)
    names = [WHOLE] if index is None else listed_in(index)
    return [path for name in names if (path := _file(source, name, place)) is not None]


def _file(source: str, name: str, place: dict[str, Any]) -> Path | None:
    try:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **place)
    except (OSError, ValueError):  # no such folder or repository: the name is anything a person gave
        return None
    return None if found is None else Path(found)


def _rounds_to(whole: nn.Module, model: nn.Module) -> bool:
    """Whether `model` has the values of `whole`, rounded."""
    mine, theirs = dict(base_values(model)), dict(base_values(whole))
    return mine.keys() == theirs.keys() and all(
        torch.equal(theirs[name].to(parameter.dtype), parameter.detach().cpu()) for name, parameter in mine.items()
    )
