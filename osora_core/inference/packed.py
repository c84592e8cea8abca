"""Execution on a GPU: tokens packed without padding, groups of linears as one product, adapters inside the kernels.

Prompts and decoding share one forward: N tokens, each with its slot, position and line of the pool. Decoding is
captured in CUDA graphs by batch size, without adapters, with them, and with plain LoRAs beside them; loads, evictions,
joins and leaves change only what the graphs read. Passes with LoRAs are captured when the first of their size comes,
and where they read prompts not at all: until a LoRA is asked for, none costs anything.

Shapes: N tokens, d hidden size, D head size.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from osora_core import kernels
from osora_core.bank import Bank
from osora_core.families import FAMILIES
from osora_core.inference.cache import KVPool
from osora_core.inference.lora_bank import LoraBank, PassLoras
from osora_core.kernels.group import Group
from osora_core.linear import OsoraLinear
from osora_core.runtime import Runtime
from osora_core.weights import is_plain

if kernels.available():
    from osora_core.kernels.attention import Blocks, attend, block_size
    from osora_core.kernels.expand import Heads, Tokens, Vectors, embed, gate, heads, residual
    from osora_core.kernels.tiles import fits, highest_rank

logger = logging.getLogger(__name__)

_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
# Rotary embeddings whose angles depend on how long the text is: no table can hold them.
_ROTARY_BY_LENGTH = ("dynamic", "longrope")
# What a GPU should have to do: fewer programs than this and a row's attention is split among more of them.
_PROGRAMS = 256
_MOST_SPLITS = 16


@dataclass(frozen=True)
class _Layer:
    qkv: Group
    o: Group
    gate_up: Group
    down: Group


_Adapted = Literal["no", "yes", "with LoRAs"]
"""What a pass computes: the bare base; all adapters of the basis; LoRAs too."""


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
        model: Any = runtime.model.base_model
        head_size = model.layers[0].self_attn.head_dim
        if model.rotary_emb.rope_type in _ROTARY_BY_LENGTH:
            return False
        rank = max(span.rank for span in runtime.basis.spans)
        if not fits(rank, head_size, runtime.device):
            logger.warning(
                "base %s: a basis of rank %d does not fit this GPU's kernels, so all answers here take longer; with an "
                "OSORA_BASIS_RANK of at most %d it would",
                runtime.name, rank, highest_rank(head_size, runtime.device),
            )  # fmt: skip
            return False
        for layer in model.layers:
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
        self, ids: Tensor, tokens: "Tokens", blocks: "Blocks", pool: KVPool, vectors: "Vectors | None",
        loras: PassLoras | None,
    ) -> Tensor:  # fmt: skip
        """Last hidden states [N, d] of tokens ids [N]; without vectors and LoRAs those of the bare base."""
        adapted = vectors is not None
        norms = iter(self._norms)
        norm = next(norms)
        stream = embed(ids, self._table, norm.weight, self._layers[0].o.U.shape[1])
        for index, (layer, layout) in enumerate(zip(self._layers, self._heads, strict=True)):
            keys, values = pool.keys[index], pool.values[index]
            y = layer.qkv.apply(stream.h, adapted, loras)
            query = heads(y, layer.qkv, tokens, vectors, stream, norm.variance_epsilon, layout, keys, values)
            y = layer.o.apply(attend(query, keys, values, tokens, blocks, self._scaling), adapted, loras)
            norm = next(norms)
            residual(y, layer.o, tokens, vectors, stream, norm.weight)
            y = layer.gate_up.apply(stream.h, adapted, loras)
            mixed = gate(y, layer.gate_up, tokens, vectors, stream, norm.variance_epsilon)
            y = layer.down.apply(mixed, adapted, loras)
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

    skips = False

    def __init__(self, runtime: Runtime, pool: KVPool, bank: Bank, loras: LoraBank) -> None:
        self._runtime = runtime
        self._pool = pool
        self._loras = loras
        self._decoder = PackedDecoder(runtime, pool.length)
        self._vectors = Vectors(bank.values, bank.ranks)
        # Of every batch row: its bank slot, that of its LoRA, and the line that holds its keys and values.
        self._slots = [0] * pool.lines
        self._lora_slots = [0] * pool.lines
        self._lines = list(range(pool.lines))
        self._capturing = self.ahead = runtime.device.type == "cuda"
        self._sizes = _sizes(pool.lines)
        self._decodes: dict[tuple[int, _Adapted], _Captured] = {}
        self._reads: dict[tuple[int, _Adapted], _Captured] = {}
        if self._capturing:
            # Graphs of one kind share the memory in which they compute: they never run together.
            self._decode_memory, self._read_memory = (torch.cuda.graph_pool_handle() for _ in range(2))

    def warm_up(self) -> None:
        if self._capturing:
            kinds: tuple[_Adapted, ...] = ("yes", "no")
            for adapted in kinds:
                for size in reversed(self._sizes):
                    self._captured_decode(size, adapted)
                for size in reversed(_READ_SIZES):
                    self._captured_read(size, adapted)

    def join(self, row: int, slot: int, rank: int, lora: int) -> None:
        self._slots[row], self._lora_slots[row] = slot, lora

    def move(self, source: int, target: int, length: int) -> None:
        lines = self._lines
        lines[target], lines[source] = lines[source], lines[target]
        self._slots[target], self._lora_slots[target] = self._slots[source], self._lora_slots[source]

    def leave(self, row: int, length: int) -> None:
        """Nothing: what a row held is read by nobody, because lengths are known."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        count = len(tokens)
        adapted, rows = self._adapted(count), [self._slots, self._lora_slots, self._lines]
        columns = torch.tensor([tokens, positions, *(own[:count] for own in rows)], dtype=torch.int32)
        if not self._capturing:
            return self._decode_forward(columns.to(self._runtime.device), adapted)
        size = next(size for size in self._sizes if size >= count)
        captured = self._captured_decode(size, adapted)
        captured.blank().view(_COLUMNS, size)[:, :count] = columns
        return captured.run()[:count]

    def decode_and_read(
        self, tokens: Sequence[int], positions: Sequence[int], chunks: Sequence[tuple[int, ...]], cached: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        # A row that decodes reads a chunk of one token.
        chunks, begins = [*((token,) for token in tokens), *chunks], [*positions, *cached]
        longest = block_size(self._decoder.folded)
        columns: list[list[int]] = [[] for _ in range(_COLUMNS)]
        blocks: list[list[int]] = [[], []]
        for row, (chunk, begin) in enumerate(zip(chunks, begins, strict=True)):
            for offset in range(0, len(chunk), longest):
                blocks[0].append(len(columns[0]) + offset)
                blocks[1].append(min(longest, len(chunk) - offset))
            columns[0] += chunk
            columns[1] += range(begin, begin + len(chunk))
            for column, own in zip(columns[2:], (self._slots, self._lora_slots, self._lines), strict=True):
                column += [own[row]] * len(chunk)
        hidden = self._read(columns, blocks, self._adapted(len(chunks)))
        decoded, *read = torch.split(hidden, [len(tokens), *(len(chunk) for chunk in chunks[len(tokens) :])])
        return decoded, read

    def _adapted(self, rows: int) -> _Adapted:
        """What the first so many rows need."""
        if any(self._lora_slots[:rows]):
            return "with LoRAs"
        return "yes" if any(self._slots[:rows]) else "no"

    def _read(self, columns: list[list[int]], blocks: list[list[int]], adapted: _Adapted) -> Tensor:
        """Hidden states [N, d]. columns: see _COLUMNS; blocks: first tokens and counts."""
        count = len(columns[0])
        if not self._capturing or count > _READ_SIZES[-1] or adapted == "with LoRAs":
            flat = torch.tensor([*chain(*columns, *blocks)], dtype=torch.int32).to(self._runtime.device)
            return self._read_forward(flat, count, adapted)
        size = next(size for size in _READ_SIZES if size >= count)
        captured = self._captured_read(size, adapted)
        self._lay_out(captured.blank(), size, columns, blocks)
        return captured.run()[:count]

    def _captured_decode(self, size: int, adapted: _Adapted) -> "_Captured":
        """A step of decoding for up to `size` rows."""
        if (size, adapted) not in self._decodes:

            def forward(flat: Tensor) -> Tensor:
                return self._decode_forward(flat.view(_COLUMNS, size), adapted)

            blank = torch.zeros(_COLUMNS, size, dtype=torch.int32)
            blank[1] = -1
            self._decodes[size, adapted] = _Captured(forward, blank.flatten(), self._decode_memory)
        return self._decodes[size, adapted]

    def _captured_read(self, size: int, adapted: _Adapted) -> "_Captured":
        """Up to `size` tokens of prompts."""
        if (size, adapted) not in self._reads:

            def forward(flat: Tensor) -> Tensor:
                return self._read_forward(flat, size, adapted)

            blank = torch.zeros(_COLUMNS * size + 2 * self._blocks(size), dtype=torch.int32)
            blank[size : 2 * size] = -1
            self._reads[size, adapted] = _Captured(forward, blank, self._read_memory)
        return self._reads[size, adapted]

    def _blocks(self, size: int) -> int:
        """The most blocks that `size` tokens can make: every row may end with one that is not full."""
        return size // block_size(self._decoder.folded) + min(size, self._pool.lines)

    def _lay_out(self, host: Tensor, size: int, columns: list[list[int]], blocks: list[list[int]]) -> None:
        """Write columns and blocks where `_read_forward` expects those of `size` tokens."""
        host[: _COLUMNS * size].view(_COLUMNS, size)[:, : len(columns[0])] = torch.tensor(columns, dtype=torch.int32)
        host[_COLUMNS * size :].view(2, -1)[:, : len(blocks[0])] = torch.tensor(blocks, dtype=torch.int32)

    def _read_forward(self, flat: Tensor, count: int, adapted: _Adapted) -> Tensor:
        """Hidden states [N, d] of prompts: _COLUMNS [N] each, then first tokens and counts of blocks, int32, one behind
        the other."""
        ids, positions, slots, loras, lines = flat[: _COLUMNS * count].view(_COLUMNS, count)
        firsts, counts = flat[_COLUMNS * count :].view(2, -1)
        folded = self._decoder.folded
        return self._decoder.hidden_states(
            ids, Tokens(slots, positions, lines), Blocks(firsts, counts, _tile(block_size(folded) * folded), 1),
            self._pool, None if adapted == "no" else self._vectors, self._low_rank(loras, adapted),
        )  # fmt: skip

    def _decode_forward(self, columns: Tensor, adapted: _Adapted) -> Tensor:
        """Logits [N, vocabulary] of one token a row: columns [_COLUMNS, N] int32."""
        ids, positions, slots, loras, lines = columns
        firsts = torch.arange(ids.shape[0], dtype=torch.int32, device=ids.device)
        splits = min(_MOST_SPLITS, _power(_PROGRAMS // (ids.shape[0] * self._decoder.pairs)))
        hidden = self._decoder.hidden_states(
            ids, Tokens(slots, positions, lines),
            Blocks(firsts, torch.ones_like(firsts), _tile(self._decoder.folded), splits), self._pool,
            None if adapted == "no" else self._vectors, self._low_rank(loras, adapted),
        )  # fmt: skip
        return self._runtime.logits(hidden)

    def _low_rank(self, slots: Tensor, adapted: _Adapted) -> PassLoras | None:
        """The LoRAs of tokens with these LoRA slots [N]: all of the bank, which lies where it lies."""
        return PassLoras.of(self._loras.columns, slots) if adapted == "with LoRAs" else None


class _Captured:
    """A forward in a CUDA graph, with its input on both sides: fill `blank()`, then `run()`.

    What it returns is valid until the next run of any graph that shares its memory.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], blank: Tensor, memory: Any) -> None:
        self._blank = blank
        self._host = blank.pin_memory()
        self._input = blank.cuda()
        self._graph = torch.cuda.CUDAGraph()
        self._sent: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            # Compiles the kernels and lets cuBLAS choose, neither of which may happen while it is captured.
            forward(self._input)
            torch.cuda.synchronize()
            # Other threads may load adapters meanwhile.
            with torch.cuda.graph(self._graph, pool=memory, capture_error_mode="thread_local"):
                self._output = forward(self._input)

    def blank(self) -> Tensor:
        """The input on the host, all padding."""
        self._sent.synchronize()
        return self._host.copy_(self._blank)

    def run(self) -> Tensor:
        self._input.copy_(self._host, non_blocking=True)
        self._sent.record()
        self._graph.replay()
        return self._output


# What is known of a token: its id, position, slot, LoRA slot and line.
_COLUMNS = 5
# Tokens of a pass with prompts that are captured; more of them keep the GPU busy for longer than their launches take.
_READ_SIZES = (16, 32, 64, 96, 128, 192, 256, 384, 512)


def _sizes(rows: int) -> list[int]:
    """Numbers of rows whose decoding is captured: a batch runs with the next larger one."""
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, rows + 1, 32)]
    return [*(size for size in steps if size < rows), rows]


def _tile(rows: int) -> int:
    """Rows of an attention tile: a power of two that the matrix units take."""
    return max(16, _power(rows))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(0, number - 1).bit_length()
