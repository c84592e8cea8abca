"""The vectors of many adapters on one layer, of which torch sees only those in use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class AdapterVectors(nn.ParameterDict):
    """One vector per adapter name, always float32. Only those in use are registered parameters.

    Everything PEFT does on loading or switching an adapter walks all parameters and state of the model. With a
    hundred adapters registered, the hundredth takes as long as the ninety-nine before it together. The vector of an
    idle adapter is therefore kept apart: it is found by name and moves with the module, but no walk and no optimizer
    sees it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._idle: dict[str, nn.Parameter] = {}

    def __getitem__(self, key: str) -> Any:
        return self._idle[key] if key in self._idle else super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._idle.pop(key, None)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.use(key, True)
        super().__delitem__(key)

    @property
    def in_use(self) -> list[str]:
        """The names whose vectors are registered."""
        return list(self._parameters)

    def use(self, key: str, in_use: bool) -> None:
        """Register a vector, or keep it apart."""
        if in_use and key in self._idle:
            self.register_parameter(key, self._idle.pop(key))
        elif not in_use and key not in self._idle:
            self._idle[key] = self[key]
            delattr(self, key)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AdapterVectors":
        """Follow moves between devices but not casts: all are small differences, which bfloat16 loses."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        for vector in self._idle.values():
            vector.data = move(vector.data)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take what is there, idle or not. Whether it is all of an adapter, `OsoraModel` has seen to."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name, value = key.removeprefix(prefix), state_dict[key]
            if name not in self:
                unexpected_keys.append(key)
            elif value.shape != self[name].shape:
                error_msgs.append(f"{key} has shape {tuple(value.shape)}, the layer wants {tuple(self[name].shape)}")
            elif self[name].is_meta:
                self._materialise(name, value)
            else:
                with torch.no_grad():
                    self[name].copy_(value)

    def _materialise(self, name: str, value: Tensor) -> None:
        placed = nn.Parameter(value.detach().to(torch.float32, copy=True), requires_grad=self[name].requires_grad)
        if name in self._idle:
            self._idle[name] = placed
        else:
            self._parameters[name] = placed
