"""The layer that PEFT puts around a targeted linear: one basis, the vectors of any number of adapters."""

import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from osora_core.basis import Basis, Factors
from osora_core.errors import UserError
from osora_core.operator import dense_update, osora_add, osora_update
from osora_core.tuner.config import OsoraConfig
from osora_core.tuner.vectors import AdapterVectors
from osora_core.weights import is_plain

BASE_ROW = "__base__"


@dataclass(frozen=True, eq=False)
class Mixture:
    """Which adapter each row of a batch uses. names: the adapters in it; slots [B]: 0 the base, i + 1 names[i].

    `banks` keeps each layer's stacked vectors for as long as the mixture lasts, which is a whole `generate`.
    """

    names: tuple[str, ...]
    slots: Tensor
    banks: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


mixture: ContextVar[Mixture | None] = ContextVar("osora_mixture", default=None)


class OsoraTunerLinear(nn.Module, BaseTunerLayer):
    """A frozen linear and what its adapters add to it; several active ones add up.

    U [d_out, R], S [R] and Vt [R, d_in] are there once, whatever the number of adapters; an adapter of rank r uses the
    first r triplets. `basis` is where they come from; further adapters of the model use it too.
    """

    adapter_layer_names = ("osora_sigma", "osora_delta")
    other_param_names = ("trains",)
    U: Tensor
    S: Tensor
    Vt: Tensor

    def __init__(self, base_layer: nn.Module, basis: Basis, key: str, adapter_name: str, config: OsoraConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.basis = basis
        device = cast(Tensor, base_layer.weight).device
        for name in ("U", "S", "Vt"):
            self.register_buffer(name, getattr(basis.factors[key], name).to(device), persistent=False)
        self.in_features, self.out_features = self.Vt.shape[1], self.U.shape[0]
        self.osora_sigma = AdapterVectors()
        self.osora_delta = AdapterVectors()
        self.trains: dict[str, str] = {}
        self.merged_adapters: list[str] = []
        self._unmerged: Tensor | None = None
        self._disable_adapters = False
        self._suspended: list[nn.Parameter] = []
        self._active_adapter: str | list[str] = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: OsoraConfig) -> None:
        """Add an adapter, which begins as the base unless the config asks for a random start."""
        S, device = self.S, self.U.device
        sigma = torch.zeros(min(cast(int, config.r), S.shape[0]), device=device)
        delta = torch.zeros(self.U.shape[0], device=device)
        if not config.init_weights:
            sigma = 0.1 * torch.randn_like(sigma) * S[: sigma.shape[0]].float()
            delta = 0.1 * torch.randn_like(delta)
        self.osora_sigma[adapter_name] = nn.Parameter(sigma)
        self.osora_delta[adapter_name] = nn.Parameter(delta)
        self.trains[adapter_name] = config.train
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        mixed = mixture.get()
        if mixed is not None:
            return self._add_mixture(x, y, mixed)
        for name in self.active_adapters:
            if name in self.osora_sigma:
                sigma, delta = self.osora_sigma[name], self.osora_delta[name]
                y = osora_add(x, y, self.U, self.S, self.Vt, sigma, delta)
        return y

    def _add_mixture(self, x: Tensor, y: Tensor, mixed: Mixture) -> Tensor:
        # Beams, returned sequences and flattened tokens all repeat a row's entries next to each other.
        repeats, rest = divmod(x.shape[0], len(mixed.slots))
        if rest:
            raise UserError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(mixed.slots)} and {x.shape[0]} respectively.",
                param="adapter_names",
                next_action="name one adapter for each row",
            )
        if id(self) not in mixed.banks:
            mixed.banks[id(self)] = self._bank(mixed.names)
        sigma, delta, ranks = mixed.banks[id(self)]
        slots = mixed.slots.to(x.device).repeat_interleave(repeats)
        update = osora_update(x.to(self.U.dtype), self.U, self.S, self.Vt, sigma, delta, slots, ranks)
        return y + update.to(y.dtype)

    def _bank(self, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """sigma [n, R], delta [n, d_out] and ranks [n] of the base (row 0) and of `names`."""
        sigma = torch.zeros(len(names) + 1, self.S.shape[0], device=self.S.device)
        delta = torch.zeros(len(names) + 1, self.U.shape[0], device=self.S.device)
        ranks = torch.zeros(len(names) + 1, dtype=torch.long, device=self.S.device)
        for row, name in enumerate(names, start=1):
            if name in self.osora_sigma:
                ranks[row] = rank = self.osora_sigma[name].shape[0]
                sigma[row, :rank], delta[row] = self.osora_sigma[name].detach(), self.osora_delta[name].detach()
        return sigma, delta, ranks

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold adapters into the weight. The sum is made in float64 and rounded once; the old weight is kept aside.

        Raises UserError if the weight is quantised or, with `safe_merge`, if the result is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.osora_sigma]
        if not names:
            return
        current = self._base_weight()
        if not is_plain(current):
            raise UserError(
                f"an adapter cannot be merged into a quantised weight ({type(current).__name__})",
                next_action="load the base without quantisation, then merge",
            )
        original = current.data if self._unmerged is None else self._unmerged
        merged = [*self.merged_adapters, *names]
        weight = original.double()
        for name in merged:
            weight += self._oriented(self._update(name))
        if safe_merge and not weight.isfinite().all():
            # The words of PEFT's own tuners, by which its callers know this error.
            raise UserError(
                f"NaNs detected in the merged weights. The adapter {', '.join(names)} seems to be broken",
                next_action="train it again with a lower learning rate",
            )
        self._unmerged = original
        self.merged_adapters = merged
        current.data = weight.to(original.dtype)

    def unmerge(self) -> None:
        """Bring back the base's weight, bit for bit."""
        if self._unmerged is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._base_weight().data = self._unmerged
        self._unmerged = None
        self.merged_adapters = []

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What an adapter adds to the weight, in the weight's own layout, float32."""
        return self._oriented(self._update(adapter)).float()

    def _update(self, name: str) -> Tensor:
        factors = Factors(self.U, self.S, self.Vt)
        return dense_update(factors, self.osora_sigma[name].detach(), self.osora_delta[name].detach())

    def _base_weight(self) -> Tensor:
        return cast(Tensor, self.get_base_layer().weight)

    def _oriented(self, dense: Tensor) -> Tensor:
        return dense.T if isinstance(self.get_base_layer(), Conv1D) else dense

    def combine(self, adapters: Sequence[str], into: str, combine: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """Set the vectors of adapter `into` to those of `adapters` combined, zeros where this layer has not one."""
        for vectors in (self.osora_sigma, self.osora_delta):
            zero = torch.zeros_like(vectors[into])
            found = [vectors[name].detach() if name in vectors else zero for name in adapters]
            with torch.no_grad():
                vectors[into].copy_(combine(found))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make these the active adapters; they train unless in inference mode, all others do not."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._active_adapter = names
        for name in {*names, *self.osora_sigma.in_use, *self.osora_delta.in_use}:
            self._place(name, trains=name in names and not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let adapters train or not, active or not."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            self._place(name, trains=requires_grad)

    def enable_adapters(self, enabled: bool) -> None:
        """Turn all adapters on or off. Off, nothing trains; on again, what trained before does."""
        if enabled == (not self._disable_adapters):
            return
        if not enabled:
            vectors = (self.osora_sigma, self.osora_delta)
            self._suspended = [p for part in vectors for p in part.parameters() if p.requires_grad]
        for parameter in self._suspended:
            parameter.requires_grad_(enabled)
        if enabled:
            self._suspended = []
        self._disable_adapters = not enabled

    def _place(self, name: str, trains: bool) -> None:
        """Let the vectors of an adapter train as its config says, and be registered if they do or are active."""
        for vectors, part in ((self.osora_sigma, "s"), (self.osora_delta, "o")):
            if name in vectors:
                trained = trains and self.trains[name] in ("both", part)
                vectors[name].requires_grad_(trained)
                vectors.use(name, trained or name in self.active_adapters)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """After a load onto meta parameters: to the base's device, and never to its dtype."""
        for vectors in (self.osora_sigma, self.osora_delta):
            if adapter_name in vectors and not vectors[adapter_name].is_meta:
                vectors[adapter_name].data = vectors[adapter_name].data.to(device or self.U.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "OsoraTunerLinear":
        """Follow moves and casts, with S in float32 and the weight that a merge put aside."""
        S = self.S
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.S = S.to(self.S.device)
        if self._unmerged is not None:
            self._unmerged = fn(self._unmerged)
        return self

    def __repr__(self) -> str:
        return "osora." + super().__repr__()
