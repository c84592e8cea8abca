"""A step of decoding, wired by us, is what transformers computes, for each family that it is used for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.families import FAMILIES
from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.inference.banks import Places
from osora_core.inference.decoder import Decoder
from osora_core.inference.execution import Flat
from osora_core.inference.row_adapters import RowAdapters
from osora_core.inference.segments import Segment, linear, segments_of
from osora_core.linear import OsoraLinear
from osora_core.operator import osora_update_reference
from osora_core.runtime import Runtime
from tests.support.inference import adapter, make_banks, run
from tests.support.tiny_base import make_family


@pytest.mark.parametrize("kind", [MistralConfig, Qwen2Config, Qwen3Config])
def test_every_family_decodes_as_transformers_does(tmp_path: Path, kind: type[PretrainedConfig]) -> None:
    extra = {"sliding_window": None} if kind is MistralConfig else {}
    path = make_family(tmp_path / "model", kind, **extra)
    assert AutoConfig.from_pretrained(path).model_type in FAMILIES
    runtime = Runtime.load("family", BasisCache(tmp_path / "cache"), path=str(path), device="cpu", rank=8)
    assert Decoder.supports(runtime)
    prompt = (5, 17, 40, 23, 9)
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    expected = reference.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 5), max_new_tokens=12, do_sample=False
    )[0, 5:]
    params = SamplingParams(max_tokens=12, logprobs=True)
    scores = run(InferenceEngine(runtime, rows=2), [Request("a", prompt, params)])["a"].scores
    generated = [token for token in expected.tolist() if token not in runtime.eos_ids]
    assert [score.token for score in scores] == generated
    # With an adapter: a step of ours after a prompt, against the whole text read by transformers.
    mine = Request("b", prompt, SamplingParams(max_tokens=8, logprobs=True), adapter(runtime, "a", 1))
    decoded = run(InferenceEngine(runtime, rows=2), [mine])["b"].scores
    whole = (*prompt, *(score.token for score in decoded[:-1]))
    last = Request("c", whole, SamplingParams(max_tokens=1, logprobs=True), mine.adapter)
    read = run(InferenceEngine(runtime, rows=1), [last])["c"].scores[0]
    assert (read.token, decoded[-1].token) == (decoded[-1].token, read.token)
    assert read.logprob == pytest.approx(decoded[-1].logprob, abs=1e-4)


def test_a_base_whose_layers_look_back_through_a_window_is_decoded_beyond_it(tmp_path: Path) -> None:
    path = make_family(tmp_path / "model", MistralConfig, sliding_window=16)
    runtime = Runtime.load("family", BasisCache(tmp_path / "cache"), path=str(path), device="cpu", rank=8)
    engine = InferenceEngine(runtime, rows=1)
    assert engine.max_length == 64
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    prompt = tuple(5 + (7 * place) % 40 for place in range(30))
    expected = reference.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 30), max_new_tokens=20, do_sample=False
    )[0, 30:]
    (answer,) = run(engine, [Request("0", prompt, SamplingParams(max_tokens=20))]).values()
    assert answer.text == runtime.tokenizer.decode(expected, skip_special_tokens=True)


NO_CACHE: Any = None


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("ranks", [(16, 3, 0), (5, 5, 2), (0, 0, 1)])
def test_segments_add_what_the_operator_adds(runtime: Runtime, ranks: tuple[int, ...], tokens: int) -> None:
    """Rows of several ranks in one batch, after a move, against the reference in float64."""
    bank = Bank(runtime.basis, 3, device=runtime.device)
    adapters = RowAdapters(runtime.basis, 5, runtime.device, make_banks(bank))
    for row, rank in enumerate(ranks):
        values = adapter(runtime, f"{row}", row).values.clone()
        for span in runtime.basis.spans:
            values[span.sigma][rank:] = 0
            values[span.delta] *= rank > 0
        bank.write(row + 1, values, rank)
    # The rows stand behind another one, and the last takes a detour.
    for row, rank in enumerate(ranks[:2]):
        adapters.fill(1 + row, Places(row + 1, rank))
    adapters.fill(4, Places(3, ranks[2]))
    adapters.move(4, 3)
    assert adapters.rank(1, 3) == max(ranks)
    # Two segments of one flat sequence: a token for each of two rows, and some of a third.
    one, some = adapters.view(1, 2, single=True), adapters.view(3, 1, single=tokens == 1)
    segments = [Segment(0, 2, 1, NO_CACHE, one, whole=False), Segment(2, 1, tokens, NO_CACHE, some, whole=False)]
    slots = torch.tensor([1, 2, *[3] * tokens])
    layers = [module for module in runtime.model.modules() if isinstance(module, OsoraLinear)]
    for layer in layers:
        x = torch.randn(2 + tokens, layer.Vt.shape[1])
        sigma, delta = bank.layers[layer.index]
        args = (t.double() for t in (layer.U, layer.S, layer.Vt, sigma, delta))
        expected = layer.base(x).double() + osora_update_reference(x.double(), *args, slots, bank.ranks)
        with torch.inference_mode():
            actual = linear(layer, x, segments)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([], []),
        ([5], [1]),
        ([3, 3, 3], [3]),
        ([1, 9], [2]),
        ([1, 10], [1, 1]),
        ([1, 2, 3, 4, 20, 21, 30, 30, 31], [4, 2, 3]),
    ],
)
def test_little_of_what_is_read_is_padding(lengths: list[int], rows: list[int]) -> None:
    found = segments_of(lengths)
    assert [own.stop - own.start for own in found] == rows
    assert [length for own in found for length in lengths[own]] == lengths


def test_prompts_are_read_while_others_decode(runtime: Runtime) -> None:
    """One pass for both: a request that joins does not make those that run wait for a pass of its own."""
    engine = InferenceEngine(runtime, rows=3)
    passes: list[int] = []
    flat = engine._execution
    assert isinstance(flat, Flat)
    run_decoder = flat._decoder.hidden_states

    def counted(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(tokens))
        return run_decoder(tokens, *rest)

    flat._decoder.hidden_states = counted  # type: ignore[method-assign]
    engine.add(Request("a", (5, 9, 11), SamplingParams(max_tokens=9), adapter(runtime, "a", 1)))
    engine.step()
    engine.add(Request("b", (5, 9, 11, 12), SamplingParams(max_tokens=9), adapter(runtime, "b", 2)))
    engine.add(Request("c", (7, 8), SamplingParams(max_tokens=9)))
    passes.clear()
    names = {output.request_id for output in engine.step()}
    assert names == {"a", "b", "c"}
    assert passes == [1 + 2 * 4]  # a's token, and both prompts at the longer one's length
