"""A plain LoRA of a base (arXiv 2106.09685) as PEFT stores it: each module's own A [r, d_in] and B [d_out, r]."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from osora_core.adapter import CONFIG_NAME, unpack, verify
from osora_core.adapter_tensors import KEY_PREFIX
from osora_core.basis import Basis
from osora_core.errors import CorruptArtifact, UserError
from osora_core.lora_config import LoraConfig

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_KEY = re.compile(rf"{re.escape(KEY_PREFIX)}(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_HEADS = ("lm_head", "embed_out", "output_layer")
# What else PEFT stores with a LoRA, by what its name has in it.
_OTHERS = (
    ("lora_embedding_", "a LoRA of an embedding"),
    ("lora_magnitude_vector", "a part of DoRA"),
    (".bias", "a bias"),
    ("modules_to_save", "a whole module"),
    ("embed_tokens.", "a whole embedding"),
    ("lm_head.weight", "a whole output head"),
)
_NEXT = "check that the LoRA was trained on this base, and save it with PEFT's save_pretrained"


@dataclass(frozen=True)
class Lora:
    """A [r, d_in] and B [d_out, r] by module name, in the dtype of the file, and what PEFT makes of them.

    What it adds to a module's output is `config.scale_of(module)` * B A x.
    """

    A: Mapping[str, Tensor]
    B: Mapping[str, Tensor]
    config: LoraConfig

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max(len(factor) for factor in self.A.values())

    @property
    def target_modules(self) -> list[str]:
        return sorted({name.rpartition(".")[2] for name in self.A})

    @property
    def parameters(self) -> int:
        return sum(t.numel() for part in (self.A, self.B) for t in part.values())

    @classmethod
    def from_zip(cls, data: bytes | memoryview, sha256: str | None = None) -> "Lora":
        """Read an artifact, first checking its bytes against `sha256` where one is given.

        Raises CorruptArtifact on another hash or a broken archive, and what `from_files` raises.
        """
        if sha256 is not None:
            verify(data, sha256)
        return cls.from_files(*unpack(data))

    @classmethod
    def from_files(cls, config_json: bytes, weights: bytes | memoryview) -> "Lora":
        """Raises CorruptArtifact for files that cannot be parsed, UserError for a LoRA that is not a plain one."""
        try:
            config: Any = json.loads(config_json)
            tensors = load(bytes(weights))
        except (ValueError, RecursionError, SafetensorError) as error:
            raise CorruptArtifact(f"the LoRA's files cannot be parsed: {error}") from error
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise CorruptArtifact(f"{CONFIG_NAME} is not that of a LoRA")
        read = LoraConfig.read(config)
        parts: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
        for name, tensor in tensors.items():
            part, module = _named(name)
            parts[part][module] = _checked(name, tensor)
        lora = cls(parts["A"], parts["B"], read)
        lora._check_pairs()
        return lora

    def _check_pairs(self) -> None:
        if not self.A:
            raise UserError("the LoRA has no tensors", next_action=_NEXT)
        if alone := self.A.keys() ^ self.B.keys():
            raise UserError(f"{min(alone)} has only one of lora_A and lora_B", next_action=_NEXT)
        for name, factor in self.A.items():
            if not self.config.takes(name):
                raise UserError(
                    f"the LoRA has tensors of {name[:200]!r}, which is none of the target_modules of {CONFIG_NAME}",
                    param="target_modules",
                    next_action=_NEXT,
                )
            ranks = len(factor), self.B[name].shape[1], self.config.rank_of(name)
            if len(set(ranks)) > 1:
                raise UserError(
                    f"{name} has A of rank {ranks[0]} and B of rank {ranks[1]}; {CONFIG_NAME} says {ranks[2]}",
                    next_action=_NEXT,
                )

    def check(self, basis: Basis) -> None:
        """Raise UserError, naming the module, unless it fits the linears of the base that `basis` is of."""
        for name, factor in self.A.items():
            factors = basis.factors.get(name)
            if factors is None:
                raise UserError(f"the base has no linear module {name!r}{_nearest(name, basis)}", next_action=_NEXT)
            wanted = factors.Vt.shape[1], factors.U.shape[0]
            found = factor.shape[1], self.B[name].shape[0]
            if found != wanted:
                raise UserError(
                    f"{name} maps {found[0]} values to {found[1]}; this base's maps {wanted[0]} to {wanted[1]}",
                    next_action=_NEXT,
                )

    def factors(self, basis: Basis, dtype: torch.dtype) -> dict[int, tuple[Tensor, Tensor]]:
        """A [r, d_in] and B [d_out, r], its scale included, by the index of the module in `basis`.

        Raises what `check` raises, and CorruptArtifact for values that are not finite in `dtype`.
        """
        self.check(basis)
        factors = {}
        for index, span in enumerate(basis.spans):
            if span.name in self.A:
                A = self.A[span.name].to(dtype)
                B = (self.B[span.name].float() * self.config.scale_of(span.name)).to(dtype)
                if not (A.isfinite().all() and B.isfinite().all()):
                    raise CorruptArtifact(
                        f"the LoRA's {span.name} holds values that are not numbers",
                        next_action="train it again with a lower learning rate",
                    )
                factors[index] = A, B
        return factors


def _named(name: str) -> tuple[str, str]:
    """Whether a tensor is an A or a B, and of which module. Raises UserError, saying what it is, for any other."""
    found = _KEY.fullmatch(name)
    if found is None:
        what = next((meaning for mark, meaning in _OTHERS if mark in name), "no part of a plain LoRA")
        raise UserError(
            f"the tensor {name[:200]!r} is {what}, which is not supported",
            next_action="train a LoRA of linear modules alone, or merge it into the base and serve that",
        )
    module = found["module"]
    if module.rpartition(".")[2] in _HEADS:
        raise UserError(
            f"the LoRA adapts the output head {module!r}, which is not supported",
            next_action="train a LoRA of the linear modules inside the layers, or merge it into the base",
        )
    return found["part"], module


def _checked(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in _DTYPES or tensor.dim() != 2 or not tensor.numel():
        shape, dtype = list(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"the tensor {name[:200]!r} is {dtype} of shape {shape}; a LoRA's are matrices of float32, float16 or "
            "bfloat16",
            next_action=_NEXT,
        )
    return tensor


def _nearest(name: str, basis: Basis) -> str:
    near = difflib.get_close_matches(name[:200], basis.factors, 1)
    return f"; the nearest is {near[0]!r}" if near else ""
