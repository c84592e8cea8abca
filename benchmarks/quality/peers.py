"""The other methods: begun by PEFT where PEFT has them, then all runs of one side by side over one base.

Batches, loss, schedule, clipping and optimizer settings are those of the service's engine.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.quality.learned import Diverged, Learned
from benchmarks.quality.operators import Operator, Stacked, of_peft
from benchmarks.quality.stacks import Stack, fit, measure
from osora_core.data import Example
from osora_core.training import JobSpec
from osora_core.weights import find_targets

MakeOperator = Callable[[str, int, Sequence[int]], Operator | None]
"""The operator of a linear by its name, its index and the runs' seeds; None where the method has none there."""


@dataclass(frozen=True)
class Peft:
    """A method of PEFT. begun: where what it begins with is kept, if that does not depend on the seed, as `name`."""

    base: PreTrainedModel
    config: Callable[[PreTrainedModel], PeftConfig]
    begun: dict[str, Any] | None = None
    name: str = ""

    def learn(
        self, train: Sequence[Example], measured: Mapping[str, Sequence[Example]], specs: Sequence[JobSpec]
    ) -> list[Learned | Diverged]:
        begun = {spec.seed: self._begin(spec.seed) for spec in specs}
        size = len(
            save({k: v.detach().cpu().clone() for k, v in get_peft_model_state_dict(begun[specs[0].seed]).items()})
        )
        model = _stacked([begun[spec.seed] for spec in specs])
        del begun
        return _learn(model, train, measured, specs, size)

    def _begin(self, seed: int) -> Any:
        if self.begun is not None and self.name in self.begun:
            return self.begun[self.name]
        torch.manual_seed(seed)
        model = get_peft_model(copy.deepcopy(self.base), self.config(self.base))
        if self.begun is not None:
            self.begun[self.name] = model
        return model


@dataclass(frozen=True)
class Own:
    """A method that PEFT has not: its operators, made here."""

    base: PreTrainedModel
    make: MakeOperator

    def learn(
        self, train: Sequence[Example], measured: Mapping[str, Sequence[Example]], specs: Sequence[JobSpec]
    ) -> list[Learned | Diverged]:
        model = copy.deepcopy(self.base)
        stored: dict[str, Tensor] = {}
        for index, (name, module) in enumerate(find_targets(model, "all-linear").items()):
            operator = self.make(name, index, [spec.seed for spec in specs])
            if operator is not None:
                _put(model, name, Stacked(module, operator))
                stored |= {f"{name}.{key}": value[0].detach().cpu() for key, value in operator.named_parameters()}
        size = len(save({name: value.clone() for name, value in stored.items()}))
        return _learn(model, train, measured, specs, size)


@dataclass(frozen=True)
class Full:
    """Full fine-tuning, one run after another: float32 values, in the base's dtype for each pass."""

    base: PreTrainedModel

    def learn(
        self, train: Sequence[Example], measured: Mapping[str, Sequence[Example]], specs: Sequence[JobSpec]
    ) -> list[Learned | Diverged]:
        size = len(save({name: value.detach().cpu() for name, value in self.base.named_parameters()}))
        results = []
        for spec in specs:
            model = copy.deepcopy(self.base).requires_grad_(True)
            stack = Stack([parameter for parameter in model.parameters() if parameter.requires_grad], None)
            results += _run(model, stack, train, measured, [spec], size)
        return results


def _learn(
    model: Any,
    train: Sequence[Example],
    measured: Mapping[str, Sequence[Example]],
    specs: Sequence[JobSpec],
    size: int,
) -> list[Learned | Diverged]:
    model.requires_grad_(False)
    operators = [module.operator for module in model.modules() if isinstance(module, Stacked)]
    owners = [(operator, name) for operator in operators for name, _ in operator.named_parameters()]
    stack = Stack([getattr(operator, name) for operator, name in owners], len(specs))
    for (operator, name), leaf in zip(owners, stack.leaves, strict=True):
        setattr(operator, name, leaf)
    return _run(model, stack, train, measured, specs, size)


def _run(
    model: Any,
    stack: Stack,
    train: Sequence[Example],
    measured: Mapping[str, Sequence[Example]],
    specs: Sequence[JobSpec],
    size: int,
) -> list[Learned | Diverged]:
    finite = fit(model, stack, train, specs)
    scores = measure(model, stack, measured)
    return [
        Learned(own, stack.values.shape[1], size) if is_finite else Diverged("the loss is not a number")
        for own, is_finite in zip(scores, finite, strict=True)
    ]


def _stacked(models: Sequence[Any]) -> nn.Module:
    """One model of the base's class for what PEFT's models of K runs compute, each on its own rows; they stay."""
    names = list(_tuner_layers(models[0]))
    found = [dict(model.named_modules()) for model in models]
    made = {name: of_peft([modules[name] for modules in found]) for name in names}
    model: nn.Module = copy.deepcopy(models[0].get_base_model())
    for name, operator in made.items():
        inner = name.removeprefix("base_model.model.")
        layer: Any = model.get_submodule(inner)
        _put(model, inner, Stacked(layer.get_base_layer(), operator))
    return model


def _tuner_layers(model: nn.Module) -> Iterator[str]:
    return (name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
