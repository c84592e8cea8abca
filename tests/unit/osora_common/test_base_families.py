"""What is read of transformers' source is what transformers has."""

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from osora_common.base_families import why_not


def test_causal_families_are_those_of_transformers() -> None:
    """Nothing is against any of them but their attention; all else is none of them."""
    for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        reason = why_not({"model_type": family})
        assert reason is None or "attention" in reason
    assert "no causal language model" in str(why_not({"model_type": "vit"}))


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma3", "gemma3_text", "gpt2", "gpt_oss", "smollm3"])
def test_a_family_that_is_used_is_not_refused(family: str) -> None:
    assert why_not({"model_type": family}) is None


def test_a_family_whose_text_model_is_another_is_left_to_that() -> None:
    assert why_not({"model_type": "fuyu"}) is not None
    assert why_not({"model_type": "fuyu", "text_config": {"model_type": "persimmon"}}) is None
