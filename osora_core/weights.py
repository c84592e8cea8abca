"""A base's linears and weights: which ones there are, what their numbers are, and the hash that is its identity."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from osora_core.errors import UserError

ALL_LINEAR = "all-linear"
PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The schemes of transformers whose weights we can read; any other would hide weights from the base's fingerprint.
READABLE_QUANTISATION = ("bitsandbytes", "torchao")
# Tensors that are hashed at once, each in memory as its values: enough threads to keep up with a disk.
_HASHED_AT_ONCE = 8


def is_plain(weight: Tensor) -> bool:
    """Whether a weight is what its numbers say: a floating-point tensor without scales kept elsewhere."""
    return type(weight) in (Tensor, nn.Parameter) and weight.dtype in PLAIN_DTYPES


def dense_weight(module: nn.Module) -> Tensor:
    """The weight [d_out, d_in] of a supported linear, without quantisation; raises UserError for anything else.

    Supported are nn.Linear and Conv1D in floating point and the int8 and 4-bit weights of bitsandbytes and torchao.
    """
    weight = cast(Tensor, module.weight)
    if isinstance(module, nn.Linear | Conv1D) and is_plain(weight):
        return weight.T if isinstance(module, Conv1D) else weight
    if isinstance(module, nn.Linear) and type(weight).__module__.startswith("torchao."):
        return weight.dequantize().detach()
    if isinstance(module, nn.Linear) and type(weight).__name__ in ("Int8Params", "Params4bit"):
        # Only who loads such a base needs PEFT, which takes seconds to import.
        from peft.utils.integrations import dequantize_bnb_weight

        return dequantize_bnb_weight(cast(nn.Parameter, weight), getattr(module, "state", None)).detach()
    raise UserError(
        f"OSoRA cannot read the weight of a {type(module).__name__} ({type(weight).__name__}, {weight.dtype})",
        param="target_modules",
        next_action="load the base without quantisation, or with bitsandbytes or torchao",
    )


def weight_shape(module: nn.Module) -> tuple[int, int]:
    """d_out and d_in of a linear, without reading its weight."""
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    assert isinstance(module, nn.Linear)
    return module.out_features, module.in_features


def find_targets(model: nn.Module, targets: str | Iterable[str]) -> dict[str, nn.Module]:
    """Modules to adapt, by full name in model order: every linear but the output head and a task's head, or those whose
    last name component is listed. Raises UserError if a listed name matches nothing."""
    head, backbone = _output_head(model), _backbone(model)
    linears: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and name.startswith(backbone)
    }
    if not linears:
        raise UserError(
            f"this {type(model).__name__} has no nn.Linear and no Conv1D to adapt",
            next_action="load the base without quantisation, or with bitsandbytes or torchao",
        )
    if targets == ALL_LINEAR:
        return linears
    wanted = {targets} if isinstance(targets, str) else set(targets)
    found = {name: module for name, module in linears.items() if name.rpartition(".")[2] in wanted}
    missing = wanted - {name.rpartition(".")[2] for name in found}
    if missing or not found:
        known = sorted({name.rpartition(".")[2] for name in linears})
        raise UserError(
            f"no linear module is called {', '.join(sorted(missing))}",
            param="target_modules",
            next_action=f"choose from {', '.join(known)}, or 'all-linear'",
        )
    return found


def _output_head(model: nn.Module) -> nn.Module | None:
    """What turns a language model's hidden states into logits."""
    get_head = getattr(model, "get_output_embeddings", None)
    head: nn.Module | None = get_head() if get_head is not None else None
    return head


def _backbone(model: nn.Module) -> str:
    """What the names of a base's own modules begin with.

    A transformers model for a task (classification, question answering) keeps its pretrained part apart from the
    task's head, which is new and random each time that the checkpoint of a language model is loaded as such a model.
    """
    inner = getattr(model, "base_model", model)
    if inner is model or _output_head(model) is not None:
        return ""
    return next((f"{name}." for name, module in model.named_modules() if module is inner), "")


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that a model computes in: that of its first floating-point parameter."""
    return next(p.dtype for p in model.parameters() if is_plain(p))


def fingerprint_tensors(tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> str:
    """sha256 (hex) over (name, dtype, shape, bytes) of each tensor, sorted by name; as `dtype` where one is given.

    `tensors` is read as the hashing goes on, a few ahead of it, and only those few are brought to the CPU and
    converted: a base need not fit into memory twice, and one that is quantised need not fit without that.
    """

    def digest(item: tuple[str, Tensor]) -> str:
        name, tensor = item
        data = tensor.detach().cpu().to(dtype or tensor.dtype).contiguous()
        content = hashlib.sha256(data.view(-1).view(torch.uint8).numpy().data).hexdigest()
        return f"{name} {str(data.dtype).removeprefix('torch.')} {tuple(data.shape)} {content}\n"

    lines: list[str] = []
    # Not `map`, which reads all that it is given at once.
    pending: deque[Future[str]] = deque()
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        for item in tensors:
            pending.append(pool.submit(digest, item))
            del item
            if len(pending) == _HASHED_AT_ONCE:
                lines.append(pending.popleft().result())
        lines += [future.result() for future in pending]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def fingerprint_base(model: nn.Module) -> str:
    """The identity of a base: a hash of its parameters' values, the same for a bfloat16 checkpoint read as float32.

    A task's head (see `_backbone`) is no part of it, and a quantised weight counts with the values it stands for.
    Raises UserError for a quantisation that we cannot read.
    """
    quantisation = getattr(getattr(model, "config", None), "quantization_config", None)
    method = getattr(quantisation, "quant_method", None)
    if quantisation is not None and getattr(method, "value", method) not in READABLE_QUANTISATION:
        raise UserError(
            f"a base quantised with {getattr(method, 'value', method)} is not supported",
            param="model",
            next_action=f"load it without quantisation, or with {' or '.join(READABLE_QUANTISATION)}",
        )
    return fingerprint_tensors(base_values(model), torch.float32)


def base_values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of the base by name, quantised ones as what they stand for."""
    backbone = _backbone(model)
    for name, parameter in model.named_parameters():
        if not name.startswith(backbone):
            continue
        if parameter.is_meta:
            raise UserError(
                f"{name} is not in memory but on the meta device",
                param="model",
                next_action="load the base without offloading and without init_empty_weights",
            )
        if is_plain(parameter):
            yield name, parameter
        else:
            yield name, dense_weight(model.get_submodule(name.rpartition(".")[0]))
