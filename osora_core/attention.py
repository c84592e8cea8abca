"""One attention function for both engines, plugged into unmodified transformers models.

Shapes: B rows, H query heads, G key/value heads, T query positions, D head size.
"""

from collections.abc import Sequence
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
    lengths: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of query [B, H, T, D] over key, value [B, G, T, D]; returns [B, T, H, D].

    Without a cache, rows are padded on the right only, so that causality alone keeps padding out of every real token.
    With one, keys and values go into it and the queries attend to all that it holds of their rows so far.
    With `lengths`, B counts tokens and T is 1: sequences of these lengths, one after another, each seen by itself.
    """
    if lengths is not None:
        return _attend_flat(query, key, value, lengths, scaling), None
    if cache is None:
        return _attend_causally(query, key, value, scaling).transpose(1, 2), None
    return cache.attend(cast(int, module.layer_idx), query, key, value, scaling), None


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)


def _attend_flat(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float | None) -> Tensor:
    """query [N, H, 1, D], key and value [N, G, 1, D] of all sequences -> [N, 1, H, D]."""
    # [H, N, D], and then [1, H, T, D] of each sequence.
    queries, keys, values = (torch.split(x.squeeze(2).transpose(0, 1), [*lengths], dim=1) for x in (query, key, value))
    seen = [
        _attend_causally(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), scaling)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(seen, dim=2).permute(2, 0, 1, 3)
