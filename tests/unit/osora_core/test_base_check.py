"""A base comes out as in transformers, or is refused in a sentence: asked of every family that transformers has."""

import gc
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, GptOssConfig, MistralConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from osora_core import attention
from osora_core.base_check import TEXT_TOKENS, WINDOW, check_training, remembered
from osora_core.basis import BasisCache
from osora_core.errors import UnsupportedBase, UserError
from osora_core.inference import InferenceEngine
from osora_core.inference.check import check_generation, checked_engine
from osora_core.runtime import Runtime, usable_length
from tests.support.families import CannotShrinkError, tiny_model
from tests.support.tiny_base import make_tokenizer
from tests.unit.osora_core.inference.test_decoder import make_family

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
# These must be equal, not refused: windows, softcaps, sinks, scaled logits, experts, and the plain ones.
SUPPORTED = {
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3",
    "gemma3_text", "gpt_oss", "gpt2", "phi", "phi3", "granite", "cohere", "cohere2", "olmo2", "smollm3", "starcoder2",
}  # fmt: skip


@pytest.fixture(autouse=True)
def a_few_gigabytes() -> Iterator[None]:
    """Some families make gigabytes of tables whatever their size: such a one fails here, alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    gc.collect()


def load(family: str, folder: Path) -> Runtime:
    return Runtime.load(family, BasisCache(folder / "cache"), path=str(folder), device="cpu", rank=8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")  # of what some families do when they are made
def test_every_family_is_right_or_refused(family: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    try:
        model = tiny_model(family, len(tokenizer))
        model.save_pretrained(tmp_path)
    except CannotShrinkError as error:
        assert family not in SUPPORTED
        pytest.skip(f"transformers makes no small model of it: {error}")
    tokenizer.save_pretrained(tmp_path)
    refusal = None
    try:
        runtime = load(family, tmp_path)
        _, verdict = checked_engine(runtime, tmp_path, rows=2, adapters=2, max_length=128)
    except UserError as error:
        refusal = error
    if refusal is None:
        assert verdict.worst < 1e-4
        assert verdict.positions > TEXT_TOKENS
    else:
        assert family not in SUPPORTED, refusal.message
        assert "family" in refusal.message
        assert "memory" not in refusal.message
        assert "\n" not in refusal.message
        assert len(refusal.message) < 500
        assert refusal.next_action


def test_hardly_a_family_is_left_out() -> None:
    """Those that transformers makes no small model of are few, and stay few."""
    tokenizer = make_tokenizer()

    def is_made(family: str) -> bool:
        try:
            tiny_model(family, len(tokenizer))
        except CannotShrinkError:
            return False
        return True

    left_out = [family for family in FAMILIES if not is_made(family)]
    assert len(left_out) < len(FAMILIES) / 7, left_out


WINDOWED: dict[str, tuple[type, dict[str, Any]]] = {
    "window": (MistralConfig, {"sliding_window": 30}),
    "softcap": (Gemma2Config, {"sliding_window": 30, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "sinks": (GptOssConfig, {"sliding_window": 30, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


@pytest.mark.parametrize("part", ["sliding_window", "softcap", "s_aux"])
def test_a_part_of_attention_that_is_left_out_is_noticed(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, extra = WINDOWED[{"sliding_window": "window", "s_aux": "sinks"}.get(part, part)]
    runtime = load("base", make_family(tmp_path, kind, **extra))
    engine = InferenceEngine(runtime, rows=2, adapters=2)
    whole = attention.attend

    def without(*arguments: Any, **named: Any) -> Any:
        return whole(*arguments, **(named | {part: None}))

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, without)
    for check in (lambda: check_training(runtime), lambda: check_generation(engine)):
        with pytest.raises(UnsupportedBase, match=r"nats at position \d+ of \d+, where 0.002 are allowed"):
            check()


def test_a_base_that_rounds_loudly_is_taken_and_what_is_left_out_of_it_still_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_family(tmp_path, MistralConfig, sliding_window=30)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] *= 60
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    cache = BasisCache(tmp_path / "cache")
    runtime = Runtime.load("base", cache, path=str(tmp_path), device="cpu", dtype=torch.bfloat16, rank=8)
    verdict = check_training(runtime)
    assert 0.35 < verdict.worst < verdict.tolerance
    whole = attention.attend

    def without_window(*arguments: Any, **named: Any) -> Any:
        return whole(*arguments, **(named | {"sliding_window": None}))

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, without_window)
    with pytest.raises(UnsupportedBase, match="are allowed"):
        check_training(runtime)


@pytest.mark.parametrize("name", WINDOWED)
def test_texts_far_beyond_a_window_train_and_decode_as_in_transformers(name: str, tmp_path: Path) -> None:
    kind, extra = WINDOWED[name]
    path = make_family(tmp_path, kind, **extra)
    runtime = load("base", path)
    assert runtime.max_length == 64 > 30
    assert check_training(runtime).worst < 1e-4
    assert check_generation(InferenceEngine(runtime, rows=2, adapters=2)).worst < 1e-4
    # The windows are as long as they were.
    assert runtime.config.sliding_window == 30 > WINDOW


def test_a_verdict_is_remembered_and_a_refusal_is_not(tmp_path: Path) -> None:
    runtime = load("base", make_family(tmp_path / "model", MistralConfig, sliding_window=None))
    asked = []

    def check() -> Any:
        asked.append(1)
        if len(asked) == 1:
            raise UnsupportedBase("no")
        return check_training(runtime)

    with pytest.raises(UnsupportedBase):
        remembered(runtime, tmp_path, "training", check)
    verdicts = [remembered(runtime, tmp_path, "training", check) for _ in range(3)]
    assert len(asked) == 2
    assert verdicts[0] == verdicts[2]
    remembered(runtime, tmp_path, "generation", check)
    assert len(asked) == 3


def test_of_those_that_start_together_one_asks(tmp_path: Path) -> None:
    runtime = load("base", make_family(tmp_path / "model", MistralConfig, sliding_window=None))
    asked, together = [], Barrier(4)

    def check() -> Any:
        asked.append(1)
        return check_training(runtime)

    def start(_: int) -> Any:
        together.wait()
        return remembered(runtime, tmp_path, "another path", check)

    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(start, range(4)))
    assert len(asked) == 1
    assert len(set(verdicts)) == 1


def test_a_base_is_checked_when_it_is_loaded_and_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_family(tmp_path, MistralConfig, sliding_window=None)
    load("base", path)

    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr("osora_core.base_check.check_training", fails)
    load("base", path)
    monkeypatch.setattr("osora_core.base_check.RULES", 0)
    with pytest.raises(AssertionError, match="asked again"):
        load("base", path)


def test_an_engine_whose_texts_are_shorter_than_the_window_is_checked_without_it(tmp_path: Path) -> None:
    runtime = load("base", make_family(tmp_path, MistralConfig, sliding_window=50))
    checked = [checked_engine(runtime, tmp_path, rows=2, max_length=length) for length in (48, 64)]
    assert [verdict.holds for _, verdict in checked] == [True, True]
    assert [engine.execution for engine, _ in checked] == ["Flat", "Padded"]


def test_where_rotary_embeddings_change_with_the_length_a_base_reads_as_far_as_they_do_not() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
    assert usable_length(MistralConfig(max_position_embeddings=128, rope_parameters=rope)) == 32
    assert usable_length(MistralConfig(max_position_embeddings=128)) == 128


def test_attention_in_pieces_is_the_formula() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 5)
    sinks = torch.randn(4)
    module = torch.nn.Module()
    out, _ = attention.attend(module, query, key, value, None, scaling=0.3, sliding_window=3, softcap=2.0, s_aux=sinks)
    for row in range(2):
        for head in range(4):
            for place in range(6):
                seen = range(max(0, place - 2), place + 1)
                scores = [float(query[row, head, place].double() @ key[row, head // 2, s].double()) * 0.3 for s in seen]
                capped = torch.tensor([*(2 * torch.tanh(torch.tensor(s / 2)) for s in scores), sinks[head]]).double()
                weights = capped.softmax(0)[:-1]
                expected = sum(w * value[row, head // 2, s].double() for w, s in zip(weights, seen, strict=True))
                torch.testing.assert_close(out[row, place, head].double(), expected, rtol=1e-5, atol=1e-6)
