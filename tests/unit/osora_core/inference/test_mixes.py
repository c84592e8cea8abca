"""Mixes in the engine: a row with one answers as its dense weights do, in whatever company, and others pay nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, GPT2Config, PretrainedConfig

from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.errors import UserError
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.inference.banks import Places
from osora_core.inference.mix_bank import MixBank, mix_bytes
from osora_core.inference.row_adapters import RowAdapters
from osora_core.inference.segments import Segment, linear
from osora_core.linear import OsoraLinear
from osora_core.mix import mix_spans
from osora_core.operator import dense_update, osora_update_reference
from osora_core.runtime import Runtime
from osora_core.weights import dense_weight
from tests.support.inference import adapter, agree, make_banks, mixed_adapter, prompt, run, solo
from tests.support.tiny_base import make_family

PARAMS = SamplingParams(max_tokens=10, logprobs=True)
NO_CACHE: Any = None


def gpt2(**sizes: Any) -> PretrainedConfig:
    """A family that is served through transformers' own forward."""
    sizes = {name: value for name, value in sizes.items() if name not in ("num_key_value_heads", "head_dim")}
    sizes["n_inner"] = sizes.pop("intermediate_size")
    return GPT2Config(**sizes)


def dense(runtime: Runtime, path: Path, row: AdapterRow) -> Any:
    """The base with the adapter summed into its weights in float64, in plain transformers."""
    mix = row.values[runtime.basis.row_length :]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    places = mix_spans(runtime.basis.spans, row.mix)
    for span, place, factors in zip(runtime.basis.spans, places, runtime.basis.factors.values(), strict=True):
        C = mix[place.values].view(place.size, place.size)
        update = dense_update(factors, row.values[span.sigma], row.values[span.delta], C)
        weight = model.get_submodule(span.name).weight
        weight.data += (update.T if isinstance(model.config, GPT2Config) else update).float()
    return model


def compare(runtime: Runtime, path: Path, row: AdapterRow, tokens: tuple[int, ...]) -> None:
    """The engine's greedy answer beside that of the dense weights."""
    result = solo(runtime, Request("a", tokens, PARAMS, row))
    assert result.error is None
    model, text = dense(runtime, path, row), list(tokens)
    for score in result.scores:
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, -1].log_softmax(-1)
        assert score.logprob == pytest.approx(float(logits[score.token]), abs=2e-4)
        assert float(logits.max()) - float(logits[score.token]) < 1e-4
        text.append(score.token)


@pytest.mark.parametrize("mix", [3, 8, 16])
def test_it_answers_as_its_dense_weights_do(runtime: Runtime, base_path: Path, mix: int) -> None:
    compare(runtime, base_path, mixed_adapter(runtime, "a", 1, mix), prompt(runtime, 3))


def test_the_padded_execution_computes_it_as_well(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", gpt2)
    runtime = Runtime.load("family", BasisCache(tmp_path / "cache"), path=str(base), device="cpu", rank=8)
    rows = [mixed_adapter(runtime, "a", 1, 5), mixed_adapter(runtime, "b", 2, 3), adapter(runtime, "c", 3), None]
    assert rows[0] is not None
    compare(runtime, base, rows[0], (5, 17, 40, 23, 9))
    wanted = [Request(f"r{i}", tuple(range(3 + i, 9 + 2 * i)), PARAMS, rows[i % 4]) for i in range(9)]
    engine = InferenceEngine(runtime, rows=3)
    assert engine.execution == "Padded"
    mixed = run(engine, wanted)
    for request in wanted:
        agree(mixed[request.id], solo(runtime, request), noise=1e-4)


@pytest.mark.parametrize(("prefill_tokens", "mixes"), [(7, 2), (2048, 1), (2048, 32)])
def test_mixed_batches_equal_solo(runtime: Runtime, prefill_tokens: int, mixes: int) -> None:
    """Adapters with mixes of several sizes, without, and the base: more of them than rows and room, joining and leaving
    all the time."""
    rows = [
        *(mixed_adapter(runtime, f"mixed-{n}", n, mix) for n, mix in enumerate((4, 16, 4, 9))),
        *(adapter(runtime, f"plain-{n}", n) for n in range(3)),
        None,
    ]
    wanted = [
        Request(f"r{i}", prompt(runtime, i), SamplingParams(max_tokens=3 + i % 9), rows[i % len(rows)])
        for i in range(24)
    ]
    engine = InferenceEngine(runtime, rows=4, adapters=4, prefill_tokens=prefill_tokens, mixes=mixes)
    found = run(engine, wanted)
    for request in wanted:
        alone = solo(runtime, request)
        assert (found[request.id].text, found[request.id].tokens) == (alone.text, alone.tokens)
    assert len({result.text for result in found.values()}) > 4


@pytest.mark.parametrize("tokens", [1, 3])
def test_segments_add_what_the_operator_adds(runtime: Runtime, tokens: int) -> None:
    """Rows with mixes of two sizes and one without, after a move, against the reference in float64."""
    sizes = (5, 0, 5, 12)
    bank = Bank(runtime.basis, 4, device=runtime.device)
    banks = make_banks(bank, mixes=4, largest_mix=16)
    adapters = RowAdapters(runtime.basis, 7, runtime.device, banks)
    rows = [mixed_adapter(runtime, f"{n}", n, c) if c else adapter(runtime, f"{n}", n) for n, c in enumerate(sizes)]
    for n, row in enumerate(rows):
        bank.write(n + 1, row.values[: runtime.basis.row_length], row.rank)
        adapters.fill(n if n < 3 else 5, Places(n + 1, row.rank, mix=banks.mixes.place(row) if row.mix else 0))
    adapters.move(5, 3)
    # Two rows share the last one's, and two of its size have one each.
    adapters.fill(4, Places(4, rows[3].rank, mix=3))
    segments = [
        Segment(0, 3, 1, NO_CACHE, adapters.view(0, 3, single=True), whole=False),
        Segment(3, 2, tokens, NO_CACHE, adapters.view(3, 2, single=tokens == 1), whole=False),
    ]
    slots = torch.tensor([1, 2, 3, *[4] * tokens, *[4] * tokens])
    for layer in (module for module in runtime.model.modules() if isinstance(module, OsoraLinear)):
        x = torch.randn(3 + 2 * tokens, layer.Vt.shape[1])
        sigma, delta = bank.layers[layer.index]
        C = torch.zeros(5, 16, 16, dtype=torch.float64)
        for n, row in enumerate(rows, start=1):
            if row.mix:
                place = mix_spans(runtime.basis.spans, row.mix)[layer.index]
                C[n, : place.size, : place.size] = row.values[runtime.basis.row_length :][place.values].view(
                    place.size, -1
                )
        side = min(16, layer.S.shape[0])
        args = (t.double() for t in (layer.U, layer.S, layer.Vt, sigma, delta))
        update = osora_update_reference(x.double(), *args, slots, bank.ranks, C[:, :side, :side])
        with torch.inference_mode():
            actual = linear(layer, x, segments)
        expected = x.double() @ dense_weight(layer.base).double().T + update
        torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)


class _Counting(TorchDispatchMode):
    """Operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def test_who_has_no_mix_pays_nothing_for_those_who_have(runtime: Runtime) -> None:
    """The same operations whether the engine has ever room for a mix, has served one, or could not: and not a byte."""
    plain = [
        Request(f"p{i}", prompt(runtime, i), SamplingParams(max_tokens=6), adapter(runtime, f"{i}", i)) for i in (1, 2)
    ]
    counted = []
    for mixes in (0, 32):
        engine = InferenceEngine(runtime, rows=3, mixes=mixes)
        with _Counting() as counting:
            run(engine, plain)
        counted.append(counting.counts)
        assert engine.mixes.bank.is_empty
    engine.add(Request("m", prompt(runtime, 1), SamplingParams(max_tokens=2), mixed_adapter(runtime, "m", 3, 8)))
    while engine.busy:
        engine.step()
    assert not engine.mixes.bank.is_empty
    with _Counting() as counting:
        run(engine, plain)
    # What writes adapters into the bank is spared, as they lie there already.
    assert counting.counts.get("aten.bmm.default", 0) == counted[0].get("aten.bmm.default", 0)
    assert counting.counts.get("aten.mul.out", 0) == counted[0]["aten.mul.out"]
    assert counting.counts.get("aten.index_add_.default", 0) == 0
    assert counted[0] == counted[1]


def test_a_full_bank_lets_the_longest_unused_go(runtime: Runtime) -> None:
    rows = [mixed_adapter(runtime, f"{n}", n, 4) for n in range(3)]
    engine = InferenceEngine(runtime, rows=1, adapters=3, mixes=2)
    for row in (rows[0], rows[1], rows[0], rows[2]):
        run(engine, [Request("a", prompt(runtime, 1), PARAMS, row)])
    assert engine.mixes.keys == ["0", "2"]
    assert sorted(engine.slots.keys) == ["0", "1", "2"]
    again = run(engine, [Request("a", prompt(runtime, 1), PARAMS, rows[1])])["a"]
    agree(again, solo(runtime, Request("a", prompt(runtime, 1), PARAMS, rows[1])), noise=1e-4)
    engine.held.drop(lambda key: key == "1")
    stored = engine.mixes.bank.stored
    assert engine.mixes.keys == ["2"]
    assert sum(bool(values.any()) for values in stored.values) == 1


def test_one_that_finds_no_room_waits_and_holds_up_nobody_else(runtime: Runtime) -> None:
    first, second = (mixed_adapter(runtime, f"{n}", n, 4) for n in range(2))
    engine = InferenceEngine(runtime, rows=4, mixes=1)
    long = SamplingParams(max_tokens=30, stop_tokens=frozenset())
    engine.add(Request("holds", prompt(runtime, 1), long, first, tenant="a"))
    engine.step()
    short = SamplingParams(max_tokens=2)
    engine.add(Request("waits", prompt(runtime, 1), short, second, tenant="b"))
    engine.add(Request("plain", prompt(runtime, 1), short, adapter(runtime, "p", 2), tenant="c"))
    ended = []
    while engine.busy:
        ended += [output.request_id for output in engine.step() if output.finish_reason is not None]
    assert ended == ["plain", "holds", "waits"]


@pytest.mark.parametrize(("mixes", "largest"), [(4, 7), (0, 16), (4, 0)])
def test_one_that_never_has_room_fails_alone_and_says_what_to_do(runtime: Runtime, mixes: int, largest: int) -> None:
    engine = InferenceEngine(runtime, rows=2, mixes=mixes, largest_mix=largest)
    row = mixed_adapter(runtime, "wide", 1, 8)
    found = run(engine, [Request("wide", prompt(runtime, 1), PARAMS, row), Request("bare", prompt(runtime, 1), PARAMS)])
    assert found["bare"].error is None
    error = found["wide"].error
    assert isinstance(error, UserError)
    assert "mix is 8; this server has room for mixes of " in error.message
    assert "OSORA_INFERENCE_MIX" in (error.next_action or "")
    assert engine.slots.keys == ["wide"]  # its vectors lie there, and nobody refers to them
    run(engine, [Request(f"{n}", prompt(runtime, 1), PARAMS, adapter(runtime, f"{n}", n)) for n in range(3)])


def test_it_takes_the_memory_that_is_set_aside_for_it(runtime: Runtime) -> None:
    bank = MixBank(runtime.basis, 3, 8, device=runtime.device, dtype=runtime.basis.dtype)
    assert bank.is_empty
    stored = bank.stored
    assert stored.values[1:].numel() * stored.values.itemsize == mix_bytes(runtime.basis, 8, 3)
    assert mix_bytes(runtime.basis, 0, 3) == mix_bytes(runtime.basis, 8, 0) == 0
