"""The tuner: finds the basis of a base, checks that an adapter belongs to it, and wraps the targeted linears."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from osora_common.ranks import DEFAULT_RANK, Rank, default_rank
from osora_core.basis import Basis, BasisCache
from osora_core.errors import UserError
from osora_core.identity import Identity, mismatch
from osora_core.tuner import state
from osora_core.tuner.combine import Combination, MajoritySign, check_combinable, combination, combined_config
from osora_core.tuner.config import OsoraConfig
from osora_core.tuner.layer import BASE_ROW, Mixture, OsoraTunerLinear, mixture
from osora_core.tuner.state import COMPILED
from osora_core.weights import ALL_LINEAR


class OsoraModel(BaseTuner):
    """A base with OSoRA adapters.

    The basis is that of all linears of the base, whatever an adapter targets, so that all adapters of a base share
    one. It comes from `BasisCache.default()` ($OSORA_CACHE or ~/.cache/osora) and is computed there at the first use
    of a base; the second adapter on a model reads nothing and copies nothing.
    """

    prefix = "osora_"
    tuner_layer_cls = OsoraTunerLinear
    _basis: Basis | None = None

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> OsoraConfig:
        """Tie the config to base and basis, or refuse it. PEFT calls this before it changes anything."""
        config: OsoraConfig = peft_config
        # A model can be given adapters one by one without this wrapper: the first one's layers know the basis.
        self._basis = next((layer.basis for layer in self._layers()), None)
        if self._basis is None:
            cpu = torch.device("cpu")
            wanted = Identity(config.base_fingerprint, config.basis_fingerprint, config.basis_probe)
            self._basis = BasisCache.default().get(self._base(), ALL_LINEAR, self._basis_rank(config), cpu, wanted)
        self._check_identity(config, self._basis)
        if config.target_modules == ALL_LINEAR:
            config.target_modules = self._all_linear(self._basis)
        if not config.inference_mode:
            # What is about to be trained will not answer as the published adapter did.
            config.canary = None
        return config

    def _base(self) -> nn.Module:
        """The base, without torch.compile around it."""
        base: nn.Module = getattr(self.model, COMPILED, self.model)
        return base

    def _layers(self) -> Iterator[OsoraTunerLinear]:
        return (module for module in self.model.modules() if isinstance(module, OsoraTunerLinear))

    def _all_linear(self, basis: Basis) -> set[str]:
        """The basis's modules by the ends of their names, or in full where other modules end so too (a head's)."""
        ends = set(basis.target_modules)
        matched = {name for name, _ in self._base().named_modules() if name.rpartition(".")[2] in ends}
        return ends if matched <= basis.factors.keys() else set(basis.factors)

    def _basis_rank(self, config: OsoraConfig) -> Rank:
        """How many triplets an adapter's basis is to have, where it says nothing else."""
        if config.basis_rank is not None or config.r == "full":
            return config.basis_rank or "full"
        return max(config.r, default_rank(sum(p.numel() for p in self._base().parameters())))

    @staticmethod
    def _check_identity(config: OsoraConfig, basis: Basis) -> None:
        for what, mine, theirs in (
            ("base", config.base_fingerprint, basis.base_fingerprint),
            ("basis", config.basis_fingerprint, basis.fingerprint),
        ):
            if mine not in (None, theirs) and not (what == "basis" and basis.holds(str(mine))):
                raise mismatch(what, str(mine), theirs, "load it on a fresh copy of the base that it names")
        is_new = config.basis_fingerprint is None
        config.r = _rank_on(basis, config) if is_new else config.r
        if min(cast(int, config.r), basis.full_rank) > basis.rank:
            raise UserError(
                f"the adapter wants a basis of rank {config.r}, this model has one of rank {basis.rank}",
                param="basis_rank",
                next_action="load it on a fresh copy of the base, or give its first adapter a higher basis_rank",
            )
        if is_new:
            made_on = basis.for_rank(cast(int, config.r))
            config.base_fingerprint, config.basis_fingerprint = basis.base_fingerprint, made_on.fingerprint
            config.basis_rank, config.basis_probe = made_on.rank, made_on.probe

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool:
        """Whether a module is targeted. As in PEFT, but a choice of layers holds for full names and patterns too."""
        if any(f".{saved}." in f".{key}." for saved in peft_config.modules_to_save or ()):
            return False
        targets = peft_config.target_modules
        if isinstance(targets, str):
            named = re.fullmatch(targets, key) is not None
        else:
            named = any(key == target or key.endswith(f".{target}") for target in targets)
        return named and _in_layers(peft_config, key)

    def _create_and_replace(
        self, peft_config: Any, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module,
        current_key: str, parameter_name: str | None = None,
    ) -> None:  # fmt: skip
        if isinstance(target, OsoraTunerLinear):
            target.update_layer(adapter_name, peft_config)
            return
        assert self._basis is not None
        current_key = current_key.removeprefix(f"{COMPILED}.")
        if isinstance(target, ModulesToSaveWrapper):
            raise UserError(
                f"{current_key} is saved whole by another adapter (modules_to_save)",
                param="target_modules",
                next_action="leave it out here, or load this adapter on a fresh copy of the base",
            )
        if current_key not in self._basis.factors:
            raise UserError(
                f"{current_key} ({type(target).__name__}) has no place in the basis",
                param="target_modules",
                next_action=f"choose from {', '.join(self._basis.target_modules)}, or 'all-linear'",
            )
        layer = OsoraTunerLinear(target, self._basis, current_key, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.set_adapter([])
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Nothing to do: the vectors are float32 on every base."""

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: Combination = "linear",
        density: float | None = None,
        majority_sign_method: MajoritySign = "total",
    ) -> None:
        """Add an adapter whose vectors are those of `adapters`, combined; see `osora_core.tuner.combine`.

        It is not active, and trains once it is. Raises UserError (a ValueError) for adapters that are not there or
        hold modules of their own, for a name in use, and for what `combination` refuses.
        """
        combine = combination(weights, combination_type, density, majority_sign_method)
        check_combinable(self.peft_config, adapters, weights, adapter_name)
        layers = {
            name: layer
            for name, layer in self.model.named_modules()
            if isinstance(layer, OsoraTunerLinear) and any(adapter in layer.osora_sigma for adapter in adapters)
        }
        configs = [cast(OsoraConfig, self.peft_config[name]) for name in adapters]
        self.peft_config[adapter_name] = combined_config(configs, set(layers))
        self.inject_adapter(self.model, adapter_name)
        for layer in layers.values():
            layer.combine(adapters, adapter_name, combine)

    # What a caller of PEFT can get wrong is refused in the words of PEFT's own tuners, by which callers know it.
    @contextmanager
    def _enable_peft_forward_hooks(
        self, *args: Any, adapter_names: list[str] | None = None, **_: Any
    ) -> Iterator[None]:
        """Where PEFT hands over `adapter_names`, one for each row of the batch; "__base__" is the bare base."""
        if adapter_names is None:
            yield
            return
        if self.training:
            raise UserError(
                "Cannot pass `adapter_names` when the model is in training mode.",
                param="adapter_names",
                next_action="call model.eval() first",
            )
        if any(layer.merged for layer in self._layers()):
            raise UserError(
                "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first.",
                param="adapter_names",
            )
        names = sorted(set(adapter_names) - {BASE_ROW})
        unknown = set(names) - self.peft_config.keys()
        if unknown:
            raise UserError(
                f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}",
                param="adapter_names",
                next_action=f"choose from {', '.join(self.peft_config)}, or {BASE_ROW!r}",
            )
        slots = torch.tensor([0 if name == BASE_ROW else names.index(name) + 1 for name in adapter_names])
        token = mixture.set(Mixture(tuple(names), slots))
        try:
            yield
        finally:
            mixture.reset(token)

    @classmethod
    def _get_adapter_state_dict(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:  # fmt: skip
        return state.of_adapter(model, adapter_name, state_dict)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return state.to_load(model, adapter_name, state_dict)


def _rank_on(basis: Basis, config: OsoraConfig) -> int:
    """The rank of a new adapter. Raises UserError for one that no weight has, but for the default."""
    if config.r == "full":
        return basis.full_rank
    if config.r > max(basis.full_rank, DEFAULT_RANK):
        raise UserError(
            f"r is {config.r}, and the largest full rank of this base's weights is {basis.full_rank}",
            param="r",
            next_action=f"choose 1 to {basis.full_rank}, or 'full'",
        )
    return config.r


def _in_layers(config: OsoraConfig, key: str) -> bool:
    """Whether a module lies in one of the layers that the config chooses."""
    layers, patterns = config.layers_to_transform, config.layers_pattern or [r"[^.]+"]
    if layers is None:
        return True
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        match = re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", key)
        if match is not None:
            return int(match[1]) in ([layers] if isinstance(layers, int) else layers)
    return False
