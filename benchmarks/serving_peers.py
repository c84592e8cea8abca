"""The peers of the serving benchmark: transformers' generate and continuous batching, PEFT's mixed batches."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from benchmarks.serving_workload import RANDOM, Question
from benchmarks.training import make_base
from osora_core import base_models
from osora_core.weights import ALL_LINEAR

LORA_RANK = 16


def load_model(base: str, device: str, layers: int) -> PreTrainedModel:
    """The unmodified base, as transformers loads it; a random one for RANDOM."""
    if base == RANDOM:
        return make_base(device, layers).eval().requires_grad_(False)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base_models.resolve(base), dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    model = model.to(device).eval()  # type: ignore[arg-type]
    model.requires_grad_(False)
    return model


def static_generate(model: Any, questions: Sequence[Question], batch: int, **options: Any) -> float:
    """Wanted tokens/s of `generate` on left-padded batches: each runs until its longest answer is there."""
    device = model.device
    start = time.perf_counter()
    for first in range(0, len(questions), batch):
        part = questions[first : first + batch]
        width = max(len(q.prompt) for q in part)
        ids = torch.tensor([[0] * (width - len(q.prompt)) + list(q.prompt) for q in part], device=device)
        mask = torch.tensor([[0] * (width - len(q.prompt)) + [1] * len(q.prompt) for q in part], device=device)
        longest = max(q.max_tokens for q in part)
        with torch.inference_mode():
            model.generate(
                input_ids=ids, attention_mask=mask, min_new_tokens=longest, max_new_tokens=longest, do_sample=False,
                pad_token_id=0, **options,
            )  # fmt: skip
    _wait(device)
    return sum(q.max_tokens for q in questions) / (time.perf_counter() - start)


def peft_mixed(model: PreTrainedModel, questions: Sequence[Question], batch: int) -> float:
    """Wanted tokens/s of PEFT LoRA where every row of a batch names an adapter of its own."""
    config = LoraConfig(r=LORA_RANK, target_modules=ALL_LINEAR, init_lora_weights=False)
    # Made where the base lies, because random numbers take long on a CPU; in its dtype, in which they run faster.
    with torch.device(model.device):
        mixed = get_peft_model(model, config, adapter_name="a0", autocast_adapter_dtype=False)
        for index in range(1, batch):
            mixed.add_adapter(f"a{index}", config, autocast_adapter_dtype=False)
    mixed.eval().to(model.dtype)
    try:
        return static_generate(mixed, questions, batch, adapter_names=[f"a{index}" for index in range(batch)])
    finally:
        mixed.unload()


def continuous_batching(model: PreTrainedModel, questions: Sequence[Question]) -> float:
    """Tokens/s of transformers' own continuous batching, with the lengths that are wanted."""
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0
    )
    with model.continuous_batching_context_manager(generation_config=config) as manager:  # type: ignore[operator]
        start = time.perf_counter()
        for question in questions:
            manager.add_request(list(question.prompt), max_new_tokens=question.max_tokens, eos_token_id=-1)
        tokens = 0
        for _ in questions:
            result = manager.get_result(timeout=20)
            if result is None or result.error is not None:
                raise RuntimeError(f"continuous batching failed: {result and result.error}")
            tokens += len(result.generated_tokens)
        return tokens / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
