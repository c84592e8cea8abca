"""Several adapters as one: the arithmetic of `add_weighted_adapter`.

An adapter of the vectors s = s0 + sigma and o = 1 + delta makes the weight diag(o) U diag(s) V^T of U diag(s0) V^T. A
weighted sum of such updates has no s and o of its own: with two adapters its entries are sums of two products o_i s_i,
which is no single product. What can be combined are the vectors, which are differences from the base as the task
vectors of task arithmetic are (arXiv 2212.04089): sigma = sum w_i sigma_i, delta = sum w_i delta_i. The update of that
is the weighted sum of the updates up to terms in sigma * delta. It is that sum exactly where all adapters train only s,
or all only o.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from peft.utils import merge_utils
from torch import Tensor

from osora_core.errors import UserError
from osora_core.tuner.config import OsoraConfig

Combination = Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
MajoritySign = Literal["total", "frequency"]
Combine = Callable[[Sequence[Tensor]], Tensor]


def combination(
    weights: Sequence[float], kind: str, density: float | None, majority_sign_method: MajoritySign
) -> Combine:
    """What combines one vector of each of `len(weights)` adapters.

    kind: "linear" is the weighted sum; the others keep a `density` of each vector's values, as PEFT has them for LoRA.
    Raises UserError for a kind that has no meaning for OSoRA, and for a density or a method of signs that cannot be.
    """
    if kind not in get_args(Combination):
        raise UserError(
            f"combination_type cannot be {kind!r}: a weighted sum of OSoRA updates is no OSoRA update",
            param="combination_type",
            next_action=f"choose {', '.join(get_args(Combination))}, or convert the adapters to LoRA and combine those",
        )
    options: dict[str, Any] = {}
    if kind != "linear":
        if density is None or not 0 < density <= 1:
            raise UserError(
                f"density cannot be {density!r} with combination_type {kind!r}",
                param="density",
                next_action="choose a number above 0 and up to 1: the part of the values to keep",
            )
        options["density"] = density
    if majority_sign_method not in get_args(MajoritySign):
        raise UserError(
            f"majority_sign_method cannot be {majority_sign_method!r}",
            param="majority_sign_method",
            next_action=f"choose {' or '.join(get_args(MajoritySign))}",
        )
    if kind.endswith("ties"):
        options["majority_sign_method"] = majority_sign_method
    name = "task_arithmetic" if kind == "linear" else kind
    merge = partial(getattr(merge_utils, name), **options)

    def combine(vectors: Sequence[Tensor]) -> Tensor:
        combined: Tensor = merge(list(vectors), torch.tensor(weights, dtype=torch.float32, device=vectors[0].device))
        return combined

    return combine


def check_combinable(
    configs: Mapping[str, Any], adapters: Sequence[str], weights: Sequence[float], adapter_name: str
) -> None:
    """Raise UserError unless these adapters of a model can become one of the name `adapter_name`."""
    if not adapters or len(weights) != len(adapters):
        raise UserError(
            f"there are {len(weights)} weights for {len(adapters)} adapters",
            param="weights",
            next_action="name at least one adapter, and give each one weight",
        )
    if adapter_name in configs:
        raise UserError(
            f"there is an adapter {adapter_name} already",
            param="adapter_name",
            next_action="choose another name, or delete that adapter first",
        )
    for name in adapters:
        if name not in configs:
            raise UserError(
                f"there is no adapter {name}", param="adapters", next_action=f"choose from {', '.join(configs)}"
            )
        if configs[name].modules_to_save:
            raise UserError(
                f"{name} holds whole modules ({', '.join(configs[name].modules_to_save)}), which have no weighted sum",
                param="adapters",
                next_action="combine adapters that were trained without modules_to_save",
            )
    ranks = sorted({int(configs[name].r) for name in adapters})
    if len(ranks) > 1:
        # An adapter's delta scales the outputs of its own r triplets, so one of lower rank is not one with zeros.
        raise UserError(
            f"the adapters have different r ({', '.join(map(str, ranks))})",
            param="adapters",
            next_action="combine adapters of one r",
        )


def combined_config(configs: Sequence[OsoraConfig], modules: set[str]) -> OsoraConfig:
    """The config of adapters of these configs combined, which adapt `modules` (full names)."""
    first = configs[0]
    combined = replace(first, canary=None)
    if any(config.train != first.train for config in configs):
        combined.train = "both"
    if any(_where(config) != _where(first) for config in configs):
        combined.target_modules, combined.layers_to_transform, combined.layers_pattern = modules, None, None
    return combined


def _where(config: OsoraConfig) -> tuple[Any, ...]:
    return config.target_modules, config.layers_to_transform, config.layers_pattern
