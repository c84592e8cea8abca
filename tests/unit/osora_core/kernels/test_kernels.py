"""The GPU's kernels against float64, and its execution against the CPU's.

They run on a GPU, or anywhere in Triton's interpreter: TRITON_INTERPRET=1 python -m pytest tests/unit/osora_core/kernels/test_kernels.py
"""  # noqa: E501

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from osora_core import kernels
from osora_core.bank import Bank
from osora_core.basis import Basis, BasisCache, compute_factors
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.inference import packed as packed_module
from osora_core.inference.banks import Banks
from osora_core.inference.mix_bank import MixBank
from osora_core.inference.packed import Packed
from osora_core.kernels.group import Group
from osora_core.linear import OsoraLinear
from osora_core.mix import mix_spans
from osora_core.operator import osora_update_reference
from osora_core.runtime import Runtime
from osora_core.weights import fingerprint_base
from tests.support.inference import adapter, agree, mixed_adapter, random_lora, run
from tests.unit.osora_core.inference.test_decoder import make_family

ON_GPU = torch.cuda.is_available()
if not kernels.available() or not (ON_GPU or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs Triton, with a GPU or in its interpreter (TRITON_INTERPRET=1)", allow_module_level=True)

from osora_core.kernels import attention, expand, tiles  # noqa: E402
from osora_core.kernels.mix import Mixes, mix  # noqa: E402

DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float32
# Of the largest value: what a product of DTYPE leaves.
TOLERANCE = 2e-2 if ON_GPU else 1e-5
WIDTH, HEADS, PAIRS, SIZE, MIDDLE, RANK, EPS = 96, 4, 2, 32, 80, 24, 1e-5
MIXES = (20, 0, 1)


class World:
    """A group of linears, a bank with slots of several ranks, and tokens that use them."""

    def __init__(
        self, d_in: int, outputs: tuple[int, ...], *, bias: bool = False, count: int = 21, mixes: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """mixes: those of the slots from 1 on, 0 for none; the first slot's rank is RANK, the others' are small."""
        torch.manual_seed(0)
        linears = [nn.Linear(d_in, d_out, bias=bias).to(DEVICE, DTYPE).requires_grad_(False) for d_out in outputs]
        factors = {str(i): compute_factors(linear.weight.float(), RANK, DTYPE) for i, linear in enumerate(linears)}
        basis = Basis(factors, "base", RANK)
        self.layers = [OsoraLinear(linear, factors[str(i)], i) for i, linear in enumerate(linears)]
        self.before = [linear.weight.clone() for linear in linears]
        self.group = Group.stack(self.layers, basis.spans)
        self.bank = Bank(basis, 3, device=DEVICE, dtype=DTYPE)
        for slot, rank in ((1, RANK), (2, 3), (3, 1)):
            row = torch.randn(basis.row_length) * 0.3
            for span in basis.spans:
                row[span.sigma][rank:] = 0
            self.bank.write(slot, row, rank)
        self.vectors = expand.Vectors(self.bank.values, self.bank.ranks)
        self.C = torch.zeros(4, len(outputs), RANK, RANK, dtype=torch.float64, device=DEVICE)
        self.mix_bank = MixBank(basis, 3, max(mixes, default=0), device=DEVICE, dtype=DTYPE)
        places = [0, *(self._mix(slot, size) if size else 0 for slot, size in enumerate(mixes, start=1)), 0, 0, 0]
        self.slots = torch.arange(count, device=DEVICE) % 4
        numbers = torch.arange(count, dtype=torch.int32, device=DEVICE)
        self.tokens = expand.Tokens(self.slots.int(), numbers % 7, numbers % 5)
        self.h = torch.randn(count, d_in, device=DEVICE, dtype=DTYPE)
        self.x = torch.randn(count, WIDTH, device=DEVICE, dtype=DTYPE)
        squares = torch.zeros(count, 2, device=DEVICE)
        squares[:, 0] = self.x.float().square().sum(1)
        self.stream = expand.Stream(self.x.clone(), torch.zeros_like(self.x), squares)
        self.norm = torch.randn(WIDTH, device=DEVICE, dtype=DTYPE)
        self.mixes = None
        if any(mixes):
            stored, own = self.mix_bank.stored, torch.tensor(places, device=DEVICE)[self.slots].int()
            self.mixes = Mixes(stored.values, stored.sides, stored.starts, own, self.mix_bank.largest)
        self.inverse = (self.x.double().square().mean(1, keepdim=True) + EPS).rsqrt()

    def _mix(self, slot: int, size: int) -> int:
        """A random mix for a slot; its place among the mixes."""
        spans = mix_spans(self.bank.basis.spans, size)
        values = torch.randn(spans[-1].values.stop).to(DTYPE) * 0.3
        for index, span in enumerate(spans):
            own = values[span.values].view(span.size, span.size)
            self.C[slot, index, : span.size, : span.size] = own
        return self.mix_bank.place(AdapterRow("", values, RANK, size))

    def mixed(self, y: Tensor) -> Tensor | None:
        return mix(y, self.group, self.mixes)

    def expected(self, index: int, inverse: Tensor | float = 1.0) -> Tensor:
        """y of one linear for every token, float64."""
        layer: Any = self.layers[index]
        sigma, delta = self.bank.layers[index]
        operands = [t.double() for t in (layer.U, layer.S, layer.Vt, sigma, delta)]
        C = self.C[:, index, : len(layer.S), : len(layer.S)]
        update = osora_update_reference(self.h.double(), *operands, self.slots, self.bank.ranks, C)
        y = (F.linear(self.h.double(), layer.base.weight.double()) + update) * inverse
        return y if layer.base.bias is None else y + layer.base.bias.double()

    def y(self, *, adapted: bool = True) -> Tensor:
        return self.group.apply(self.h, adapted, None)


def packed(runtime: Runtime, engine: InferenceEngine) -> Packed:
    return Packed(runtime, engine.pool, Banks(engine.slots.bank, engine.loras.bank, engine.mixes.bank))


def close(actual: Tensor, expected: Tensor) -> None:
    assert (actual.double() - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_stacking_changes_no_number_and_doubles_no_memory() -> None:
    world = World(WIDTH, (64, 48))
    for layer, before in zip(world.layers, world.before, strict=True):
        base: Any = layer.base
        assert torch.equal(base.weight, before)
        for view, whole in (
            (base.weight, world.group.weight),
            (layer.Vt, world.group.weight),
            (layer.U, world.group.U),
        ):
            assert view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


@pytest.mark.parametrize(("count", "mixes"), [(1, ()), (21, ()), (70, ()), (21, MIXES)])
def test_the_residual_stream(count: int, mixes: tuple[int, ...]) -> None:
    world = World(MIDDLE, (WIDTH,), count=count, mixes=mixes)
    expected = world.x.double() + world.expected(0)
    y = world.y()
    expand.residual(y, world.group, world.tokens, world.vectors, world.stream, world.norm, world.mixed(y))
    close(world.stream.x, expected)
    close(world.stream.h, expected * world.norm.double())


def test_the_sums_of_squares_are_those_of_what_was_written() -> None:
    world = World(MIDDLE, (WIDTH,))
    table = torch.randn(50, WIDTH, device=DEVICE, dtype=DTYPE)
    ids = torch.arange(21, dtype=torch.int32, device=DEVICE) * 2
    stream = expand.embed(ids, table, world.norm, world.group.U.shape[1])
    assert torch.equal(stream.x, table[ids.long()])
    for _ in range(2):
        torch.testing.assert_close(stream.squares.sum(1), stream.x.float().square().sum(1))
        expand.residual(world.y(), world.group, world.tokens, world.vectors, stream, world.norm)


@pytest.mark.parametrize(("count", "mixes"), [(1, ()), (21, ()), (70, ()), (21, MIXES)])
def test_the_gate(count: int, mixes: tuple[int, ...]) -> None:
    world = World(WIDTH, (MIDDLE, MIDDLE), count=count, mixes=mixes)
    y = world.y()
    out = expand.gate(y, world.group, world.tokens, world.vectors, world.stream, EPS, world.mixed(y))
    close(out, F.silu(world.expected(0, world.inverse)) * world.expected(1, world.inverse))


@pytest.mark.parametrize(
    ("bias", "normed", "mixes"),
    [(False, False, ()), (False, True, ()), (True, False, ()), (True, True, ()), (True, False, MIXES)],
)
def test_the_heads(bias: bool, normed: bool, mixes: tuple[int, ...]) -> None:
    world = World(WIDTH, (HEADS * SIZE, PAIRS * SIZE, PAIRS * SIZE), bias=bias, mixes=mixes)
    angles = torch.rand(7, SIZE // 2, device=DEVICE, dtype=torch.float64) * 6
    weights = torch.randn(2, SIZE, device=DEVICE, dtype=DTYPE)
    norms = (weights[0], weights[1], EPS) if normed else None
    plan = expand.Heads(HEADS, PAIRS, SIZE, angles.cos().to(DTYPE), angles.sin().to(DTYPE), norms)
    keys, values = (torch.full((5, PAIRS, 7, SIZE), 9.0, device=DEVICE, dtype=DTYPE) for _ in range(2))
    world.tokens.positions[4] = -1  # padding: written nowhere
    y, args = world.y(), (world.group, world.tokens, world.vectors, world.stream, EPS, plan, keys, values)
    query = expand.heads(y, *args, world.mixed(y))
    found = [world.expected(i, world.inverse).view(21, -1, SIZE) for i in range(3)]
    turned = []
    for part, weight in zip(found[:2], weights, strict=True):
        if normed:
            part = part * (part.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight.double()
        angle = angles[world.tokens.positions.long()].unsqueeze(1)
        left, right = part[..., : SIZE // 2], part[..., SIZE // 2 :]
        cos, sin = angle.cos().to(DTYPE).double(), angle.sin().to(DTYPE).double()
        turned.append(torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1))
    live = [i for i in range(21) if i != 4]
    close(query[live], turned[0][live])
    rows, places = world.tokens.lines.long(), world.tokens.positions.long()
    close(keys[rows[live], :, places[live]], turned[1][live])
    close(values[rows[live], :, places[live]], found[2][live])
    written = {(int(rows[i]), int(places[i])) for i in live}
    assert all((keys[r, :, p] == 9).all() for r in range(5) for p in range(7) if (r, p) not in written)


def test_slot_zero_is_the_base_exactly_and_its_neighbours_change_nothing() -> None:
    """The kernels add nothing to its product, whatever else is in the batch."""
    one, two = World(MIDDLE, (WIDTH,), mixes=MIXES), World(WIDTH, (MIDDLE, MIDDLE))
    bare = one.slots == 0
    y, mixed = one.y(), one.mixed(one.y())
    streams = [replace(one.stream, x=one.x.clone()) for _ in range(2)]
    expand.residual(y, one.group, one.tokens, one.vectors, streams[0], one.norm, mixed)
    expand.residual(y, one.group, one.tokens, None, streams[1], one.norm)
    assert torch.equal(streams[0].x[bare], streams[1].x[bare])
    assert not torch.equal(streams[0].x, streams[1].x)
    y = two.y()
    outs = [expand.gate(y, two.group, two.tokens, vectors, two.stream, EPS) for vectors in (two.vectors, None)]
    assert torch.equal(outs[0][bare], outs[1][bare])


@pytest.mark.parametrize("limit", [99 * 2**10, 163 * 2**10, 227 * 2**10])
@pytest.mark.parametrize("rank", [8, 128, 256, 512, 576, 4096, 8192])
def test_a_tile_fits_the_shared_memory_of_small_gpus_too(
    monkeypatch: pytest.MonkeyPatch, limit: int, rank: int
) -> None:
    monkeypatch.setattr(tiles, "shared_memory", lambda _: limit)
    for count in (1, 64, 2048):
        tile = tiles.gate_tile(count, rank, DEVICE)
        assert tiles.gate_bytes(tile, tile.triplets) <= limit
        for size in (128, 256):
            one, other = tiles.residual_tile(count, rank, DEVICE), tiles.heads_tile(count, size, rank, DEVICE)
            assert tiles.one_bytes(one.rows, one.columns, one.triplets) <= limit
            assert tiles.one_bytes(other.rows, size, other.triplets) <= limit
            assert rank > 512 or max(one.triplets, 16) >= min(rank, 256)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared memory has room for 16 of the 24 triplets."""
    monkeypatch.setattr(tiles, "_AT_ONCE", 16)
    monkeypatch.setattr(tiles, "_PART", 16)
    assert tiles.residual_tile(1, RANK, DEVICE).triplets == 16


@pytest.mark.parametrize("mixes", [(), MIXES])
@pytest.mark.usefixtures("in_parts")
def test_more_triplets_than_fit_at_once_come_a_part_after_the_other(mixes: tuple[int, ...]) -> None:
    test_the_residual_stream(21, mixes)
    test_the_gate(21, mixes)
    test_the_heads(bias=False, normed=False, mixes=mixes)


@pytest.mark.parametrize(("lengths", "splits"), [((5, 1, 70, 33), 1), ((1, 130, 64, 65), 4)])
def test_attention_over_rows_of_any_length(lengths: tuple[int, ...], splits: int) -> None:
    """The last tokens of each row, as a chunk of a prompt (one split) or one each (decoding)."""
    torch.manual_seed(1)
    shape = (len(lengths) + 1, PAIRS, 131, SIZE)
    keys, values = (torch.full(shape, torch.nan, device=DEVICE, dtype=DTYPE) for _ in range(2))
    rows, positions, firsts, counts = [], [], [], []
    size = attention.block_size(HEADS // PAIRS) if splits == 1 else 1
    for index, length in enumerate(lengths):
        line = len(lengths) - index  # not the batch's order
        keys[line, :, :length], values[line, :, :length] = torch.randn(2, PAIRS, length, SIZE, device=DEVICE).to(DTYPE)
        asked = min(length, 40) if splits == 1 else 1
        for offset in range(0, asked, size):
            firsts.append(len(rows) + offset)
            counts.append(min(size, asked - offset))
        rows += [line] * asked
        positions += range(length - asked, length)
    firsts.append(0)
    counts.append(0)  # a block that is not used
    query = torch.randn(len(rows), HEADS, SIZE, device=DEVICE, dtype=DTYPE)
    columns = [torch.tensor(c, dtype=torch.int32, device=DEVICE) for c in (rows, positions, firsts, counts)]
    tokens = expand.Tokens(columns[0], columns[1], columns[0])
    tile = 64 if splits == 1 else 16
    blocks = attention.Blocks(columns[2], columns[3], tile, splits)
    out = attention.attend(query, keys, values, tokens, blocks, 0.2).view(len(rows), HEADS, SIZE)
    for i, (line, position) in enumerate(zip(rows, positions, strict=True)):
        for head in range(HEADS):
            k, v = (pool[line, head * PAIRS // HEADS, : position + 1].double() for pool in (keys, values))
            weights = (k @ query[i, head].double() * 0.2).softmax(0)
            close(out[i, head], weights @ v)


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
def test_packed_execution_answers_as_the_cpu_does(tmp_path: Path, kind: type[PretrainedConfig]) -> None:
    path = str(make_family(tmp_path / "model", kind, size=32))
    cpu, here = (
        Runtime.load("family", BasisCache(tmp_path / "cache"), path=path, device=device, rank=20)
        for device in ("cpu", DEVICE.type)
    )
    params = SamplingParams(max_tokens=4, logprobs=True, prompt_logprobs=True)
    rows = [
        None, mixed_adapter(cpu, "a", 1, 20), adapter(cpu, "b", 2), random_lora(cpu, "c", 3),
        mixed_adapter(cpu, "d", 4, 6),
    ]  # fmt: skip
    requests = [Request(f"r{i}", tuple(range(3 + i, 8 + 4 * i)), params, rows[i % 5]) for i in range(5)]
    expected = run(InferenceEngine(cpu, rows=2), requests)
    before = fingerprint_base(here.model)
    engine = InferenceEngine(here, rows=2, adapters=2, lora_ranks=7)
    if not ON_GPU:
        engine._execution = packed(here, engine)
    assert isinstance(engine._execution, Packed)
    answers = run(engine, requests)
    for request in requests:
        agree(answers[request.id], expected[request.id], noise=0.2 if ON_GPU else 1e-4)
    assert fingerprint_base(here.model) == before


def test_prompts_are_read_in_the_pass_in_which_others_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(make_family(tmp_path / "model", LlamaConfig, size=32))
    here = Runtime.load("family", BasisCache(tmp_path / "cache"), path=path, device=DEVICE.type, rank=20)
    engine = InferenceEngine(here, rows=3)
    engine._execution = execution = Packed(
        here, engine.pool, Banks(engine.slots.bank, engine.loras.bank, engine.mixes.bank)
    )
    passes: list[int] = []
    hidden_states = execution._decoder.hidden_states

    def counted(ids: Tensor, *rest: Any) -> Tensor:
        passes.append(len(ids))
        return hidden_states(ids, *rest)

    execution._capturing = False
    execution._decoder.hidden_states = counted  # type: ignore[method-assign]
    launched: list[Any] = []
    monkeypatch.setattr(packed_module, "mix", lambda y, group, mixes: launched.append(mixes))
    engine.add(Request("a", (5, 9, 11), SamplingParams(max_tokens=9), adapter(here, "a", 1)))
    while not engine.step():
        pass
    engine.add(Request("b", (5, 9, 11, 12), SamplingParams(max_tokens=9)))
    engine.add(Request("c", (7, 8), SamplingParams(max_tokens=9), adapter(here, "c", 2)))
    passes.clear()
    names: set[str] = set()
    while "b" not in names:
        names |= {output.request_id for output in engine.step()}
    assert names == {"a", "b", "c"}
    assert 1 + 4 + 2 in passes
    assert set(passes) <= {1, 1 + 4 + 2, 3}
    # Nobody has a mix: its kernel has nothing to do, and its bank takes no memory.
    assert launched
    assert not any(launched)
    assert engine.mixes.bank.is_empty
