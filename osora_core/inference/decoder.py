"""One token of every row through a Llama-like decoder: transformers' own modules, wired for a step of decoding.

Half of a decoding step's time on a CPU goes into what is around the products. Here a step runs the same weights, norms
and rotary embedding with fewer operations; prompts take transformers' way.
Shapes: B rows, H query heads, G key/value heads, D head size, d hidden size.
"""

from typing import Any

import torch
from torch import Tensor

from osora_core.inference.cache import CacheView
from osora_core.inference.lanes import Lanes
from osora_core.runtime import Runtime

# What these have in common is all that there is to them: norm, rotary attention (with a norm on q and k or a bias
# where the module has one), norm, gated MLP.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


class Decoder:
    """A decoding step over a runtime's modules, for the families of FAMILIES."""

    def __init__(self, runtime: Runtime) -> None:
        model: Any = runtime.model.base_model
        self._embed = model.embed_tokens
        self._layers = list(model.layers)
        self._norm = model.norm
        self._rotary = model.rotary_emb

    @staticmethod
    def supports(runtime: Runtime) -> bool:
        """Whether this is a family that is known, on a device where it pays."""
        return runtime.device.type == "cpu" and runtime.model.config.model_type in FAMILIES

    def hidden_states(self, tokens: Tensor, positions: Tensor, cache: CacheView, lanes: Lanes) -> Tensor:
        """Last hidden states [B, d] of tokens [B] at positions [B] of the first B pool rows."""
        x = self._embed(tokens)
        rank = lanes.ranks(tokens.shape[0])
        cos, sin = (part[0].unsqueeze(1) for part in self._rotary(x, position_ids=positions.unsqueeze(0)))
        for index, layer in enumerate(self._layers):
            x = x + self._attention(index, layer.self_attn, layer.input_layernorm(x), cos, sin, cache, lanes, rank)
            mlp, h = layer.mlp, layer.post_attention_layernorm(x)
            gated = mlp.act_fn(lanes.linear(mlp.gate_proj, h, rank)) * lanes.linear(mlp.up_proj, h, rank)
            x = x + lanes.linear(mlp.down_proj, gated, rank)
        hidden: Tensor = self._norm(x)
        return hidden

    def _attention(
        self, index: int, module: Any, h: Tensor, cos: Tensor, sin: Tensor, cache: CacheView, lanes: Lanes, rank: int
    ) -> Tensor:
        rows, size = h.shape[0], module.head_dim
        query, key, value = (
            lanes.linear(linear, h, rank).view(rows, -1, size)
            for linear in (module.q_proj, module.k_proj, module.v_proj)
        )
        if hasattr(module, "q_norm"):
            query, key = module.q_norm(query), module.k_norm(key)
        heads = query.shape[1]
        turned = _rotate(torch.cat((query, key), dim=1), cos, sin)
        out = cache.attend_one(index, turned[:, :heads], turned[:, heads:], value, module.scaling)
        return lanes.linear(module.o_proj, out, rank)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, heads, D], halves paired as in Llama; cos and sin [B, 1, D]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
