"""The decoder layers of a small Llama-like base as dense weights, W0 + update, for the tokens of one slot.

On a CPU half of a small base's training step goes into what surrounds the matrix products. Here transformers' own
weights are laid out anew: linears that read the same input are one product, the norms' weights are part of the linears
behind them, and what concerns the adapter alone is done for all layers at once. Forward and backward are by hand.

Shapes: L layers, N tokens of a pass, d hidden size, H query heads, G key/value heads, D head size, F the MLP's inner
size, R a module's triplets, P / L the values of a slot's vectors in one layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.families import FAMILIES
from osora_core.linear import OsoraLinear
from osora_core.merged_attention import LONGEST, Attended, Attention, Text, normalize, unnormalized
from osora_core.weights import is_plain

MOST_VALUES = 2**25
"""Of the layers' weights. They are there three times: as the base has them, laid out, and with an update."""

_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


@dataclass(frozen=True)
class _Stack:
    """The linears of one name in all layers: U [L, d_out, R], S [L, R], Vt [L, R, d_in]. outputs: where theirs are
    among the group's; sigma, delta: where theirs are among the values of a layer."""

    U: Tensor
    S: Tensor
    Vt: Tensor
    outputs: slice
    sigma: slice
    delta: slice

    def own(self, vectors: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """sigma [L, 1, r], s0 + sigma [L, 1, r] and delta [L, d_out, 1] in the vectors [L, P / L] of a slot."""
        sigma = vectors[:, self.sigma][:, :rank].unsqueeze(1)
        return sigma, self.S[:, :rank].unsqueeze(1) + sigma, vectors[:, self.delta].unsqueeze(2)


class _Group:
    """Linears that read the same input, as one: weight [L, outputs, d_in], bias [L, outputs] if they have one."""

    def __init__(self, layers: Sequence[Sequence[OsoraLinear]], norms: Sequence[Tensor] | None, basis: Basis) -> None:
        """layers: the linears of each layer; norms: the weights [d_in] of the norm before them, if there is one."""
        scales = None if norms is None else torch.stack([*norms]).unsqueeze(1)

        def laid_out(tensors: Sequence[Tensor]) -> Tensor:
            stacked = torch.stack([*tensors])
            return stacked if scales is None else stacked * scales

        self.weight = laid_out([torch.cat([_base(linear).weight for linear in linears]) for linears in layers])
        biases: list[list[Tensor]] = [[_base(linear).bias for linear in linears] for linears in layers]
        self.bias = None if biases[0][0] is None else torch.stack([torch.cat(own) for own in biases])
        self._stacks: list[_Stack] = []
        first = 0
        for linears in zip(*layers, strict=True):
            span = basis.spans[linears[0].index]
            U, S = (torch.stack([getattr(linear, name) for linear in linears]) for name in ("U", "S"))
            Vt = laid_out([linear.Vt for linear in linears])
            outputs = slice(first, first + span.d_out)
            self._stacks.append(_Stack(U, S.to(U.dtype), Vt, outputs, span.sigma, span.delta))
            first += span.d_out

    @property
    def costs(self) -> tuple[int, int]:
        """Products that a dense weight takes, and those that it saves a token, over R; see `operator.choice`."""
        shapes = [(stack.U.shape[1], stack.Vt.shape[2]) for stack in self._stacks]
        layers = len(self.weight)
        return sum(2 * layers * out * d_in for out, d_in in shapes), sum(
            layers * (d_in + 4 * out) for out, d_in in shapes
        )

    def merged(self, vectors: Tensor, rank: int) -> Tensor:
        """W0 + U * (sigma + delta (s0 + sigma)) V^T of each linear, [L, outputs, d_in]; see
        `operator.factored.lora_factor`."""
        dense = torch.empty_like(self.weight)
        for stack in self._stacks:
            sigma, scale, delta = stack.own(vectors, rank)
            factor = torch.addcmul(sigma, delta, scale).mul_(stack.U[..., :rank])
            torch.baddbmm(self.weight[:, stack.outputs], factor, stack.Vt[:, :rank], out=dense[:, stack.outputs])
        return dense

    def gradients(self, vectors: Tensor, rank: int, x: Tensor, g: Tensor, into: Tensor) -> None:
        """Write dL/dsigma and dL/ddelta into `into` [L, P / L], from inputs x [L, N, d_in] and g [L, N, outputs].

        With M = U * (g^T z): dL/dsigma = (1 + delta)^T M and dL/ddelta = M (s0 + sigma).
        """
        for stack in self._stacks:
            _, scale, delta = stack.own(vectors, rank)
            z = x @ stack.Vt[:, :rank].mT
            moment = (g[..., stack.outputs].mT @ z).mul_(stack.U[..., :rank])
            into[:, stack.sigma][:, :rank] = ((1 + delta).mT @ moment).squeeze(1)
            into[:, stack.delta] = (moment @ scale.mT).squeeze(2)


class MergedDecoder:
    """The decoder layers of a model, for slots of a bank over its all-linear `basis`."""

    def __init__(self, model: Any, basis: Basis) -> None:
        self._model = model.base_model
        layers = [*self._model.layers]
        norms = ([layer.input_layernorm.weight for layer in layers], None,
                 [layer.post_attention_layernorm.weight for layer in layers], None)  # fmt: skip
        self.groups = [
            _Group([_linears(layer, names) for layer in layers], before, basis)
            for names, before in zip(_GROUPS, norms, strict=True)
        ]
        self.attentions = [Attention(layer.self_attn) for layer in layers]
        self.epsilon = layers[0].input_layernorm.variance_epsilon
        self._costs = [0, 0]
        for group in self.groups:
            self._costs = [sum(pair) for pair in zip(self._costs, group.costs, strict=True)]

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
        weights = [_base(linear).weight for linear in linears]
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

    def hidden_states(
        self, tokens: Tensor, places: Tensor, lengths: Sequence[int], bank: Bank | None = None, slot: int = 0
    ) -> Tensor:
        """Last hidden states [N, d] of tokens [N] at their places [N], sequences of these lengths one after another.

        All with the vectors of one slot, which gather gradients where the bank is trainable; without a bank, of the
        bare base.
        """
        x = self._model.embed_tokens(tokens)
        cos, sin = (part[0] for part in self._model.rotary_emb(x, position_ids=places.unsqueeze(0)))
        if bank is None:
            run = _Run(self, [group.weight for group in self.groups], Text(cos, sin, lengths))
            bare: Tensor = self._model.norm(run.forward(x))
            return bare
        vectors = bank.values[slot].detach().to(x.dtype).view(len(self.attentions), -1)
        rank = int(bank.ranks[slot])
        run = _Run(self, [group.merged(vectors, rank) for group in self.groups], Text(cos, sin, lengths))
        views = [view for pair in bank.layers for view in pair]
        if torch.is_grad_enabled() and views[0].requires_grad:
            x = _Decoding.apply(run, x, vectors, rank, slot, *views)  # type: ignore[no-untyped-call]
        else:
            x = run.forward(x)
        hidden: Tensor = self._model.norm(x)
        return hidden


def _base(linear: OsoraLinear) -> nn.Linear:
    return cast(nn.Linear, linear.base)


def _linears(layer: Any, names: Sequence[str]) -> list[OsoraLinear]:
    return [getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name) for name in names]


class _Decoding(torch.autograd.Function):
    """The layers for a slot of a trainable bank, whose views are given so that their gradients can be returned."""

    @staticmethod
    def forward(ctx: Any, run: "_Run", x: Tensor, vectors: Tensor, rank: int, slot: int, *views: Tensor) -> Tensor:
        ctx.run, ctx.vectors, ctx.rank, ctx.slot = run, vectors, rank, slot
        ctx.shapes = [(view.shape, view.dtype) for view in views]
        hidden = run.forward(x, keeps=True)
        # The run holds them as well. Here autograd's hooks see them, as they see what any other pass keeps.
        ctx.save_for_backward(*run.kept)
        return hidden

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        run, ctx.run = ctx.run, None
        row = run.backward(grad_outputs[0], ctx.vectors, ctx.rank).flatten()
        (rows, _), dtype = ctx.shapes[0]
        grads = row.new_zeros(rows, len(row), dtype=dtype)
        grads[ctx.slot] = row
        return (None, None, None, None, None, *torch.split(grads, [shape[1] for shape, _ in ctx.shapes], dim=1))


class _Run:
    """One pass: what the layers computed of it, and with which weights."""

    def __init__(self, decoder: MergedDecoder, weights: Sequence[Tensor], text: Text) -> None:
        self._decoder, self._weights, self._text = decoder, weights, text
        # Of each layer, for the backward pass: what the norms divided by, and what attention knows.
        self._layers: list[tuple[Tensor, Tensor, Attended]] = []

    def _buffers(self, tokens: int, like: Tensor, layers: int) -> None:
        """Room for so many layers: what each group reads [layers, N, d_in] and gives, and silu(gate)."""
        shapes = [weight.shape[1:] for weight in self._weights]
        self._inputs = [like.new_empty(layers, tokens, read) for _, read in shapes]
        self._outputs = [like.new_empty(layers, tokens, given) for given, _ in shapes]
        self._opened = like.new_empty(layers, tokens, shapes[3][1])

    @property
    def kept(self) -> list[Tensor]:
        """All that is there until the backward pass."""
        attended = [part for *_, of_layer in self._layers for part in of_layer if part is not None]
        norms = [factor for first, second, _ in self._layers for factor in (first, second)]
        return [*self._weights, *self._inputs, *self._outputs, self._opened, *attended, *norms]

    def _product(self, group: int, layer: int, x: Tensor, out: Tensor) -> Tensor:
        bias = self._decoder.groups[group].bias
        weight = self._weights[group][layer].T
        return torch.mm(x, weight, out=out) if bias is None else torch.addmm(bias[layer], x, weight, out=out)

    def forward(self, x: Tensor, keeps: bool = False) -> Tensor:
        """Hidden states [N, d] behind the last layer, of embeddings x [N, d]."""
        decoder, epsilon = self._decoder, self._decoder.epsilon
        self._buffers(len(x), x, len(decoder.attentions) if keeps else 1)
        for layer, attention in enumerate(decoder.attentions):
            place = layer if keeps else 0
            (h, seen, m, inner), (qkv, mixed, both, added) = (
                [own[place] for own in stacked] for stacked in (self._inputs, self._outputs)
            )
            first = normalize(x, epsilon, out=h)
            attended = attention.forward(self._product(0, layer, h, qkv), self._text, out=seen)
            x = x + self._product(1, layer, seen, mixed)
            second = normalize(x, epsilon, out=m)
            gate, up = self._product(2, layer, m, both).chunk(2, dim=1)
            opened = torch.ops.aten.silu.out(gate, out=self._opened[place])
            x = x + self._product(3, layer, torch.mul(opened, up, out=inner), added)
            if keeps:
                self._layers.append((first, second, attended))
        return x

    def backward(self, g: Tensor, vectors: Tensor, rank: int) -> Tensor:
        """dL/d vectors [L, P / L], from that of what `forward` returned, g [N, d]."""
        decoder = self._decoder
        # Gradients take the places of the outputs that they are of.
        qkv, mixed, both, added = self._outputs
        added[-1] = g
        for layer in range(len(self._layers) - 1, -1, -1):
            first, second, attended = self._layers[layer]
            g = added[layer]
            inner = g @ self._weights[3][layer]
            gate, up = both[layer].chunk(2, dim=1)
            opened = inner * up
            torch.mul(inner, self._opened[layer], out=up)
            torch.ops.aten.silu_backward.grad_input(opened, gate, grad_input=gate)
            h = both[layer] @ self._weights[2][layer]
            g = torch.add(g, unnormalized(h, self._inputs[2][layer], second), out=mixed[layer])
            decoder.attentions[layer].backward(g @ self._weights[1][layer], attended, self._text, into=qkv[layer])
            if layer > 0:  # below the first there is nothing to learn
                h = qkv[layer] @ self._weights[0][layer]
                torch.add(g, unnormalized(h, self._inputs[0][layer], first), out=added[layer - 1])
        grads = torch.zeros_like(vectors)
        for group, inputs, outputs in zip(decoder.groups, self._inputs, self._outputs, strict=True):
            group.gradients(vectors, rank, inputs, outputs, grads)
        return grads
