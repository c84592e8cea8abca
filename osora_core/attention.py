"""One attention function for both engines, plugged into unmodified transformers models.

Shapes: B rows, H query heads, G key/value heads, T query positions, D head size.
"""

from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

NAME = "osora"


class Cache(Protocol):
    """What holds the keys and values of the positions before those of this forward."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Take in key and value [B, G, T, D] of a layer, attend query [B, H, T, D] to all so far: [B, T, H, D]."""


def register() -> None:
    """Make the function known to transformers. No mask function belongs to it: transformers then builds none."""
    AttentionInterface.register(NAME, attend)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cache: Cache | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of query [B, H, T, D] over key, value [B, G, T, D]; returns [B, T, H, D].

    Without a cache, rows are padded on the right only, so that causality alone keeps padding out of every real token.
    With one, keys and values go into it and the queries attend to all that it holds of their rows so far.
    """
    if cache is None:
        grouped = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
        return out.transpose(1, 2), None
    return cache.attend(cast(int, module.layer_idx), query, key, value, scaling), None
