"""The tuner: finds the basis of a base, checks that an adapter belongs to it, and wraps the targeted linears."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from osora_core.adapter import KEY_PREFIX
from osora_core.basis import Basis, BasisCache
from osora_core.errors import CorruptArtifact, UserError
from osora_core.identity import Identity, mismatch
from osora_core.tuner.config import OsoraConfig
from osora_core.tuner.layer import BASE_ROW, Mixture, OsoraTunerLinear, mixture
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
        if self._basis is None:
            assert config.basis_rank is not None
            cpu = torch.device("cpu")
            wanted = Identity(config.base_fingerprint, config.basis_fingerprint, config.basis_probe)
            self._basis = BasisCache.default().get(self.model, ALL_LINEAR, config.basis_rank, cpu, wanted)
        self._check_identity(config, self._basis)
        if config.target_modules == ALL_LINEAR:
            config.target_modules = set(self._basis.target_modules)
        if not config.inference_mode:
            # What is about to be trained will not answer as the published adapter did.
            config.canary = None
        return config

    @staticmethod
    def _check_identity(config: OsoraConfig, basis: Basis) -> None:
        if config.basis_rank != basis.rank:
            raise UserError(
                f"the adapter wants a basis of rank {config.basis_rank}, this model has one of rank {basis.rank}",
                param="basis_rank",
                next_action="load it on a fresh copy of the base, or give all adapters the same basis_rank",
            )
        for what, mine, theirs in (
            ("base", config.base_fingerprint, basis.base_fingerprint),
            ("basis", config.basis_fingerprint, basis.fingerprint),
        ):
            if mine is not None and mine != theirs:
                raise mismatch(what, mine, theirs, "load it on a fresh copy of the base that it names")
        config.base_fingerprint, config.basis_fingerprint = basis.base_fingerprint, basis.fingerprint
        config.basis_probe = basis.stored.probe

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool:
        """Whether a module is targeted. As in PEFT, but a choice of layers holds for full names and patterns too."""
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
        factors = self._basis.factors.get(current_key)
        if factors is None:
            raise UserError(
                f"{current_key} ({type(target).__name__}) has no place in the basis",
                param="target_modules",
                next_action=f"choose from {', '.join(self._basis.target_modules)}, or 'all-linear'",
            )
        layer = OsoraTunerLinear(target, factors, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.set_adapter([])
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Nothing to do: the vectors are float32 on every base."""

    @contextmanager
    def _enable_peft_forward_hooks(
        self, *args: Any, adapter_names: list[str] | None = None, **_: Any
    ) -> Iterator[None]:
        """Where PEFT hands over `adapter_names`, one for each row of the batch; "__base__" is the bare base."""
        if adapter_names is None:
            yield
            return
        if self.training:
            raise UserError("adapter_names is for inference; call model.eval() first", param="adapter_names")
        layers = [module for module in self.modules() if isinstance(module, OsoraTunerLinear)]
        if any(layer.merged for layer in layers):
            raise UserError("adapter_names needs an unmerged model; call unmerge_adapter first", param="adapter_names")
        names = sorted(set(adapter_names) - {BASE_ROW})
        unknown = set(names) - self.peft_config.keys()
        if unknown:
            raise UserError(
                f"there is no adapter {', '.join(sorted(unknown))}",
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
        """An adapter's vectors, in use or not; those of `state_dict` where it has them (gathered shards)."""
        vectors = _vectors(model, adapter_name)
        return {f"{key}.{adapter_name}": state_dict.get(f"{key}.{adapter_name}", v) for key, v in vectors.items()}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Names of a stored adapter to names of the model. Raises CorruptArtifact unless every vector is there."""
        vectors = _vectors(model, adapter_name)
        stored = {KEY_PREFIX + key.removeprefix(KEY_PREFIX): key for key in vectors}
        wrong = sorted(stored.keys() ^ state_dict.keys())
        if wrong:
            what = "lacks" if wrong[0] in stored else "holds, beyond what its config names,"
            raise CorruptArtifact(f"the stored adapter {what} {wrong[0]} ({len(wrong)} differences in all)")
        for name, key in stored.items():
            if state_dict[name].shape != vectors[key].shape:
                raise CorruptArtifact(
                    f"{name} has shape {tuple(state_dict[name].shape)}, this base wants {tuple(vectors[key].shape)}"
                )
        return {f"{key}.{adapter_name}": state_dict[name] for name, key in stored.items()}


def _vectors(model: nn.Module, adapter_name: str) -> dict[str, Tensor]:
    """An adapter's vectors by their name in the model, without the adapter's own."""
    return {
        f"{name}.{part}": getattr(layer, part)[adapter_name].detach()
        for name, layer in model.named_modules()
        if isinstance(layer, OsoraTunerLinear) and adapter_name in layer.osora_sigma
        for part in layer.adapter_layer_names
    }


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
