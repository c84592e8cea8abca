"""The methods that `benchmarks.quality` compares, behind one interface: train on examples, then answer.

OSoRA learns in the service's own training engine. Its peers learn through PEFT in the plainest loop that gives them the
same batches, loss, schedule, clipping and optimizer settings.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from peft import LoraConfig, PeftConfig, VeraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import ALL_LINEAR
from osora_core.data import Example, batch_order, pad, split_by_tokens
from osora_core.linear import use_slots
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.optimizer import BETA1, BETA2, EPSILON

TOKEN_BUDGET = 8192


class Diverged(Exception):
    """The loss is no number any more: this rate is too high for the method."""


@dataclass(frozen=True)
class Learned:
    """What training left. `answer` gives the logits [M, vocabulary] of a padded batch's counted positions."""

    answer: Callable[[Tensor, Tensor], Tensor]
    parameters: int
    bytes: int


class Learner(Protocol):
    """A method. `learn` begins anew from the base each time."""

    def learn(self, examples: Sequence[Example], spec: JobSpec) -> Learned: ...


@dataclass(frozen=True)
class Osora:
    """OSoRA as the service trains it."""

    runtime: Runtime

    def learn(self, examples: Sequence[Example], spec: JobSpec) -> Learned:
        engine = TrainingEngine(self.runtime, max_jobs=1, token_budget=TOKEN_BUDGET)
        observer = _Observer()
        engine.add(TrainingJob("quality", spec, examples, observer))
        while engine.step():
            pass
        if observer.adapter is None:
            raise Diverged(str(observer.error))
        adapter, runtime = observer.adapter, self.runtime
        bank = Bank(runtime.basis, 1, device=runtime.device)
        bank.write(1, adapter.to_row(runtime.basis), adapter.rank)

        def answer(inputs: Tensor, positions: Tensor) -> Tensor:
            with use_slots(bank, torch.ones(len(inputs), dtype=torch.long, device=runtime.device)):
                hidden = runtime.hidden_states(inputs)
            return runtime.logits(hidden[positions[:, 0], positions[:, 1]])

        parameters = {"both": adapter.parameters, "s": _count(adapter.sigma), "o": _count(adapter.delta)}[spec.train]
        return Learned(answer, parameters, len(adapter.files()["adapter_model.safetensors"]))


def _count(vectors: Any) -> int:
    return sum(vector.numel() for vector in vectors.values())


class _Observer:
    """Keeps the end of a job and lets the rest go by."""

    adapter: Adapter | None = None
    error: Exception | None = None

    def progress(self, progress: Any) -> None: ...
    def evaluated(self, evaluation: Any) -> None: ...
    def checkpoint(self, checkpoint: Any) -> None: ...

    def finished(self, outcome: Any) -> None:
        self.adapter = outcome.adapter

    def failed(self, error: Exception) -> None:
        self.error = error


@dataclass(frozen=True)
class Peer:
    """A method of PEFT, or full fine-tuning where there is no config."""

    base: PreTrainedModel
    config: Callable[[], PeftConfig] | None

    def learn(self, examples: Sequence[Example], spec: JobSpec) -> Learned:
        torch.manual_seed(spec.seed)
        model: Any = copy.deepcopy(self.base).requires_grad_(self.config is None)
        if self.config is not None:
            model = get_peft_model(model, self.config())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        _train(model, trained, examples, spec)
        state = dict(model.named_parameters()) if self.config is None else get_peft_model_state_dict(model)
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

        def answer(inputs: Tensor, positions: Tensor) -> Tensor:
            return _answer(model, inputs, positions)

        return Learned(answer, sum(parameter.numel() for parameter in trained), len(save(stored)))


def _answer(model: Any, inputs: Tensor, positions: Tensor) -> Tensor:
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = decoder.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    return cast(Tensor, decoder.get_output_embeddings()(hidden[positions[:, 0], positions[:, 1]]))


def _train(model: Any, trained: list[Any], examples: Sequence[Example], spec: JobSpec) -> None:
    """What the service's engine does for a job, for any model: token-mean loss, clipping, Adam, the spec's schedule."""
    optimizer = torch.optim.Adam(trained, betas=(BETA1, BETA2), eps=EPSILON)
    device = trained[0].device
    per_epoch = -(-len(examples) // spec.batch_size)
    for step in range(spec.epochs * per_epoch):
        epoch, index = divmod(step, per_epoch)
        rows = batch_order(len(examples), spec.batch_size, spec.seed, epoch)[index]
        batch = [examples[row] for row in rows]
        counted = sum(example.loss_tokens for example in batch)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for group in split_by_tokens([(example, None) for example in batch], TOKEN_BUDGET):
            padded = pad([example for example, _ in group], device)
            logits = _answer(model, padded.inputs, padded.positions).float()
            loss = F.cross_entropy(logits, padded.targets, reduction="sum") / counted
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if not total < float("inf"):
            raise Diverged(f"the loss became {total} at step {step + 1}")
        torch.nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
        optimizer.param_groups[0]["lr"] = spec.learning_rate_at(step, spec.epochs * per_epoch)
        optimizer.step()


def lora(rank: int, init: bool | str = True) -> Callable[[], PeftConfig]:
    """A LoRA of this rank on every linear, scaled by one; PiSSA where `init` says so."""
    return lambda: LoraConfig(
        r=rank, lora_alpha=rank, target_modules=ALL_LINEAR, init_lora_weights=cast(Any, init), task_type="CAUSAL_LM"
    )


def vera(rank: int) -> Callable[[], PeftConfig]:
    """A VeRA of this rank on every linear. Its random matrices come from a seed and are not stored."""
    return lambda: VeraConfig(r=rank, target_modules=ALL_LINEAR, save_projection=False, task_type="CAUSAL_LM")
