"""Real LoRAs, made with PEFT, and what PEFT itself answers with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from osora_core.adapter import CONFIG_NAME, WEIGHTS_NAME
from osora_core.inference import LoraRow
from osora_core.lora import Lora
from osora_core.runtime import Runtime


def make_lora(base: str | Path, folder: Path, *, seed: int = 0, size: float = 0.2, **config: Any) -> Path:
    """A LoRA of random A and B, large enough to change what is said, saved by PEFT."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * size)
    adapted.save_pretrained(folder)
    return folder


def lora_row(runtime: Runtime, folder: Path, key: str | None = None) -> LoraRow:
    """The LoRA in a folder, as the engine takes it."""
    lora = Lora.from_files((folder / CONFIG_NAME).read_bytes(), (folder / WEIGHTS_NAME).read_bytes())
    return LoraRow(key or str(folder), lora.factors(runtime.basis, runtime.model.dtype), lora.rank)


def peft_answer(base: str | Path, folder: Path, prompt: Sequence[int], tokens: int) -> tuple[list[int], torch.Tensor]:
    """The tokens that PEFT generates greedily, and the log-probabilities [tokens, vocabulary] before each."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(model, folder).eval()
    with torch.inference_mode():
        whole = adapted.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=tokens,
            do_sample=False,
        )  # fmt: skip
        scores = adapted(input_ids=whole).logits[0].log_softmax(dim=-1)
    return whole[0, len(prompt) :].tolist(), scores[len(prompt) - 1 : -1]
