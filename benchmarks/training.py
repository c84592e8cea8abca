"""Time and memory of a training step: OSoRA, PEFT's LoRA r=16 and PEFT's VeRA, side by side through PEFT.

    python -m benchmarks.training
    python -m benchmarks.training --device cuda --json training.json

On a GPU the base is random and Llama-8B-shaped (bfloat16, made on the device; OSoRA's factors are random too, which
changes nothing about time and memory). On a CPU it is osora-tiny in float32. A step is forward, backward and AdamW;
its time is the median of `--steps`, its memory the highest that was allocated. `kept` is what the forward pass keeps
for the backward pass, without weights. Every row is measured by itself: one that fails is reported and the others run.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
from peft import LoraConfig, PeftModel, VeraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.report import Report, parser
from osora_core import OsoraConfig, base_models
from osora_core.basis import Basis, BasisCache, Factors
from osora_core.weights import ALL_LINEAR, find_targets

CONFIGS: dict[str, Callable[[], Any]] = {
    "osora r=128": lambda: OsoraConfig(r=128, target_modules=ALL_LINEAR, task_type="CAUSAL_LM"),
    "lora r=16": lambda: LoraConfig(r=16, lora_alpha=16, target_modules=ALL_LINEAR, task_type="CAUSAL_LM"),
    "vera r=256": lambda: VeraConfig(r=256, target_modules=ALL_LINEAR, task_type="CAUSAL_LM"),
}
# Rows and tokens a row; the first is the one that the targets are about.
SHAPES = {"cuda": ((4, 1024), (1, 256)), "cpu": ((4, 128), (1, 64))}
TIME_TARGET, MEMORY_TARGET = 1.0, 0.85
_WARM_UP = 2


def make_base(device: str, layers: int) -> PreTrainedModel:
    """The base on its device."""
    if device == "cpu":
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base_models.resolve("osora-tiny"), dtype=torch.float32
        )
        return model
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        dtype=torch.bfloat16,
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def make_random_basis(base: PreTrainedModel, rank: int) -> Basis:
    """Random factors for a random base: neither a decomposition nor a hash of 8B weights."""

    def factors(weight: Tensor) -> Factors:
        (d_out, d_in), device, dtype = weight.shape, weight.device, weight.dtype
        U = torch.randn(d_out, rank, device=device, dtype=dtype) / d_out**0.5
        Vt = torch.randn(rank, d_in, device=device, dtype=dtype) / d_in**0.5
        return Factors(U, torch.linspace(2, 1, rank, device=device), Vt)

    modules = find_targets(base, ALL_LINEAR)
    return Basis({name: factors(cast(Tensor, module.weight)) for name, module in modules.items()}, "random", rank)


@contextmanager
def random_basis(base: PreTrainedModel, rank: int) -> Iterator[None]:
    """Let the tuner find random factors."""
    with mock.patch.object(BasisCache, "get", return_value=make_random_basis(base, rank)):
        yield


def wrap(base: PreTrainedModel, method: str) -> PeftModel:
    """The base with one trainable adapter."""
    config = CONFIGS[method]()
    if isinstance(config, OsoraConfig) and base.device.type == "cuda":
        with random_basis(base, config.r):
            model: Any = get_peft_model(base, config)
    else:
        model = get_peft_model(base, config)
    # VeRA leaves its matrices on the CPU and would copy them at every step.
    return cast(PeftModel, model.to(base.device))


def kept_bytes(model: PeftModel, tokens: Tensor) -> int:
    """Bytes that one forward pass keeps for its backward pass, each storage once, without the model's own."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: one that keeps its own output would keep itself alive for ever.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        # Alive until everything is counted: a freed address would be used again.
        loss = model(input_ids=tokens, labels=tokens).loss
    total = sum(kept.values())
    del loss
    return total


def measure(model: PeftModel, tokens: Tensor, steps: int) -> dict[str, float]:
    """Median milliseconds of a step, and memory in GiB."""
    cuda = tokens.is_cuda
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    taken = []
    for index in range(_WARM_UP + steps):
        if cuda and index == _WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    row = {"milliseconds": 1e3 * statistics.median(taken[_WARM_UP:])}
    if cuda:
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    optimizer.zero_grad(set_to_none=True)
    row["kept_gib"] = kept_bytes(model, tokens) / 2**30
    return row


def run(report: Report, base: PreTrainedModel, methods: list[str], steps: int) -> None:
    """Every method with and without checkpointing at every shape."""
    for method in methods:
        with report.guard(method=method):
            model = wrap(base, method).train()
            trained = model.get_nb_trainable_parameters()[0]
            for checkpointing in (False, True):
                _checkpoint(model, checkpointing)
                for rows, length in SHAPES[report.device]:
                    row = {"method": method, "tokens": f"{rows}x{length}", "checkpointing": checkpointing}
                    with report.guard(**row):
                        tokens = torch.randint(0, 4096, (rows, length), device=base.device)
                        report.add(**row, parameters=trained, **measure(model, tokens, steps))
                    _free()
            _checkpoint(model, False)
            base = cast(PreTrainedModel, model.unload())
            del model
            _free()


def _checkpoint(model: PeftModel, on: bool) -> None:
    base: Any = model.get_base_model()
    if on:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        base.gradient_checkpointing_disable()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def targets(report: Report) -> None:
    """OSoRA over LoRA at the first shape without checkpointing. Only a GPU and a large base can say."""
    rows, length = SHAPES["cuda"][0]
    shape = f"{rows}x{length}"
    found = {
        row["method"]: row
        for row in report.rows
        if report.device == "cuda" and row.get("tokens") == shape and not row["checkpointing"] and "failed" not in row
    }
    for what, key, limit in (("step time", "milliseconds", TIME_TARGET), ("peak memory", "peak_gib", MEMORY_TARGET)):
        both = "osora r=128" in found and "lora r=16" in found
        ratio = found["osora r=128"][key] / found["lora r=16"][key] if both else None
        met = ratio is not None and ratio <= limit
        report.target(f"{what} over LoRA r=16 at {shape} on a GPU", ratio, "x", f"<= {limit:g}", met)


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--layers", type=int, default=32, help="decoder layers of the base on a GPU (default: 32)")
    arguments.add_argument("--steps", type=int, default=5, help="steps that are timed (default: 5)")
    arguments.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), help="what to measure")
    options = arguments.parse_args()
    report = Report(
        options.device,
        {
            "method": "12",
            "tokens": "8",
            "checkpointing": "13",
            "parameters": "12,",
            "milliseconds": "12.1f",
            "peak_gib": "9.2f",
            "kept_gib": "9.3f",
        },
    )
    run(report, make_base(options.device, options.layers), options.methods, options.steps)
    targets(report)
    report.write(options.json)


if __name__ == "__main__":
    main()
