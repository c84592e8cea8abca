"""Training and measuring K runs that share the rows of every pass: [K * B, T], one run after another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.data import IGNORED, Matrix, even_slices
from benchmarks.quality.learned import Score, budget
from osora_core.data import Example, batch_order
from osora_core.training import JobSpec
from osora_core.training.optimizer import BETA1, BETA2, EPSILON


class Stack:
    """What K runs train, as one float32 matrix `values` [K, P]; `leaves` are what the model reads of it.

    Stacked parameters [K, ...] share the matrix's memory. With `runs` None there is one run whose leaves are the
    model's own parameters, of whatever dtype: `push` rounds the values into them.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], runs: int | None) -> None:
        self.runs = runs or 1
        self.values = torch.cat([p.detach().float().reshape(self.runs, -1) for p in parameters], dim=1)
        self.sizes = [p.numel() // self.runs for p in parameters]
        if runs is None:
            self.leaves = list(parameters)
        else:
            self.leaves = [nn.Parameter(v.view(p.shape)) for v, p in zip(self._views(), parameters, strict=True)]
        self.shares_memory = runs is not None

    def _views(self) -> tuple[Tensor, ...]:
        return torch.split(self.values, self.sizes, dim=1)

    def take_grads(self) -> Tensor:
        """The gradients [K, P] in float32 that backward passes left; the next ones start from nothing."""
        found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        for leaf in self.leaves:
            leaf.grad = None
        return torch.cat([grad.float().reshape(self.runs, -1) for grad in found], dim=1)

    @torch.no_grad()
    def push(self) -> None:
        """Let the model read the values as they are now."""
        if not self.shares_memory:
            for leaf, view in zip(self.leaves, self._views(), strict=True):
                leaf.copy_(view.view(leaf.shape))


def fit(model: Any, stack: Stack, examples: Sequence[Example], specs: Sequence[JobSpec]) -> list[bool]:
    """What the service's engine does for a job, for K runs at once: token-mean loss, clipping, Adam, the spec's
    schedule. Returns which runs stayed finite."""
    values, shape = stack.values, specs[0]
    device = values.device
    rows = Matrix(examples, device)
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    finite = torch.ones(len(specs), dtype=torch.bool, device=device)
    per_epoch = -(-len(examples) // shape.batch_size)
    total = shape.epochs * per_epoch
    order: list[list[list[int]]] = []
    for step in range(total):
        epoch, index = divmod(step, per_epoch)
        if index == 0:
            order = [batch_order(len(examples), spec.batch_size, spec.seed, epoch) for spec in specs]
        losses = _backward(model, rows, torch.tensor([batches[index] for batches in order]))
        grads = stack.take_grads()
        norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
        finite &= losses.isfinite() & norms.squeeze(1).isfinite()
        # A run that has diverged stands still: a factorisation of what is no number would fail for all.
        grads = torch.where(finite.unsqueeze(1), grads, 0.0)
        grads *= (shape.max_grad_norm / (norms.nan_to_num() + 1e-6)).clamp(max=1.0)
        first.lerp_(grads, 1 - BETA1)
        second.mul_(BETA2).addcmul_(grads, grads, value=1 - BETA2)
        rates = [spec.learning_rate_at(step, total) / (1 - BETA1 ** (step + 1)) for spec in specs]
        update = first / ((second / (1 - BETA2 ** (step + 1))).sqrt() + EPSILON)
        values -= torch.tensor(rates, device=device).unsqueeze(1) * update
        stack.push()
    finite &= values.isfinite().all(dim=1)
    return cast(list[bool], finite.tolist())


def _backward(model: Any, rows: Matrix, batch: Tensor) -> Tensor:
    """Leave the gradients of every run's token-mean loss over its rows, batch [K, B]; returns the losses [K].

    A run that is not finite leaves the others' gradients as they are: their rows and values are apart. Where memory
    runs out, the step begins again in passes of half the tokens.
    """
    tokens, padding = budget(rows.inputs.device)
    while True:
        try:
            return _backward_within(model, rows, batch, tokens, padding)
        except torch.OutOfMemoryError:
            if tokens < batch.shape[0]:
                raise
        for parameter in model.parameters():
            parameter.grad = None
        torch.cuda.empty_cache()
        tokens //= 2


def _backward_within(model: Any, rows: Matrix, batch: Tensor, tokens: int, padding: int) -> Tensor:
    device = rows.inputs.device
    shares = (1 / rows.counted[batch].sum(dim=1)).to(device)
    losses = torch.zeros(len(batch), device=device)
    for piece in _pieces(rows, batch, tokens, padding):
        nll, _, owners = _answer(model, *rows.take(piece.flatten()))
        runs = owners // piece.shape[1]
        weighed = nll * shares[runs]
        weighed.sum().backward()  # type: ignore[no-untyped-call]
        losses.index_add_(0, runs, weighed.detach())
    return losses


def _pieces(rows: Matrix, batch: Tensor, tokens: int, padding: int) -> Iterator[Tensor]:
    """The passes of a step: rows [K, b] of batch [K, B], similar in length."""
    order = rows.lengths[batch].argsort(dim=1, descending=True, stable=True)
    batch = batch.gather(1, order)
    for start, stop in even_slices(rows.lengths[batch], tokens, padding):
        yield batch[:, start:stop]


def _answer(model: Any, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every counted prediction of inputs and targets [B, T]: its loss in nats, whether the target is the likeliest
    token, and its row."""
    places = (targets != IGNORED).nonzero()
    output = model.base_model(input_ids=inputs, use_cache=False)
    logits = model.get_output_embeddings()(output.last_hidden_state[places[:, 0], places[:, 1]]).float()
    wanted = targets[places[:, 0], places[:, 1]]
    nll = F.cross_entropy(logits, wanted, reduction="none")
    return nll, logits.detach().argmax(dim=-1) == wanted, places[:, 0]


@torch.no_grad()
def measure(model: Any, stack: Stack, measured: Mapping[str, Sequence[Example]]) -> list[dict[str, Score]]:
    """The scores of each of K runs on the named rows, all answering together."""
    scores: list[dict[str, Score]] = [{} for _ in range(stack.runs)]
    for name, examples in measured.items():
        rows = Matrix(examples, stack.values.device)
        everyone = torch.arange(len(examples)).expand(stack.runs, -1)
        device = rows.inputs.device
        losses = torch.zeros(stack.runs, len(examples), dtype=torch.float64, device=device)
        hits = torch.zeros_like(losses)
        tokens, padding = budget(device)
        for piece in _pieces(rows, everyone, tokens, padding):
            nll, likeliest, owners = _answer(model, *rows.take(piece.flatten()))
            run, row = owners // piece.shape[1], piece.flatten().to(device)[owners]
            losses.index_put_((run, row), nll.double(), accumulate=True)
            hits.index_put_((run, row), likeliest.double(), accumulate=True)
        right = hits.cpu() == rows.counted
        for own, loss, is_right in zip(scores, losses.tolist(), right.tolist(), strict=True):
            own[name] = Score.of(loss, is_right, int(rows.counted.sum()))
    return scores
