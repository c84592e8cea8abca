"""The methods by name: what each is, the rates that it starts with, and how it learns.

osora-R[-mix-C][-s|-o|-even]   OSoRA of rank R or `full`; with a matrix of C x C; s or o alone; s as fast as o
reference                      rank 256, q and v alone, s absolute, one rate
vera-R  lora-R  pissa-R  psoft-R  ia3   through PEFT
lora-xs-R  full                a rotation-free R x R between fixed factors; all of the base
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from peft import IA3Config, LoraConfig, PeftConfig, PsoftConfig, VeraConfig
from transformers import PreTrainedModel

from benchmarks.quality.bases import Base
from benchmarks.quality.learned import Learner
from benchmarks.quality.operators import Absolute, LoraXs, Operator
from benchmarks.quality.ours import Osora
from benchmarks.quality.peers import Full, Own, Peft
from osora_core.weights import ALL_LINEAR, find_targets

Rates = Mapping[str, float]
"""What a run is tuned by, under the names of the training spec's fields."""

DEFAULT = (
    "osora-128", "osora-256", "osora-full", "osora-128-mix-8", "osora-128-mix-16", "osora-128-mix-32",
    "osora-128-mix-64", "osora-full-mix-64", "osora-128-s", "osora-128-o", "reference", "vera-256", "vera-1024",
    "lora-1", "lora-8", "lora-16", "pissa-8", "psoft-46", "psoft-128", "ia3", "lora-xs-32", "lora-xs-64", "full",
)  # fmt: skip
"""What the table shows. Of SmolLM2-135M, `psoft-46` and `lora-xs-32` train about as much as `osora-128-mix-16`."""

REFERENCE_RANK, REFERENCE_MODULES = 256, ("q_proj", "v_proj")
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "s": (", s alone", {"train": "s"}),
    "o": (", o alone", {"train": "o"}),
    "even": (", s as fast as o", {"sigma_rate": 1.0}),
}


@dataclass(frozen=True)
class Method:
    """starts: the values of each rate that are tried first. fields: of the training spec, beside rates, for a base."""

    name: str
    label: str
    starts: Mapping[str, tuple[float, ...]]
    learner: Callable[[Base], Learner]
    fields: Callable[[Base], dict[str, Any]] = field(default=lambda base: {})

    @property
    def is_ours(self) -> bool:
        """Whether it is a point of the dial: OSoRA, with or without a mix."""
        return self.name.startswith("osora-")


def named(name: str) -> Method:
    """The method of this name. Raises ValueError if there is none."""
    for pattern, make in _METHODS:
        if found := re.fullmatch(pattern, name):
            return make(name, *found.groups())
    raise ValueError(f"there is no method {name!r}: choose from {', '.join(DEFAULT)}, or other numbers in these")


def _rate(*values: float) -> dict[str, tuple[float, ...]]:
    return {"learning_rate": values}


def _osora(name: str, rank: str, mix: str | None, variant: str | None) -> Method:
    of_variant, fields = _VARIANTS.get(variant or "", ("", {}))
    label = f"OSoRA, {'full rank' if rank == 'full' else f'rank {rank}'}{f', mix {mix}' if mix else ''}{of_variant}"
    starts = _rate(0.03, 0.1, 0.3) if variant == "s" else _rate(0.01, 0.03, 0.1)
    if mix:
        starts = {"learning_rate": (0.01, 0.03), "mix_rate": (0.1, 0.3)}
        fields = fields | {"mix": int(mix)}

    def rank_of(base: Base) -> int:
        return base.full_rank if rank == "full" else int(rank)

    return Method(
        name,
        label,
        starts,
        lambda base: Osora(base.runtime(rank_of(base))),
        lambda base: {**fields, "rank": rank_of(base)},
    )


def _reference(name: str) -> Method:
    def learner(base: Base) -> Learner:
        def operator(module: str, _index: int, seeds: Sequence[int]) -> Operator | None:
            wanted = module.rpartition(".")[2] in REFERENCE_MODULES
            return Absolute(base.factors[module], REFERENCE_RANK, len(seeds)) if wanted else None

        return Own(base.plain, operator)

    return Method(name, "OSoRA, reference setting", _rate(0.003, 0.01, 0.03), learner)


def _lora_xs(name: str, rank: str) -> Method:
    def learner(base: Base) -> Learner:
        def operator(module: str, index: int, seeds: Sequence[int]) -> Operator:
            return LoraXs(base.factors[module], int(rank), seeds, index)

        return Own(base.plain, operator)

    return Method(name, f"LoRA-XS, rank {rank}", _rate(0.001, 0.003, 0.01), learner)


def _peft(
    label: str, config: Callable[..., PeftConfig], *rates: float, is_seeded: bool = False
) -> Callable[..., Method]:
    """A method of PEFT: `config` takes the base's model, and the rank where the name has one. is_seeded: whether it
    begins with something random that is a run's own."""

    def make(name: str, *rank: str) -> Method:
        said = f"{label}, rank {rank[0]}" if rank else label
        ranks = tuple(map(int, rank))

        def learner(base: Base) -> Learner:
            begun = None if is_seeded else base.begun
            return Peft(base.plain, lambda model: config(model, *ranks), begun, name)

        return Method(name, said, _rate(*rates), learner)

    return make


def lora(_model: PreTrainedModel, rank: int, init: bool | str = True) -> PeftConfig:
    """A LoRA of this rank on every linear, scaled by one; PiSSA where `init` says so."""
    init_weights = cast(Any, init)
    return LoraConfig(
        r=rank, lora_alpha=rank, target_modules=ALL_LINEAR, init_lora_weights=init_weights, task_type="CAUSAL_LM"
    )


def pissa(model: PreTrainedModel, rank: int) -> PeftConfig:
    """A LoRA that begins with the principal triplets, which its base loses."""
    return lora(model, rank, "pissa")


def vera(_model: PreTrainedModel, rank: int) -> PeftConfig:
    """A VeRA of this rank on every linear. Its random matrices come from a seed and are not stored."""
    return VeraConfig(r=rank, target_modules=ALL_LINEAR, save_projection=False, task_type="CAUSAL_LM")


def psoft(_model: PreTrainedModel, rank: int) -> PeftConfig:
    """A PSOFT of this rank on every linear."""
    return PsoftConfig(r=rank, psoft_alpha=rank, target_modules=ALL_LINEAR, task_type="CAUSAL_LM")


def ia3(model: PreTrainedModel) -> PeftConfig:
    """IA3 on every linear: inputs of the feed-forward's last one, outputs of all others."""
    names = sorted({name.rpartition(".")[2] for name in find_targets(model, ALL_LINEAR)})
    return IA3Config(
        target_modules=names, feedforward_modules=[n for n in names if n == "down_proj"], task_type="CAUSAL_LM"
    )


def _full(name: str) -> Method:
    return Method(name, "full fine-tuning", _rate(3e-5, 1e-4, 3e-4), lambda base: Full(base.plain))


_METHODS: tuple[tuple[str, Callable[..., Method]], ...] = (
    (r"osora-(full|\d+)(?:-mix-(\d+))?(?:-(s|o|even))?", _osora),
    (r"reference", _reference),
    (r"lora-xs-(\d+)", _lora_xs),
    (r"lora-(\d+)", _peft("LoRA", lora, 0.003, 0.01, 0.03, is_seeded=True)),
    (r"pissa-(\d+)", _peft("PiSSA", pissa, 0.001, 0.003, 0.01)),
    (r"vera-(\d+)", _peft("VeRA", vera, 0.03, 0.1, 0.3)),
    (r"psoft-(\d+)", _peft("PSOFT", psoft, 0.003, 0.01, 0.03)),
    (r"ia3", _peft("IA3", ia3, 0.003, 0.01, 0.03)),
    (r"full", _full),
)
