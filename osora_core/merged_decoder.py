"""The decoder layers of a small Llama-like base as dense weights, W0 + update, for the tokens of one slot.

On a CPU half of a small base's training step goes into what surrounds the matrix products. Here transformers' own
weights are laid out anew: linears that read the same input are one product, the norms' weights are part of the linears
behind them, and what concerns the adapter alone is done for all layers at once. Forward and backward are by hand.

Shapes: L layers, N tokens of a pass, d hidden size, H query heads, G key/value heads, D head size, F the MLP's inner
size, R a module's triplets, P / L the values of a slot's vectors in one layer.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.families import FAMILIES
from osora_core.linear import OsoraLinear
from osora_core.merged_attention import LONGEST, Attended, Attention, Text, normalize, unnormalized
from osora_core.merged_linears import Group, Slot, base_of
from osora_core.weights import is_plain

MOST_VALUES = 2**25
"""Of the layers' weights. They are there three times: as the base has them, laid out, and with an update."""

_PART_TOKENS = 48
"""Tokens that are worth a thread of their own."""

P = TypeVar("P")
T = TypeVar("T")

_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


class MergedDecoder:
    """The decoder layers of a model, for slots of a bank over its all-linear `basis`."""

    def __init__(self, model: Any, basis: Basis) -> None:
        self._model = model.base_model
        layers = [*self._model.layers]
        norms = ([layer.input_layernorm.weight for layer in layers], None,
                 [layer.post_attention_layernorm.weight for layer in layers], None)  # fmt: skip
        self.groups = [
            Group([_linears(layer, names) for layer in layers], before, basis)
            for names, before in zip(_GROUPS, norms, strict=True)
        ]
        self.attentions = [Attention(layer.self_attn) for layer in layers]
        self.epsilon = layers[0].input_layernorm.variance_epsilon
        self._costs = [0, 0]
        for group in self.groups:
            self._costs = [sum(pair) for pair in zip(self._costs, group.costs, strict=True)]
        self._threads = ThreadPoolExecutor(
            os.cpu_count(), "part-of-a-pass", initializer=torch.set_num_threads, initargs=(1,)
        )

    @staticmethod
    def supports(model: Any, basis: Basis) -> bool:
        """Whether this is a small model of a family that is known, in full precision on a CPU, and its linears are what
        they seem."""
        config = model.config
        if config.model_type not in FAMILIES or config.hidden_act != "silu" or model.device.type != "cpu":
            return False
        layers = [_linears(layer, [name for names in _GROUPS for name in names]) for layer in model.base_model.layers]
        linears = [linear for layer in layers for linear in layer]
        if not all(isinstance(linear, OsoraLinear) and type(linear.base) is nn.Linear for linear in linears):
            return False
        weights = [base_of(linear).weight for linear in linears]
        return (
            all(is_plain(weight) and weight.dtype in (torch.float32, torch.float64) for weight in weights)
            and sum(weight.numel() for weight in weights) <= MOST_VALUES
            and len(linears) == len(basis.spans)
            # A layer's vectors lie together, in the same order in each.
            and all(
                basis.spans[linear.index].start - basis.spans[first.index].start
                == index * basis.row_length // len(layers)
                for index, layer in enumerate(layers)
                for linear, first in zip(layer, layers[0], strict=True)
            )
        )

    def pays(self, lengths: Sequence[int]) -> bool:
        """Whether sequences of these lengths take fewer products this way than through the factors of each linear, and
        are short enough for their attention to be kept whole."""
        dense, saved = self._costs
        return sum(lengths) * saved > dense and max(lengths) <= LONGEST

    def each(self, work: Callable[[P], T], parts: Sequence[P]) -> list[T]:
        """What `work` makes of each part, on a thread each."""
        if len(parts) == 1:
            return [work(parts[0])]
        inference = torch.is_inference_mode_enabled()

        def alone(part: P) -> T:
            # Both are a thread's own settings.
            with torch.inference_mode(inference), torch.no_grad():
                return work(part)

        return list(self._threads.map(alone, parts))

    def merged(self, slot: Slot) -> list[Tensor]:
        """The weights [L, outputs, d_in] of each group with the update of a slot."""
        weights = [torch.empty_like(group.weight) for group in self.groups]

        def merge(layers: slice) -> None:
            for group, into in zip(self.groups, weights, strict=True):
                group.merge(slot, layers, into)

        self.each(merge, self.layer_parts())
        return weights

    def layer_parts(self) -> list[slice]:
        """The layers, in as many parts as there are threads for."""
        layers = len(self.attentions)
        count = min(torch.get_num_threads(), layers)
        return [slice(layers * part // count, layers * (part + 1) // count) for part in range(count)]

    def hidden_states(
        self, tokens: Tensor, places: Tensor, lengths: Sequence[int], bank: Bank | None = None, slot: int = 0
    ) -> Tensor:
        """Last hidden states [N, d] of tokens [N] at their places [N], sequences of these lengths one after another.

        All with the vectors of one slot, which gather gradients where the bank is trainable; without a bank, of the
        bare base.
        """
        x = self._model.embed_tokens(tokens)
        cos, sin = (part[0] for part in self._model.rotary_emb(x, position_ids=places.unsqueeze(0)))
        parts = _parts(cos, sin, lengths)
        if bank is None:
            run = _Run(self, [group.weight for group in self.groups], parts)
            bare: Tensor = self._model.norm(run.forward(x))
            return bare
        own = Slot.of(bank, slot, len(self.attentions), x.dtype)
        run = _Run(self, self.merged(own), parts)
        views = [view for pair in bank.layers for view in pair]
        if torch.is_grad_enabled() and views[0].requires_grad:
            x = _Decoding.apply(run, x, own, slot, bank.mixes.get(slot), *views)  # type: ignore[no-untyped-call]
        else:
            x = run.forward(x)
        hidden: Tensor = self._model.norm(x)
        return hidden


@dataclass
class _Part:
    """Sequences of a pass that are computed together: where their tokens are in it, and what is kept of each layer for
    the backward pass: what the norms divided by, and what attention knows."""

    tokens: slice
    text: Text
    layers: list[tuple[Tensor, Tensor, Attended]] = field(default_factory=list)


def _parts(cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> list[_Part]:
    """The sequences in as many parts of about equally many tokens as there are threads for, and tokens worth it.

    Threads that share each of so small products wait for each other more than they compute.
    """
    ends = [0, *accumulate(lengths)]
    count = min(torch.get_num_threads(), len(lengths), ends[-1] // _PART_TOKENS) or 1
    # The first sequence of each part: the one whose begin is nearest to its share of the tokens.
    begins = range(len(lengths))
    firsts = [min(begins, key=lambda at: abs(ends[at] - share * ends[-1] / count)) for share in range(count)]
    bounds = [*dict.fromkeys(firsts), len(lengths)]
    parts = []
    for first, last in pairwise(bounds):
        tokens = slice(ends[first], ends[last])
        parts.append(_Part(tokens, Text(cos[tokens], sin[tokens], lengths[first:last])))
    return parts


def _linears(layer: Any, names: Sequence[str]) -> list[OsoraLinear]:
    return [getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name) for name in names]


class _Decoding(torch.autograd.Function):
    """The layers for a slot of a trainable bank, whose mix and views are given so that their gradients can be
    returned."""

    @staticmethod
    def forward(ctx: Any, run: "_Run", x: Tensor, own: Slot, slot: int, mix: Tensor | None, *views: Tensor) -> Tensor:
        ctx.run, ctx.own, ctx.slot = run, own, slot
        ctx.shapes = [(view.shape, view.dtype) for view in views]
        hidden = run.forward(x, keeps=True)
        # The run holds them as well. Here autograd's hooks see them, as they see what any other pass keeps.
        ctx.save_for_backward(*run.kept)
        return hidden

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        run, ctx.run = ctx.run, None
        of_vectors, of_mix = run.backward(grad_outputs[0], ctx.own)
        row, of_mix = of_vectors.flatten(), None if of_mix is None else of_mix.flatten()
        (rows, _), dtype = ctx.shapes[0]
        grads = row.new_zeros(rows, len(row), dtype=dtype)
        grads[ctx.slot] = row
        return (None, None, None, None, of_mix, *torch.split(grads, [shape[1] for shape, _ in ctx.shapes], dim=1))


class _Run:
    """One pass: what the layers computed of it, and with which weights."""

    def __init__(self, decoder: MergedDecoder, weights: Sequence[Tensor], parts: Sequence[_Part]) -> None:
        self._decoder, self._weights, self._parts = decoder, weights, parts

    def _buffers(self, tokens: int, like: Tensor, layers: int) -> None:
        """Room for so many layers: what each group reads [layers, N, d_in] and gives, and silu(gate)."""
        shapes = [weight.shape[1:] for weight in self._weights]
        self._inputs = [like.new_empty(layers, tokens, read) for _, read in shapes]
        self._outputs = [like.new_empty(layers, tokens, given) for given, _ in shapes]
        self._opened = like.new_empty(layers, tokens, shapes[3][1])

    @property
    def kept(self) -> list[Tensor]:
        """All that is there until the backward pass."""
        layers = [layer for part in self._parts for layer in part.layers]
        attended = [tensor for *_, of_layer in layers for tensor in of_layer if tensor is not None]
        norms = [factor for first, second, _ in layers for factor in (first, second)]
        return [*self._weights, *self._inputs, *self._outputs, self._opened, *attended, *norms]

    def _product(self, group: int, layer: int, x: Tensor, out: Tensor) -> Tensor:
        bias = self._decoder.groups[group].bias
        weight = self._weights[group][layer].T
        return torch.mm(x, weight, out=out) if bias is None else torch.addmm(bias[layer], x, weight, out=out)

    def forward(self, x: Tensor, keeps: bool = False) -> Tensor:
        """Hidden states [N, d] behind the last layer, of embeddings x [N, d]."""
        self._buffers(len(x), x, len(self._decoder.attentions) if keeps else 1)
        return torch.cat(self._decoder.each(lambda part: self._forward(part, x[part.tokens], keeps), self._parts))

    def _forward(self, part: _Part, x: Tensor, keeps: bool) -> Tensor:
        decoder, epsilon = self._decoder, self._decoder.epsilon
        for layer, attention in enumerate(decoder.attentions):
            place = layer if keeps else 0
            (h, seen, m, inner), (qkv, mixed, both, added) = (
                [own[place, part.tokens] for own in stacked] for stacked in (self._inputs, self._outputs)
            )
            first = normalize(x, epsilon, out=h)
            attended = attention.forward(self._product(0, layer, h, qkv), part.text, out=seen)
            x = x + self._product(1, layer, seen, mixed)
            second = normalize(x, epsilon, out=m)
            gate, up = self._product(2, layer, m, both).chunk(2, dim=1)
            opened = torch.ops.aten.silu.out(gate, out=self._opened[place, part.tokens])
            x = x + self._product(3, layer, torch.mul(opened, up, out=inner), added)
            if keeps:
                part.layers.append((first, second, attended))
        return x

    def backward(self, g: Tensor, slot: Slot) -> tuple[Tensor, Tensor | None]:
        """dL/d vectors [L, P / L], and dL/d mix [L, M / L] if there is one, from that of what `forward` returned,
        g [N, d]."""
        self._decoder.each(lambda part: self._backward(part, g[part.tokens]), self._parts)
        grads = torch.zeros_like(slot.vectors)
        mix_grads = None if slot.mix is None else torch.zeros_like(slot.mix)

        def learn(layers: slice) -> None:
            for group, inputs, outputs in zip(self._decoder.groups, self._inputs, self._outputs, strict=True):
                group.gradients(slot, layers, inputs, outputs, grads, mix_grads)

        self._decoder.each(learn, self._decoder.layer_parts())
        return grads, mix_grads

    def _backward(self, part: _Part, g: Tensor) -> None:
        """Leave the gradients of outputs in their places."""
        attentions = self._decoder.attentions
        qkv, mixed, both, added = ([*own[:, part.tokens]] for own in self._outputs)
        inputs = [[*own[:, part.tokens]] for own in self._inputs]
        added[-1].copy_(g)
        for layer in range(len(attentions) - 1, -1, -1):
            first, second, attended = part.layers[layer]
            g = added[layer]
            inner = g @ self._weights[3][layer]
            gate, up = both[layer].chunk(2, dim=1)
            opened = inner * up
            torch.mul(inner, self._opened[layer, part.tokens], out=up)
            torch.ops.aten.silu_backward.grad_input(opened, gate, grad_input=gate)
            h = both[layer] @ self._weights[2][layer]
            g = torch.add(g, unnormalized(h, inputs[2][layer], second), out=mixed[layer])
            attentions[layer].backward(g @ self._weights[1][layer], attended, part.text, into=qkv[layer])
            if layer > 0:  # below the first there is nothing to learn
                h = qkv[layer] @ self._weights[0][layer]
                torch.add(g, unnormalized(h, inputs[0][layer], first), out=added[layer - 1])
