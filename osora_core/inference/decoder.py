"""The tokens of many rows through a Llama-like decoder: transformers' own weights, wired for serving on a CPU.

On a CPU half of a decoding step's time goes into what surrounds the matrix products. Here the same modules run with
fewer operations, and an adapter's update takes no more triplets than the batch's largest rank.
Shapes: N tokens of a pass, H query heads, G key/value heads, D head size, d hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.families import FAMILIES
from osora_core.inference.segments import Segment, linear
from osora_core.runtime import Runtime


class Decoder:
    """The decoder layers of a runtime's model, for the families of FAMILIES."""

    def __init__(self, runtime: Runtime) -> None:
        model: Any = runtime.model.base_model
        self._embed = model.embed_tokens
        self._layers = [_Layer(module) for module in model.layers]
        self._norm = _Norm(model.norm)
        self._rotary = model.rotary_emb

    @staticmethod
    def supports(runtime: Runtime) -> bool:
        """Whether this is a family that is known, on a device where it pays."""
        return runtime.device.type == "cpu" and runtime.model.config.model_type in FAMILIES

    def hidden_states(self, tokens: Tensor, positions: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Last hidden states [N, d] of tokens [N] at their rows' positions [N]."""
        x = self._embed(tokens)
        cos, sin = (part.squeeze(0).unsqueeze(1) for part in self._rotary(x, position_ids=positions.unsqueeze(0)))
        for index, layer in enumerate(self._layers):
            x = layer(index, x, cos, sin, segments)
        return self._norm(x)


class _Layer:
    """One decoder layer. What it needs of transformers' modules is looked up once: a module's attributes are slow."""

    def __init__(self, module: Any) -> None:
        attention, mlp = module.self_attn, module.mlp
        self._qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._o, self._gate, self._up, self._down = attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self._before_attention, self._before_mlp = _Norm(module.input_layernorm), _Norm(module.post_attention_layernorm)
        self._q_norm, self._k_norm = (
            _Norm(getattr(attention, name)) if hasattr(attention, name) else None for name in ("q_norm", "k_norm")
        )
        self._size, self._scaling = attention.head_dim, attention.scaling
        self._activation = mlp.act_fn

    def __call__(self, index: int, x: Tensor, cos: Tensor, sin: Tensor, segments: Sequence[Segment]) -> Tensor:
        """x [N, d] after layer `index`."""
        query, key, value = self._heads(self._before_attention(x), segments)
        heads = query.shape[1]
        turned = _rotate(torch.cat((query, key), dim=1), cos, sin)
        query, key = turned[:, :heads], turned[:, heads:]
        seen = [segment.attend(index, query, key, value, self._scaling) for segment in segments]
        x = x + linear(self._o, seen[0] if len(seen) == 1 else torch.cat(seen), segments)
        h = self._before_mlp(x)
        gated = self._activation(linear(self._gate, h, segments)) * linear(self._up, h, segments)
        return x + linear(self._down, gated, segments)

    def _heads(self, h: Tensor, segments: Sequence[Segment]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, D], keys and values [N, G, D]."""
        query, key, value = (linear(layer, h, segments).view(len(h), -1, self._size) for layer in self._qkv)
        if self._q_norm is not None and self._k_norm is not None:
            query, key = self._q_norm(query), self._k_norm(key)
        return query, key, value


class _Norm:
    """A root mean square norm with the module's weights."""

    def __init__(self, module: Any) -> None:
        self._weight, self._epsilon = module.weight, module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self._weight.shape, self._weight, self._epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [N, heads, D], halves paired as in Llama; cos and sin [N, 1, D]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
