"""One attention function for both engines, plugged into unmodified transformers models.

Shapes: B rows, H query heads, G key/value heads, T query positions, S key positions, D head size, Dv value size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig

NAME = "osora"


def register() -> None:
    """Make the function known to transformers. No mask function belongs to it: transformers then builds none."""
    AttentionInterface.register(NAME, attend)


@dataclass(frozen=True)
class Attending:
    """How a layer attends, beside causally. scaling: of scores, None for 1 / sqrt(D). window: a query sees its own and
    the `window - 1` positions before. softcap: scores become softcap * tanh(scores / softcap). sinks [H]: a score a
    head that takes part in the softmax and has no value."""

    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


class Cache(Protocol):
    """What holds the keys and values of the positions before those of this forward."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
        """Take in key and value [B, G, T, D] of a layer, attend query [B, H, T, D] to all so far: [B, T, H, D]."""


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cache: Cache | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of query [B, H, T, D] over key [B, G, T, D] and value [B, G, T, Dv]; returns [B, T, H, Dv].

    Without a cache, rows are padded on the right only, so that causality alone keeps padding out of every real token.
    With one, keys and values go into it and the queries attend to all that it holds of their rows so far.
    With `lengths`, B counts tokens and T is 1: sequences of these lengths one after another, each seen by itself alone.

    What else a model asks of its attention (masks and biases of its own) is ignored here: `osora_core.base_check` finds
    that out and refuses the model.
    """
    how = Attending(scaling, sliding_window, softcap, s_aux)
    if cache is not None:
        return cache.attend(cast(int, module.layer_idx), query, key, value, how), None
    if lengths is not None:
        return _attend_flat(query, key, value, lengths, how), None
    return _attend_causally(query, key, value, how).transpose(1, 2), None


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
    """Positions of the same texts [B, H, T, D] and [B, G, T, D] -> [B, H, T, Dv]."""
    steps = query.shape[2]
    window = how.window if how.window is not None and how.window < steps else None
    masked = window is not None or how.softcap is not None or how.sinks is not None
    return weigh(query, key, value, causal(steps, window, query.device) if masked else None, how)


def _attend_flat(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], how: Attending) -> Tensor:
    """query [N, H, 1, D], key and value [N, G, 1, D] of all sequences -> [N, 1, H, Dv]."""
    # [H, N, D], and then [1, H, T, D] of each sequence.
    queries, keys, values = (torch.split(x.squeeze(2).transpose(0, 1), [*lengths], dim=1) for x in (query, key, value))
    seen = [
        _attend_causally(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), how)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(seen, dim=2).permute(2, 0, 1, 3)


def weigh(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, how: Attending) -> Tensor:
    """Values [B, H, T, Dv] weighed for query [B, H, T, D] by key [B, G, S, D]; value [B, G, S, Dv].

    mask: bool, broadcastable to [B, 1, T, S], true where a query sees a key; None is causal. The window is the mask's.
    """
    heads, groups = query.shape[1], key.shape[1]
    if how.softcap is None and how.sinks is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=how.scaling, enable_gqa=heads != groups
        )
    assert mask is not None
    rows, _, steps, size = query.shape
    scaling = size**-0.5 if how.scaling is None else how.scaling
    folded = query.reshape(rows, groups, heads // groups, steps, size)
    scores = (folded @ key.unsqueeze(2).transpose(-1, -2)).float() * scaling
    if how.softcap is not None:
        scores = (scores / how.softcap).tanh() * how.softcap
    scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
    if how.sinks is not None:
        sinks = how.sinks.float().view(1, groups, heads // groups, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, sinks), dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[2]].to(value.dtype)
    return (weights @ value.unsqueeze(2)).reshape(rows, heads, steps, value.shape[-1])


@lru_cache(maxsize=8)
def causal(steps: int, window: int | None, device: torch.device) -> Tensor:
    """The mask [1, 1, T, T] of as many positions in a row."""
    places = torch.arange(steps, device=device)
    ago = places.unsqueeze(1) - places
    seen = ago >= 0
    if window is not None:
        seen &= ago < window
    return seen.unsqueeze(0).unsqueeze(0)


def shortest_window(config: PreTrainedConfig) -> int | None:
    """The sliding window of whichever layers of a model have one; None where all see everything before them."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not isinstance(window, int) or not getattr(config, "use_sliding_window", True):
        return None
    return window if kinds is None or any("sliding" in str(kind) for kind in kinds) else None
