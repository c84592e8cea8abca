"""The base that all methods begin with, loaded once, and its bases of several ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from osora_core import attention, base_models
from osora_core.basis import BasisCache, Factors
from osora_core.runtime import Runtime
from osora_core.weights import ALL_LINEAR, dense_weight, find_targets


@dataclass(frozen=True)
class Base:
    """A base by name or directory, on a device, in the dtype that every method trains over."""

    source: str
    device: str
    dtype: torch.dtype
    begun: dict[str, Any] = field(default_factory=dict)
    """What methods begin with whatever the seed, by their names: some decompose every weight for it."""
    _runtimes: dict[int, Runtime] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What results call it: a directory's own name, not where it lies."""
        return Path(self.source).name

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def plain(self) -> PreTrainedModel:
        """The model without any basis, which no method changes."""
        attention.register()
        model: Any = AutoModelForCausalLM.from_pretrained(
            base_models.resolve(self.source), dtype=self.dtype, attn_implementation=attention.NAME
        )
        loaded: PreTrainedModel = model.to(self.device).eval().requires_grad_(False)
        return loaded

    @cached_property
    def full_rank(self) -> int:
        """The largest full rank of any of its weights."""
        return max(min(dense_weight(module).shape) for module in find_targets(self.plain, ALL_LINEAR).values())

    @property
    def factors(self) -> Mapping[str, Factors]:
        """The factors of each linear, at its own full rank."""
        return self.runtime(self.full_rank).basis.factors

    def runtime(self, rank: int) -> Runtime:
        """The base with a basis of just this rank: a larger one would make every product larger."""
        if rank not in self._runtimes:
            self._runtimes[rank] = Runtime.load(
                "quality", BasisCache.default(), path=self.source, device=self.device, dtype=self.dtype, rank=rank
            )
        return self._runtimes[rank]
