"""Attention of a small base's layers over the tokens of a pass, forward and backward by hand.

Shapes: N tokens of a pass in B sequences, the longest of T tokens; H query heads, G key/value heads, D head size.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from osora_core.attention import causal

LONGEST = 256
"""Tokens of a sequence whose attention is kept for the backward pass, H T T weights a layer. Beyond that, tiles as in
torch's own attention are better."""


class Text:
    """Whose tokens a pass has, and where. Beside the flat layout [N] there is a padded one for attention, [B, T]."""

    def __init__(self, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> None:
        """cos and sin [N, D] of the tokens' places; lengths of the B sequences."""
        self.cos, self.sin = cos.unsqueeze(1), sin.unsqueeze(1)
        self.rows, self.steps = len(lengths), max(lengths)
        places = torch.arange(self.steps)
        real = places < torch.tensor(lengths).unsqueeze(1)
        # Where each token is in the padded layout [N], and which token is there [B T]: the first, where it is padding.
        self.flat = real.flatten().nonzero().squeeze(1)
        self.padded = torch.zeros(real.numel(), dtype=torch.long).index_copy_(0, self.flat, torch.arange(len(cos)))

    @lru_cache(maxsize=2)  # noqa: B019 -- a text lives as long as its pass
    def mask(self, folded: int, window: int | None) -> Tensor:
        """[h T, T], for h query heads that share keys: 0 where a query sees a key, else -inf. Padding is on the right,
        so that causality keeps it out of every real token."""
        mask = torch.zeros(self.steps, self.steps, dtype=self.cos.dtype)
        return mask.masked_fill_(~causal(self.steps, window, self.cos.device)[0, 0], -torch.inf).repeat(folded, 1)


class Attended(NamedTuple):
    """For the backward pass, with the h = H / G query heads of a key as one: query [G B, h T, D], key and value
    [G B, T, D], weights [G B, h T, T]; where heads have a norm, what it made of them and what it divided by."""

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    heads: Tensor | None
    divisor: Tensor | None


class Attention:
    """Attention of a layer, from the outputs of q_proj, k_proj and v_proj to the input of o_proj."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._size, self._scaling = module.head_dim, module.scaling
        self._queries, self._pairs = (
            linear.base.out_features // self._size for linear in (module.q_proj, module.k_proj)
        )
        self._folded = self._queries // self._pairs
        self._norm: Tensor | None = None
        if hasattr(module, "q_norm"):
            parts = ((module.q_norm, self._queries), (module.k_norm, self._pairs))
            self._norm = torch.cat([norm.weight.expand(count, -1) for norm, count in parts])
            self._epsilon = module.q_norm.variance_epsilon

    @property
    def _window(self) -> int | None:
        module = self._module
        window: int | None = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
        return window

    def forward(self, qkv: Tensor, text: Text, out: Tensor) -> Attended:
        """Write what the tokens see into `out` [N, H D], from qkv [N, (H + 2 G) D]."""
        turning = self._queries + self._pairs
        heads = qkv.view(len(qkv), -1, self._size)
        normed = divisor = None
        turned = heads[:, :turning]
        if self._norm is not None:
            divisor = normalize(turned, self._epsilon, out=(normed := torch.empty_like(turned)))
            turned = normed * self._norm
        ready = torch.empty_like(heads)
        _rotate(turned, text.cos, text.sin, out=ready[:, :turning])
        ready[:, turning:] = heads[:, turning:]
        padded = ready.view(len(qkv), -1).index_select(0, text.padded)
        query, key, value = self._split(padded, text)
        scores = torch.baddbmm(text.mask(self._folded, self._window), query, key.mT, alpha=self._scaling)
        weights = torch.softmax(scores, dim=-1)
        seen = self._join(weights @ value, text, self._queries)
        torch.index_select(seen, 0, text.flat, out=out)
        return Attended(query, key, value, weights, normed, divisor)

    def backward(self, g: Tensor, attended: Attended, text: Text, into: Tensor) -> None:
        """Write the gradient of qkv into `into` [N, (H + 2 G) D], from that of what was seen, g [N, H D]."""
        query, key, value, weights, normed, divisor = attended
        padded = g.new_zeros(len(text.padded), g.shape[1]).index_copy_(0, text.flat, g)
        seen = self._fold(padded.view(text.rows, text.steps, -1, self._size))
        scores = torch._softmax_backward_data(seen @ value.mT, weights, -1, weights.dtype)
        grads = [
            self._join(scores @ key, text, self._queries),
            self._join(scores.mT @ query, text, self._pairs),
            self._join(weights.mT @ seen, text, self._pairs),
        ]
        flat = torch.cat(grads, dim=1).index_select(0, text.flat).view(len(g), -1, self._size)
        turning = self._queries + self._pairs
        heads = into.view(flat.shape)
        # The scores' scaling belongs to the gradients of both their factors.
        _rotate(flat[:, :turning], self._scaling * text.cos, -self._scaling * text.sin, out=heads[:, :turning])
        if normed is not None and divisor is not None:
            assert self._norm is not None
            heads[:, :turning] = unnormalized(heads[:, :turning] * self._norm, normed, divisor)
        heads[:, turning:] = flat[:, turning:]

    def _split(self, padded: Tensor, text: Text) -> tuple[Tensor, Tensor, Tensor]:
        """[B T, (H + 2 G) D] -> query [G B, h T, D], key and value [G B, T, D]."""
        heads = padded.view(text.rows, text.steps, -1, self._size)
        rest = heads[:, :, self._queries :].view(text.rows, text.steps, 2, self._pairs, self._size)
        key, value = rest.permute(2, 3, 0, 1, 4).flatten(1, 2)
        return self._fold(heads[:, :, : self._queries]), key, value

    def _fold(self, heads: Tensor) -> Tensor:
        """[B, T, H, D] -> [G B, h T, D]."""
        parted = heads.reshape(*heads.shape[:2], self._pairs, self._folded, self._size)
        return parted.permute(2, 0, 3, 1, 4).flatten(2, 3).flatten(0, 1)

    def _join(self, values: Tensor, text: Text, heads: int) -> Tensor:
        """[G B, h T, D] -> [B T, H D] for H = `heads`, G of which have keys of their own."""
        parted = values.view(self._pairs, text.rows, heads // self._pairs, text.steps, self._size)
        return parted.permute(1, 3, 0, 2, 4).reshape(len(text.padded), -1)


def normalize(x: Tensor, epsilon: float, out: Tensor) -> Tensor:
    """Write x [..., k] over its root mean square into `out`; returns one over that, [..., 1]."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    factor: Tensor = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
    torch.mul(x, factor, out=out)
    return factor


def unnormalized(g: Tensor, normalized: Tensor, factor: Tensor) -> Tensor:
    """The gradient of x, from that of what `normalize` made of it; g is overwritten."""
    along = (g * normalized).mean(dim=-1, keepdim=True)
    return g.addcmul_(normalized, along, value=-1).mul_(factor)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Write the rotary embedding of x [N, heads, D] into `out`, halves paired as in Llama; -sin turns back."""
    half = x.shape[-1] // 2
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
