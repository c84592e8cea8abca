"""A resident base: how long a text may be, the same for training, rendering and serving."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.errors import DataError
from osora_core.inference import InferenceEngine
from osora_core.runtime import Runtime, usable_length
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.inference.test_decoder import make_family

SLIDING: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 16, "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=64), 64),
        (MistralConfig(max_position_embeddings=64, sliding_window=None), 64),
        (MistralConfig(max_position_embeddings=64, sliding_window=16), 16),
        (MistralConfig(max_position_embeddings=64, sliding_window=4096), 64),
        (Qwen2Config(max_position_embeddings=64, sliding_window=16), 64),  # which does not use it
        (Qwen2Config(max_position_embeddings=64, max_window_layers=2, **SLIDING), 16),  # in two of four layers
        (Qwen2Config(max_position_embeddings=64, max_window_layers=4, **SLIDING), 64),  # in none of four
        (Qwen3Config(max_position_embeddings=64, max_window_layers=0, **SLIDING), 16),
        (Gemma3TextConfig(max_position_embeddings=64, sliding_window=16), 16),
    ],
)
def test_a_text_may_be_as_long_as_every_layer_looks_back(config: PreTrainedConfig, length: int) -> None:
    assert usable_length(config) == length


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Path]:
    folder = tmp_path_factory.mktemp("sliding")
    path = make_family(folder / "model", MistralConfig, sliding_window=16)
    return Runtime.load("family", BasisCache(folder / "cache"), path=str(path), device="cpu", rank=8), path


def row(tokens: int, line: int = 1) -> Example:
    return Example(tuple(range(20, 20 + tokens)), (True,) * tokens, line)


def test_within_the_window_training_reads_as_the_model_does(sliding: tuple[Runtime, Path]) -> None:
    runtime, path = sliding
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    longest = row(runtime.max_length)
    ids = torch.tensor([longest.tokens])
    expected = reference(input_ids=ids, labels=ids).loss.item()
    (recorder,) = train(runtime, [longest], JobSpec(epochs=1, rank=8), valid=[longest])
    assert recorder.evaluations[0].loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("role", ["train", "valid"])
def test_beyond_the_window_nothing_is_trained_or_measured(sliding: tuple[Runtime, Path], role: str) -> None:
    """There the attention here would differ from the model's own, and nobody would be told."""
    runtime, _ = sliding
    rows = {"train": [row(5)], "valid": [row(5)], role: [row(5), row(17, line=7)]}
    engine = TrainingEngine(runtime, max_jobs=1)
    with pytest.raises(DataError, match="line 7: the row is 17 tokens long, and this base reads at most 16"):
        engine.add(TrainingJob("a", JobSpec(epochs=1, rank=8), rows["train"], Recorder(), rows["valid"]))
    assert engine.bank.free == 1


def test_training_rendering_and_serving_have_one_limit(sliding: tuple[Runtime, Path]) -> None:
    runtime, _ = sliding
    assert InferenceEngine(runtime, rows=1).max_length == runtime.max_length == 16
    with pytest.raises(DataError, match="the limit is 16"):
        Renderer(runtime.tokenizer, runtime.max_length).render({"prompt": "x" * 40, "completion": "y"}, 1)
