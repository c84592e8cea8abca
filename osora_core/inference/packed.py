"""Execution on a GPU: tokens packed without padding, groups of linears as one product, adapters inside the kernels.

Prompts and decoding share one forward: N tokens, each with its slot, position and pool row. Decoding is captured in
CUDA graphs by batch size, once without and once with adapters; loads, evictions, joins and leaves change only what the
graphs read. Shapes: N tokens, d hidden size, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from osora_core import kernels
from osora_core.bank import Bank
from osora_core.basis import is_plain
from osora_core.inference.cache import KVPool
from osora_core.inference.decoder import FAMILIES
from osora_core.kernels.group import Group
from osora_core.linear import OsoraLinear
from osora_core.runtime import Runtime

if kernels.available():
    from osora_core.kernels.attention import Blocks, attend, block_size
    from osora_core.kernels.expand import Heads, Tokens, Vectors, embed, gate, heads, residual

_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
# What a GPU should have to do: fewer programs than this and a row's attention is split among more of them.
_PROGRAMS = 256
_MOST_SPLITS = 16


@dataclass(frozen=True)
class _Layer:
    qkv: Group
    o: Group
    gate_up: Group
    down: Group


# A model's weights are laid out once, however many engines run on it.
_layers: "WeakKeyDictionary[nn.Module, list[_Layer]]" = WeakKeyDictionary()


def _linears(layer: Any) -> list[list[OsoraLinear]]:
    return [
        [getattr(layer.self_attn if name in "q_proj k_proj v_proj o_proj" else layer.mlp, name) for name in names]
        for names in _PROJECTIONS
    ]


class PackedDecoder:
    """The decoder layers of a runtime's model over packed tokens."""

    def __init__(self, runtime: Runtime, length: int) -> None:
        model: Any = runtime.model.base_model
        if runtime.model not in _layers:
            spans = runtime.basis.spans
            _layers[runtime.model] = [
                _Layer(*(Group.stack(linears, spans) for linears in _linears(layer))) for layer in model.layers
            ]
        self._layers = _layers[runtime.model]
        self._table = model.embed_tokens.weight
        self._norms = [
            norm for layer in model.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        ]
        self._norms.append(model.norm)
        attention = model.layers[0].self_attn
        size = attention.head_dim
        places = torch.arange(length, device=runtime.device).unsqueeze(0)
        cos, sin = (part[0, :, : size // 2].contiguous() for part in model.rotary_emb(self._table, position_ids=places))
        self._scaling = attention.scaling
        queries, pairs = (linear.base.out_features // size for linear in (attention.q_proj, attention.k_proj))
        self._heads = [Heads(queries, pairs, size, cos, sin, _head_norms(layer.self_attn)) for layer in model.layers]

    @staticmethod
    def supports(runtime: Runtime) -> bool:
        """Whether the kernels compute this model: a family that is known, in a shape and dtype that they take."""
        config: Any = runtime.model.config
        if not kernels.available() or runtime.device.type != "cuda" or config.model_type not in FAMILIES:
            return False
        for layer in runtime.model.base_model.layers:  # type: ignore[union-attr]
            size = layer.self_attn.head_dim
            grouped = _linears(layer)
            if size < 32 or size & (size - 1) or config.hidden_act != "silu":
                return False
            if any(linear.base.bias is not None for linears in grouped[1:] for linear in linears):
                return False
            bases = [linear.base for linears in grouped for linear in linears]
            if any(type(base) is not nn.Linear or not is_plain(base.weight) for base in bases):
                return False
        return True

    @property
    def folded(self) -> int:
        """Query heads a key/value head."""
        return self._heads[0].queries // self._heads[0].pairs

    @property
    def pairs(self) -> int:
        """Key/value heads."""
        return self._heads[0].pairs

    def hidden_states(
        self, ids: Tensor, tokens: "Tokens", blocks: "Blocks", pool: KVPool, vectors: "Vectors | None"
    ) -> Tensor:
        """Last hidden states [N, d] of tokens ids [N]; without vectors those of the bare base."""
        adapted = vectors is not None
        norms = iter(self._norms)
        norm = next(norms)
        stream = embed(ids, self._table, norm.weight)
        for index, (layer, plan) in enumerate(zip(self._layers, self._heads, strict=True)):
            keys, values = pool.keys[index], pool.values[index]
            y = layer.qkv.apply(stream.h, adapted)
            query = heads(y, layer.qkv, tokens, vectors, stream, norm.variance_epsilon, plan, keys, values)
            y = layer.o.apply(attend(query, keys, values, tokens, blocks, self._scaling), adapted)
            norm = next(norms)
            residual(y, layer.o, tokens, vectors, stream, norm.weight)
            y = layer.gate_up.apply(stream.h, adapted)
            mixed = gate(y, layer.gate_up, tokens, vectors, stream, norm.variance_epsilon)
            y = layer.down.apply(mixed, adapted)
            norm = next(norms)
            residual(y, layer.down, tokens, vectors, stream, norm.weight)
        mean = stream.squares.sum(dim=-1, keepdim=True) / stream.x.shape[1]
        return (stream.h * torch.rsqrt(mean + norm.variance_epsilon)).to(stream.x.dtype)


def _head_norms(attention: Any) -> tuple[Tensor, Tensor, float] | None:
    if not hasattr(attention, "q_norm"):
        return None
    return attention.q_norm.weight, attention.k_norm.weight, attention.q_norm.variance_epsilon


class Packed:
    """An execution (`osora_core.inference.execution`) that moves no keys, values or vectors when rows change places."""

    def __init__(self, runtime: Runtime, pool: KVPool, bank: Bank) -> None:
        self._runtime = runtime
        self._pool = pool
        self._decoder = PackedDecoder(runtime, pool.length)
        self._vectors = Vectors(bank.values, bank.ranks)
        # Of every batch row: its bank slot, and the pool row that holds its keys and values.
        self._slots = [0] * pool.rows
        self._lines = list(range(pool.rows))
        self._steps: dict[tuple[int, bool], _Step] = {}
        if runtime.device.type == "cuda":
            memory = torch.cuda.graph_pool_handle()
            # The largest first: the smaller ones then fit into its memory.
            for size in reversed(_sizes(pool.rows)):
                for adapted in (True, False):
                    self._steps[size, adapted] = _Step(self._decode_forward, size, adapted, memory)

    def join(self, row: int, slot: int, rank: int) -> None:
        self._slots[row] = slot

    def move(self, source: int, target: int, length: int) -> None:
        lines = self._lines
        lines[target], lines[source] = lines[source], lines[target]
        self._slots[target] = self._slots[source]

    def leave(self, row: int, length: int) -> None:
        """Nothing: what a row held is read by nobody, because lengths are known."""

    def read(self, start: int, chunks: Sequence[tuple[int, ...]], cached: Sequence[int]) -> list[Tensor]:
        lengths = [len(chunk) for chunk in chunks]
        rows = range(start, start + len(chunks))
        folded = self._decoder.folded
        longest = block_size(folded)
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        lines: list[int] = []
        firsts: list[int] = []
        counts: list[int] = []
        for row, chunk, begin in zip(rows, chunks, cached, strict=True):
            for offset in range(0, len(chunk), longest):
                firsts.append(len(ids) + offset)
                counts.append(min(longest, len(chunk) - offset))
            ids += chunk
            slots += [self._slots[row]] * len(chunk)
            positions += range(begin, begin + len(chunk))
            lines += [self._lines[row]] * len(chunk)
        columns = (ids, slots, positions, lines, firsts, counts)
        packed = torch.tensor([*chain(*columns)], dtype=torch.int32).to(self._runtime.device)
        parts = torch.split(packed, [len(column) for column in columns])
        blocks = Blocks(parts[4], parts[5], _tile(max(counts) * folded), 1)
        adapted = any(self._slots[row] for row in rows)
        hidden = self._decoder.hidden_states(
            parts[0], Tokens(*parts[1:4]), blocks, self._pool, self._vectors if adapted else None
        )
        return list(torch.split(hidden, lengths))

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        count = len(tokens)
        slots = self._slots[:count]
        columns = torch.tensor([tokens, slots, positions, self._lines[:count]], dtype=torch.int32)
        adapted = any(slots)
        if not self._steps:
            return self._decode_forward(columns.to(self._runtime.device), adapted)
        size = min(size for size, _ in self._steps if size >= count)
        return self._steps[size, adapted](columns)

    def _decode_forward(self, columns: Tensor, adapted: bool) -> Tensor:
        """Logits [N, vocabulary] of one token a row: columns [4, N] int32 are ids, slots, positions, pool rows."""
        ids, slots, positions, lines = columns
        firsts = torch.arange(ids.shape[0], dtype=torch.int32, device=ids.device)
        blocks = Blocks(
            firsts, torch.ones_like(firsts), _tile(self._decoder.folded),
            min(_MOST_SPLITS, _power(_PROGRAMS // (ids.shape[0] * self._decoder.pairs))),
        )  # fmt: skip
        hidden = self._decoder.hidden_states(
            ids, Tokens(slots, positions, lines), blocks, self._pool, self._vectors if adapted else None
        )
        return self._runtime.logits(hidden)


class _Step:
    """A captured step of decoding for up to `size` rows."""

    def __init__(self, forward: Any, size: int, adapted: bool, memory: Any) -> None:
        self._host = torch.zeros(4, size, dtype=torch.int32, pin_memory=True)
        self._host[2] = -1
        self._columns = self._host.cuda()
        with torch.inference_mode():
            # Compiles the kernels and lets cuBLAS choose, neither of which may happen while it is captured.
            forward(self._columns, adapted)
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=memory):
                self._logits = forward(self._columns, adapted)

    def __call__(self, columns: Tensor) -> Tensor:
        """Logits of columns [4, N], valid until the next call; the caller waits for them before it calls again."""
        count = columns.shape[1]
        self._host[:, :count] = columns
        # Rows that are not there: padding.
        self._host[1, count:] = 0
        self._host[2, count:] = -1
        self._columns.copy_(self._host, non_blocking=True)
        self._graph.replay()
        logits: Tensor = self._logits[:count]
        return logits


def _sizes(rows: int) -> list[int]:
    """Batch sizes that are captured: a batch runs with the next larger one."""
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, rows + 1, 32)]
    return [*(size for size in steps if size < rows), rows]


def _tile(rows: int) -> int:
    """Rows of an attention tile: a power of two that the matrix units take."""
    return max(16, _power(rows))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(0, number - 1).bit_length()
