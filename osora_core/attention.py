"""One attention function for both engines, plugged into unmodified transformers models.

Shapes: B rows, H query heads, G key/value heads, T query positions, D head size.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

if TYPE_CHECKING:
    from osora_core.inference.cache import CacheView

NAME = "osora"


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
    cache: "CacheView | None" = None,
    lengths: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of query [B, H, T, D] over key, value [B, G, T, D]; returns [B, T, H, D].

    Without a cache, rows are padded on the right only, so that causality alone keeps padding out of every real token.
    With one, keys and values go into its rows and the queries attend to all that these rows hold so far.
    With `lengths`, B counts tokens and T is 1: sequences of these lengths, one after another, each seen by itself alone.
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
    # [H, N, D] and then one sequence's [1, H, T, D]
    split = ([part.unsqueeze(0) for part in x.squeeze(2).transpose(0, 1).split(lengths, 1)] for x in (query, key, value))
    seen = [_attend_causally(*sequence, scaling) for sequence in zip(*split, strict=True)]
    return torch.cat(seen, dim=2).permute(2, 0, 1, 3)
