"""The methods that `benchmarks.quality` compares, behind one interface: train on examples, then answer.

Every learner trains several specs on the same examples at once, because a small model leaves a GPU idle: OSoRA as
jobs that share the steps of the service's own engine, its peers as stacked copies of what PEFT trains (`torch.vmap`
over PEFT's own modules), with the batches, loss, schedule, clipping and optimizer settings of that engine.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from peft import LoraConfig, PeftConfig, VeraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor
from torch.func import functional_call, grad_and_value
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from osora_core.bank import Bank
from osora_core.data import Example, batch_order
from osora_core.linear import use_slots
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.optimizer import BETA1, BETA2, EPSILON
from osora_core.weights import ALL_LINEAR

# Tokens, padding included, that go through the model at once.
TOKEN_BUDGET = {"cpu": 8192, "cuda": 40960}
_IGNORED = -100
# What torch can run for several runs at once; the flash kernels it would run one after another.
_ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Learned:
    """What training left. `answer` gives the logits [M, vocabulary] of a padded batch's counted positions."""

    answer: Callable[[Tensor, Tensor], Tensor]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Diverged:
    """The loss became no number: this rate is too high for the method."""

    reason: str


class Learner(Protocol):
    """A method. `learn` begins anew from the base each time, and trains all specs side by side."""

    def learn(self, examples: Sequence[Example], specs: Sequence[JobSpec]) -> list[Learned | Diverged]: ...


@dataclass(frozen=True)
class Osora:
    """OSoRA as the service trains it."""

    runtime: Runtime

    def learn(self, examples: Sequence[Example], specs: Sequence[JobSpec]) -> list[Learned | Diverged]:
        budget = TOKEN_BUDGET[self.runtime.device.type]
        engine = TrainingEngine(self.runtime, max_jobs=len(specs), token_budget=budget)
        observers = [Ending() for _ in specs]
        for index, (spec, observer) in enumerate(zip(specs, observers, strict=True)):
            engine.add(TrainingJob(str(index), spec, examples, observer))
        while engine.step():
            pass
        return [self._learned(spec, observer) for spec, observer in zip(specs, observers, strict=True)]

    def _learned(self, spec: JobSpec, observer: "Ending") -> Learned | Diverged:
        if observer.outcome is None:
            return Diverged(str(observer.error))
        adapter, runtime = observer.outcome.adapter, self.runtime
        bank = Bank(runtime.basis, 1, device=runtime.device)
        bank.write(1, adapter.to_row(runtime.basis), adapter.rank, adapter.mix_size)

        def answer(inputs: Tensor, positions: Tensor) -> Tensor:
            with use_slots(bank, torch.ones(len(inputs), dtype=torch.long, device=runtime.device)):
                hidden = runtime.hidden_states(inputs)
            return runtime.logits(hidden[positions[:, 0], positions[:, 1]])

        parameters = {"both": adapter.parameters, "s": _count(adapter.sigma), "o": _count(adapter.delta)}[spec.train]
        return Learned(answer, parameters, len(adapter.files()["adapter_model.safetensors"]))


def _count(vectors: Any) -> int:
    return sum(vector.numel() for vector in vectors.values())


class Ending:
    """Observes a job or a sweep, and keeps its end."""

    outcome: Any = None
    error: Exception | None = None

    def progress(self, progress: Any) -> None: ...
    def evaluated(self, evaluation: Any) -> None: ...
    def sampled(self, samples: Any) -> None: ...
    def stepped_down(self, pass_tokens: int) -> None: ...

    def checkpoint(self, checkpoint: Any) -> None: ...
    def narrowed(self, rung: Any) -> None: ...

    def finished(self, outcome: Any) -> None:
        self.outcome = outcome

    def failed(self, error: Exception) -> None:
        self.error = error


@dataclass(frozen=True)
class Peer:
    """A method of PEFT, or full fine-tuning where there is no config."""

    base: PreTrainedModel
    config: Callable[[], PeftConfig] | None

    def learn(self, examples: Sequence[Example], specs: Sequence[JobSpec]) -> list[Learned | Diverged]:
        starts = {spec.seed: self._start(spec.seed) for spec in specs}
        model = starts[specs[0].seed]
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        stack = _Stack([dict(starts[spec.seed].named_parameters()) for spec in specs], names)
        del starts
        finite = _train(model, stack, examples, specs)
        results: list[Learned | Diverged] = []
        for index, is_finite in enumerate(finite):
            results.append(self._learned(model, stack, index) if is_finite else Diverged("the loss is not a number"))
        return results

    def _start(self, seed: int) -> Any:
        torch.manual_seed(seed)
        model = copy.deepcopy(self.base).requires_grad_(self.config is None)
        return model if self.config is None else get_peft_model(model, self.config()).eval()

    def _learned(self, model: Any, stack: "_Stack", index: int) -> Learned:
        trained = {name: values[index] for name, values in stack.views.items()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in trained:
                    parameter.copy_(trained[name])
        state = trained if self.config is None else get_peft_model_state_dict(model)
        stored = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

        def answer(inputs: Tensor, positions: Tensor) -> Tensor:
            return _answer(model, trained, inputs, positions)

        return Learned(answer, stack.values.shape[1], len(save(stored)))


class _Stack:
    """What K runs train, as one matrix `values` [K, P], and the views [K, ...] of it by parameter name."""

    def __init__(self, runs: Sequence[dict[str, Tensor]], names: Sequence[str]) -> None:
        self.values = torch.stack([torch.cat([run[name].detach().flatten() for name in names]) for run in runs])
        self.views = {}
        start = 0
        for name in names:
            shape = runs[0][name].shape
            self.views[name] = self.values[:, start : start + shape.numel()].view(len(runs), *shape)
            start += shape.numel()


def _answer(model: Any, trained: dict[str, Tensor], inputs: Tensor, positions: Tensor) -> Tensor:
    """Logits [M, vocabulary] at positions [M, 2] of inputs [B, T], with `trained` in place of the model's own."""
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    prefix = "base_model.model." if decoder is not model else ""
    own = {name.removeprefix(prefix): value for name, value in trained.items()}
    inner = {n.removeprefix("model."): v for n, v in own.items() if n.startswith("model.")}
    output = functional_call(decoder.model, inner, (), {"input_ids": inputs, "use_cache": False})
    picked = output.last_hidden_state[positions[:, 0], positions[:, 1]]
    head = decoder.get_output_embeddings()
    tied = inner.get("embed_tokens.weight", head.weight)
    return cast(Tensor, functional_call(head, {"weight": own.get("lm_head.weight", tied)}, (picked,)))


def _train(model: Any, stack: _Stack, examples: Sequence[Example], specs: Sequence[JobSpec]) -> list[bool]:
    """What the service's engine does for a job, for K runs of any model at once: token-mean loss, clipping, Adam, the
    spec's schedule. Returns which runs stayed finite."""
    values, shape = stack.values, specs[0]
    device = values.device
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    finite = torch.ones(len(specs), dtype=torch.bool, device=device)

    def loss(trained: dict[str, Tensor], inputs: Tensor, positions: Tensor, targets: Tensor, share: Tensor) -> Tensor:
        logits = _answer(model, trained, inputs, positions).float()
        return F.cross_entropy(logits, targets, ignore_index=_IGNORED, reduction="sum") * share

    step_all = torch.vmap(grad_and_value(loss))
    per_epoch = -(-len(examples) // shape.batch_size)
    for step in range(shape.epochs * per_epoch):
        grads, total = torch.zeros_like(values), torch.zeros(len(specs), device=device)
        for inputs, positions, targets, shares in _groups(examples, specs, *divmod(step, per_epoch), device):
            with sdpa_kernel(_ATTENTION):
                found, value = step_all(stack.views, inputs, positions, targets, shares)
            grads += torch.cat([found[name].flatten(1) for name in stack.views], dim=1)
            total += value
        finite &= total.isfinite()
        norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
        grads *= (shape.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        first.lerp_(grads, 1 - BETA1)
        second.mul_(BETA2).addcmul_(grads, grads, value=1 - BETA2)
        rates = [s.learning_rate_at(step, shape.epochs * per_epoch) / (1 - BETA1 ** (step + 1)) for s in specs]
        update = first / ((second / (1 - BETA2 ** (step + 1))).sqrt() + EPSILON)
        values -= torch.tensor(rates, device=device).unsqueeze(1) * update
    return cast(list[bool], finite.tolist())


def _groups(
    examples: Sequence[Example], specs: Sequence[JobSpec], epoch: int, index: int, device: torch.device
) -> list[tuple[Tensor, ...]]:
    """The runs' batches of one step, in pieces: inputs [K, B, T], positions [K, M, 2], targets [K, M] and what each
    run's sum is divided by, [K]."""
    batches: list[list[Example]] = []
    for spec in specs:
        rows = batch_order(len(examples), spec.batch_size, spec.seed, epoch)[index]
        batches.append(sorted((examples[row] for row in rows), key=len, reverse=True))
    counts = [sum(example.loss_tokens for example in batch) for batch in batches]
    shares = torch.tensor([1 / count for count in counts], device=device)
    groups: list[tuple[Tensor, ...]] = []
    start = 0
    while start < len(batches[0]):
        longest = max(len(batch[start]) for batch in batches)
        stop = start + max(1, TOKEN_BUDGET[device.type] // (longest * len(specs)))
        groups.append((*_pad([batch[start:stop] for batch in batches], longest, device), shares))
        start = stop
    return groups


def _pad(pieces: Sequence[Sequence[Example]], longest: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """inputs [K, B, T], positions [K, M, 2] and targets [K, M] of K runs' rows; M is padded with ignored targets."""
    inputs = torch.zeros(len(pieces), len(pieces[0]), longest - 1, dtype=torch.long)
    counted: list[list[tuple[int, int, int]]] = []
    for run, piece in enumerate(pieces):
        counted.append([])
        for row, example in enumerate(piece):
            inputs[run, row, : len(example) - 1] = torch.tensor(example.tokens[:-1])
            counted[-1] += [(row, i - 1, example.tokens[i]) for i in range(1, len(example)) if example.mask[i]]
    most = max(map(len, counted))
    filled = torch.tensor([own + [(0, 0, _IGNORED)] * (most - len(own)) for own in counted], device=device)
    return inputs.to(device), filled[:, :, :2], filled[:, :, 2]


def lora(rank: int, init: bool | str = True) -> Callable[[], PeftConfig]:
    """A LoRA of this rank on every linear, scaled by one; PiSSA where `init` says so."""
    return lambda: LoraConfig(
        r=rank, lora_alpha=rank, target_modules=ALL_LINEAR, init_lora_weights=cast(Any, init), task_type="CAUSAL_LM"
    )


def vera(rank: int) -> Callable[[], PeftConfig]:
    """A VeRA of this rank on every linear. Its random matrices come from a seed and are not stored."""
    return lambda: VeraConfig(r=rank, target_modules=ALL_LINEAR, save_projection=False, task_type="CAUSAL_LM")
