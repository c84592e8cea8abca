"""A resident base: how long a text may be, the same for training, rendering and serving."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
)

from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.errors import DataError, UnsupportedBase
from osora_core.inference import InferenceEngine
from osora_core.runtime import Runtime, usable_length
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.inference.test_decoder import make_family


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=64), 64),
        (GPT2Config(n_positions=48), 48),
        (MistralConfig(max_position_embeddings=64, sliding_window=16), 64),  # windows are the attention's concern
    ],
)
def test_a_text_may_be_as_long_as_the_base_reads(config: PreTrainedConfig, length: int) -> None:
    assert usable_length(config) == length


def test_a_base_that_does_not_say_how_much_it_reads_is_refused() -> None:
    with pytest.raises(UnsupportedBase, match="'mamba' does not say how many tokens it reads"):
        usable_length(MambaConfig())


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Path]:
    folder = tmp_path_factory.mktemp("sliding")
    path = make_family(folder / "model", MistralConfig, sliding_window=16)
    return Runtime.load("family", BasisCache(folder / "cache"), path=str(path), device="cpu", rank=8), path


def row(tokens: int, line: int = 1) -> Example:
    return Example(tuple(range(20, 20 + tokens)), (True,) * tokens, line)


def test_training_reads_through_the_window_as_the_model_does(sliding: tuple[Runtime, Path]) -> None:
    runtime, path = sliding
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    assert runtime.max_length == 64 > reference.config.sliding_window == 16
    longest = row(runtime.max_length)
    ids = torch.tensor([longest.tokens])
    expected = reference(input_ids=ids, labels=ids).loss.item()
    (recorder,) = train(runtime, [longest], JobSpec(epochs=1, rank=8), valid=[longest])
    assert recorder.evaluations[0].loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("role", ["train", "valid"])
def test_what_is_longer_than_the_base_reads_is_not_trained_or_measured(
    sliding: tuple[Runtime, Path], role: str
) -> None:
    runtime, _ = sliding
    rows = {"train": [row(5)], "valid": [row(5)], role: [row(5), row(65, line=7)]}
    engine = TrainingEngine(runtime, max_jobs=1)
    with pytest.raises(DataError, match="line 7: the row is 65 tokens long, and this base reads at most 64"):
        engine.add(TrainingJob("a", JobSpec(epochs=1, rank=8), rows["train"], Recorder(), rows["valid"]))
    assert engine.bank.free == 1


def test_training_rendering_and_serving_have_one_limit(sliding: tuple[Runtime, Path]) -> None:
    runtime, _ = sliding
    assert InferenceEngine(runtime, rows=1).max_length == runtime.max_length == 64
    with pytest.raises(DataError, match="the limit is 64"):
        Renderer(runtime.tokenizer, runtime.max_length).render({"prompt": "x" * 90, "completion": "y"}, 1)
