"""Layers as dense weights compute and learn what transformers' own modules do with each linear's operator."""

import threading
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from osora_core import merged_decoder
from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.data import Example, flatten
from osora_core.families import FAMILIES
from osora_core.linear import use_slots
from osora_core.merged_decoder import MergedDecoder
from osora_core.mix import mix_length
from osora_core.operator import runs
from osora_core.runtime import Runtime
from osora_core.training.passes import Passes
from tests.support.tiny_base import make_family

MEMBERS: list[tuple[type[PretrainedConfig], dict[str, Any]]] = [
    (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    (MistralConfig, {"sliding_window": 5}),
    (Qwen2Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    (Qwen3Config, {}),
]


def loaded(folder: Path, kind: type[PretrainedConfig], **extra: Any) -> Runtime:
    path = make_family(folder / "model", kind, **extra)
    return Runtime.load("family", BasisCache(folder / "cache"), path=str(path), device="cpu", rank=24)


def rows(*lengths: int) -> list[Example]:
    generator = torch.Generator().manual_seed(len(lengths))
    texts = [tuple(torch.randint(0, 290, (length,), generator=generator).tolist()) for length in lengths]
    return [Example(text, tuple(place > 1 for place in range(len(text))), line) for line, text in enumerate(texts)]


def filled_bank(runtime: Runtime, rank: int, dtype: torch.dtype, mix: int = 0) -> Bank:
    """Slots 1 and 2, whose vectors are those of adapters of this rank and mix."""
    bank = Bank(runtime.basis, 2, device=runtime.device, trainable=True, dtype=dtype)
    for seed in (1, 2):
        length = runtime.basis.row_length + mix_length(runtime.basis.spans, mix)
        row = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))
        for span in runtime.basis.spans:
            row[span.start + min(rank, span.rank) : span.start + span.rank] = 0
        bank.write(bank.acquire(), row, rank=rank, mix=mix)
    return bank


def make_norms_double(model: nn.Module) -> None:
    """transformers' norms compute in single precision whatever they are given."""

    def forward(norm: Any, x: Tensor) -> Tensor:
        return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)

    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = MethodType(forward, module)


@pytest.mark.parametrize(("kind", "extra"), MEMBERS, ids=[kind.model_type for kind, _ in MEMBERS])
@pytest.mark.parametrize(("rank", "mix"), [(24, 0), (7, 0), (7, 5), (24, 24)])
def test_every_family_learns_the_same_in_double_precision(
    tmp_path: Path, kind: type[PretrainedConfig], extra: dict[str, Any], rank: int, mix: int
) -> None:
    runtime = loaded(tmp_path, kind, **extra)
    runtime.model.double()
    make_norms_double(runtime.model)
    bank = filled_bank(runtime, rank, torch.float64, mix)
    assert MergedDecoder.supports(runtime.model, runtime.basis)
    decoder = MergedDecoder(runtime.model, runtime.basis)
    batch = flatten(rows(3, 17, 9, 2), runtime.device)
    count = len(batch.inputs)

    def general() -> Tensor:
        with use_slots(bank, torch.full((count,), 2), runs([2] * count)):
            hidden = runtime.hidden_states(
                batch.inputs.unsqueeze(1), position_ids=batch.places.unsqueeze(1), lengths=batch.lengths
            )
        return hidden.squeeze(1)

    def own() -> Tensor:
        return decoder.hidden_states(batch.inputs, batch.places, batch.lengths, bank, 2)

    found: list[tuple[Tensor, Tensor, dict[int, Tensor]]] = []
    for forward in (own, general):
        hidden = forward()
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        (hidden * weights).sum().backward()  # type: ignore[no-untyped-call]
        found.append((hidden.detach(), bank.take_grads(), bank.take_mix_grads()))
    (hidden, grads, of_mix), (expected, expected_grads, expected_of_mix) = found
    torch.testing.assert_close(hidden, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(own(), hidden)
    used = torch.ones(grads.shape[1], dtype=torch.bool)
    for span in runtime.basis.spans:
        used[span.start + min(rank, span.rank) : span.start + span.rank] = False
    scale = float(expected_grads.abs().max())
    torch.testing.assert_close(grads[2][used], expected_grads[2][used], rtol=1e-10, atol=1e-10 * scale)
    assert not grads[:2].any()
    assert not grads[2][~used].any()
    assert of_mix.keys() == expected_of_mix.keys() == ({2} if mix else set())
    for slot, grad in of_mix.items():
        scale = float(expected_of_mix[slot].abs().max())
        torch.testing.assert_close(grad, expected_of_mix[slot], rtol=1e-10, atol=1e-10 * scale)


def test_all_known_families_are_among_those_compared() -> None:
    assert {kind.model_type for kind, _ in MEMBERS} == {*FAMILIES}


def test_a_pass_of_one_slot_learns_in_single_precision_what_the_general_one_does(tmp_path: Path) -> None:
    runtime = loaded(tmp_path, Qwen3Config)
    bank = filled_bank(runtime, 24, torch.float32)
    passes, general = Passes(runtime, bank), Passes(runtime, bank)
    assert passes.merged is not None
    general.merged = None
    items = [(row, 0) for row in rows(30, 41, 12, 60)]

    sums, grads = passes.backward(items, [1], [0.01]), bank.take_grads()
    expected, expected_grads = general.backward(items, [1], [0.01]), bank.take_grads()

    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=0)
    assert float((grads - expected_grads).norm() / expected_grads.norm()) < 1e-5
    torch.testing.assert_close(passes.scores(items, [1]).losses, general.scores(items, [1]).losses, rtol=1e-5, atol=0)


def test_rows_of_several_slots_learn_together_what_they_learn_alone(tmp_path: Path) -> None:
    runtime = loaded(tmp_path, Qwen3Config)
    bank = filled_bank(runtime, 24, torch.float32)
    passes = Passes(runtime, bank)
    items = [(row, index % 2) for index, row in enumerate(rows(60, 60, 60, 60))]

    together, grads = passes.backward(items, [1, 2], [0.01, 0.02]), bank.take_grads()
    alone = [passes.backward([item for item in items if item[1] == own], [1, 2], [0.01, 0.02]) for own in (0, 1)]

    torch.testing.assert_close(together, torch.stack(alone).sum(0), rtol=1e-4, atol=0)
    assert float((grads - bank.take_grads()).norm() / grads.norm()) < 1e-4


def test_parts_on_threads_of_their_own_learn_what_the_pass_as_a_whole_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = loaded(tmp_path, Qwen2Config, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    bank = filled_bank(runtime, 24, torch.float32)
    passes = Passes(runtime, bank)
    items = [(row, 0) for row in rows(30, 41, 12, 60, 5)]
    found, used = [], set()
    each = MergedDecoder.each

    def noticed(self: MergedDecoder, work: Any, parts: Any) -> Any:
        def by(part: Any) -> Any:
            used.add(threading.current_thread().name)
            return work(part)

        return each(self, by, parts)

    monkeypatch.setattr(MergedDecoder, "each", noticed)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            used.clear()
            sums = passes.backward(items, [1], [0.01])
            with torch.inference_mode():
                scored = passes.scores(items, [1]).losses
            found.append((sums, scored, bank.take_grads()))
            assert (used == {threading.current_thread().name}) == (count == 1)
    finally:
        torch.set_num_threads(threads)
    (sums, scored, grads), (other_sums, other_scored, other_grads) = found
    torch.testing.assert_close(other_sums, sums, rtol=1e-5, atol=0)
    torch.testing.assert_close(other_scored, scored, rtol=1e-5, atol=0)
    assert float((other_grads - grads).norm() / grads.norm()) < 1e-5


@pytest.mark.parametrize("lengths", [(3, 3, 200), (200, 3, 3), (100, 3, 3, 250, 3)])
def test_no_thread_is_left_without_a_sequence(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """A long sequence at the end has most of the tokens: the shares of several threads end nearest to its end."""
    runtime = loaded(tmp_path, Qwen3Config)
    passes = Passes(runtime, filled_bank(runtime, 24, torch.float32))
    # Each row has a loss of its own, as rows have that are asked for: they stay in their order.
    items = [(row, index) for index, row in enumerate(rows(*lengths))]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3, 4):
            torch.set_num_threads(count)
            found.append(passes.scores(items, [1] * len(items)).losses)
    finally:
        torch.set_num_threads(threads)
    for losses in found[1:]:
        torch.testing.assert_close(losses, found[0], rtol=1e-5, atol=0)


def test_models_of_other_kinds_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = loaded(tmp_path, LlamaConfig)
    model, basis = runtime.model, runtime.basis
    assert MergedDecoder.supports(model, basis)
    for name, value in (("model_type", "unheard-of"), ("hidden_act", "gelu")):
        with monkeypatch.context() as patch:
            patch.setattr(model.config, name, value)
            assert not MergedDecoder.supports(model, basis), name
    # Where some linears have no vectors.
    part = replace(basis, factors=dict(list(basis.factors.items())[:-1]))
    assert not MergedDecoder.supports(model, part)
    monkeypatch.setattr(merged_decoder, "MOST_VALUES", 1000)
    assert not MergedDecoder.supports(model, basis)
