"""Models with a head for a task, whose random weights are no part of the base, and PEFT's Auto classes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from osora_core import OsoraConfig
from osora_core.tuner import OsoraTunerLinear
from osora_core.weights import find_targets, fingerprint_base
from tests.support.tiny_models import VOCABULARY, make_model, make_tokens

TOKENS = make_tokens()
HEADS = {"llama": "score", "roberta": "classifier"}


def make_classifier(kind: str, head_seed: int = 0) -> PreTrainedModel:
    """A classifier whose pretrained part is the same for every `head_seed`. Roberta's head holds linears of its own."""
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "pad_token_id": 0, "num_labels": 3, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    model: PreTrainedModel
    if kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**shape))
    else:
        model = RobertaForSequenceClassification(RobertaConfig(**shape, bos_token_id=1, eos_token_id=2))
    torch.manual_seed(100 + head_seed)
    with torch.no_grad():
        for parameter in model.get_submodule(HEADS[kind]).parameters():
            parameter.normal_(std=0.2)
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=TOKENS).logits
    return result


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_no_part_of_a_base(kind: str) -> None:
    model = make_classifier(kind)
    assert fingerprint_base(model) == fingerprint_base(make_classifier(kind, head_seed=1))
    assert not any(name.startswith(HEADS[kind]) for name in find_targets(model, "all-linear"))
    with torch.no_grad():
        next(model.base_model.parameters()).add_(0.01)
    assert fingerprint_base(model) != fingerprint_base(make_classifier(kind))


@pytest.mark.parametrize("kind", HEADS)
def test_a_classifier_is_saved_with_its_head(kind: str, tmp_path: Path) -> None:
    saved = get_peft_model(make_classifier(kind), OsoraConfig(r=8, task_type="SEQ_CLS", init_weights=False))
    assert isinstance(saved.base_model.model.get_submodule(HEADS[kind]), ModulesToSaveWrapper)
    saved.save_pretrained(tmp_path)
    other = make_classifier(kind, head_seed=1)
    loaded = PeftModel.from_pretrained(other, tmp_path)
    assert torch.equal(logits(loaded), logits(saved.eval()))


@pytest.mark.parametrize("kind", HEADS)
def test_without_a_task_the_head_is_left_out(kind: str, tmp_path: Path) -> None:
    saved = get_peft_model(make_classifier(kind), OsoraConfig(r=8, init_weights=False))
    adapted = [name for name, module in saved.named_modules() if isinstance(module, OsoraTunerLinear)]
    assert adapted
    assert not any(f".{HEADS[kind]}" in name for name in adapted)
    saved.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_classifier(kind, head_seed=1), tmp_path)
    assert not torch.equal(logits(loaded), logits(saved.eval()))
    loaded.base_model.model.get_submodule(HEADS[kind]).load_state_dict(
        saved.base_model.model.get_submodule(HEADS[kind]).state_dict()
    )
    assert torch.equal(logits(loaded), logits(saved))


@pytest.mark.filterwarnings("ignore:.*newly initialized")
def test_a_classifier_of_a_language_model_loads_in_another_dtype(tmp_path: Path) -> None:
    """Its head is random at each load, so it is no reason to take the weights for changed ones."""
    make_model().save_pretrained(tmp_path / "base")
    load = LlamaForSequenceClassification.from_pretrained
    saved = get_peft_model(load(tmp_path / "base"), OsoraConfig(r=8, task_type="SEQ_CLS", init_weights=False))
    saved.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(load(tmp_path / "base", dtype=torch.bfloat16), tmp_path / "adapter")
    assert (logits(loaded).float() - logits(saved.eval())).abs().max() < 0.1 * logits(saved).abs().max()


def test_the_auto_classes_load_adapters(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "lm")
    make_classifier("llama").save_pretrained(tmp_path / "classifier")
    for name, task, auto in (
        ("lm", "CAUSAL_LM", AutoPeftModelForCausalLM),
        ("classifier", "SEQ_CLS", AutoPeftModelForSequenceClassification),
    ):
        base: Any = auto._target_class.from_pretrained(tmp_path / name)
        saved = get_peft_model(base, OsoraConfig(r=8, task_type=task, init_weights=False))
        saved.save_pretrained(tmp_path / f"{name}-adapter")
        loaded = auto.from_pretrained(tmp_path / f"{name}-adapter")
        assert torch.equal(logits(loaded), logits(saved.eval()))


@pytest.mark.parametrize(
    "asked",
    [
        "import transformers.utils; transformers.utils.is_peft_available()",
        "import importlib.util as u; u.find_spec('peft')",
    ],
)
def test_to_ask_whether_peft_is_installed_does_not_forget_the_method(asked: str) -> None:
    """transformers asks before anybody imports PEFT; the adapter is then loaded with `import osora_core` alone."""
    check = (
        f"import osora_core; {asked}; from peft import get_peft_config; "
        "assert type(get_peft_config({'peft_type': 'OSORA'})).__name__ == 'OsoraConfig'"
    )
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
