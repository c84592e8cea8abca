"""The tokens of many rows through a Llama-like decoder: transformers' own modules, wired for serving.

Half of a decoding step's time on a CPU goes into what is around the products. Here the same weights, norms and rotary
embedding run with fewer operations, and adapters with no more triplets than the batch has.
Shapes: B rows, T tokens a row, H query heads, G key/value heads, D head size, d hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from osora_core.inference.cache import CacheView
from osora_core.inference.lanes import Lanes
from osora_core.linear import OsoraLinear
from osora_core.runtime import Runtime

Linear = Callable[[OsoraLinear, Tensor], Tensor]

# What these have in common is all that there is to them: norm, rotary attention (with a norm on q and k or a bias
# where the module has one), norm, gated MLP.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


class Decoder:
    """The decoder layers of a runtime's model, for the families of FAMILIES."""

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

    def hidden_states(self, tokens: Tensor, cache: CacheView, lanes: Lanes) -> Tensor:
        """Last hidden states [B, T, d] of tokens [B, T] at the cache's rows and positions."""
        x = self._embed(tokens)
        start = cache.start
        rank = lanes.rank(start, tokens.shape[0])
        cos, sin = (part.unsqueeze(2) for part in self._rotary(x, position_ids=cache.positions))

        def linear(layer: OsoraLinear, x: Tensor) -> Tensor:
            return lanes.linear(layer, x, start, rank)

        for index, layer in enumerate(self._layers):
            x = x + self._attention(index, layer.self_attn, layer.input_layernorm(x), cos, sin, cache, linear)
            mlp, h = layer.mlp, layer.post_attention_layernorm(x)
            x = x + linear(mlp.down_proj, mlp.act_fn(linear(mlp.gate_proj, h)) * linear(mlp.up_proj, h))
        hidden: Tensor = self._norm(x)
        return hidden

    def _attention(
        self, index: int, module: Any, h: Tensor, cos: Tensor, sin: Tensor, cache: CacheView, linear: Linear
    ) -> Tensor:
        rows, steps, size = *h.shape[:2], module.head_dim
        query, key, value = (
            linear(layer, h).view(rows, steps, -1, size) for layer in (module.q_proj, module.k_proj, module.v_proj)
        )
        if hasattr(module, "q_norm"):
            query, key = module.q_norm(query), module.k_norm(key)
        heads = query.shape[2]
        turned = _rotate(torch.cat((query, key), dim=2), cos, sin)
        query, key = turned[:, :, :heads], turned[:, :, heads:]
        if steps == 1:
            out = cache.attend_one(index, query[:, 0], key[:, 0], value[:, 0], module.scaling)
        else:
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            out = cache.attend(index, query, key, value, module.scaling)
        return linear(module.o_proj, out.reshape(rows, steps, -1))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, T, heads, D], halves paired as in Llama; cos and sin [B, T, 1, D]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
