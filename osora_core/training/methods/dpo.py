"""Preferences between two answers: DPO (Rafailov et al. 2023, equation 7). The loss of a pair is

    -log sigmoid(m),   m = beta * ((log p(w) - log p_ref(w)) - (log p(l) - log p_ref(l)))

with w the preferred answer, l the other and log p summed over an answer's tokens. Its gradient is
beta * sigmoid(-m) * (grad -log p(w) - grad -log p(l)): once m is known from a pass without gradient, a weighted sum of
token losses. The reference is another slot of the same bank, in the same pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

import osora_data
from osora_core.data import Example, Preference, Renderer, Row, sequences
from osora_core.training.methods.protocol import Contribution, Figures, Learner
from osora_core.training.passes import Passes


class Dpo:
    row_type = Preference
    needs_reference = True

    def render(self, row: osora_data.Row, renderer: Renderer) -> Preference:
        return renderer.preference(row.value, row.line)

    def contributions(self, stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes) -> list[Contribution]:
        margins = _margins(stepping, passes)
        return [_pulled(job, batch, of_job) for (job, batch), of_job in zip(stepping, margins, strict=True)]

    def figures(self, job: Learner, rows: Sequence[Row], losses: Tensor, hits: Tensor, passes: Passes) -> Figures:
        """The loss a pair, the share of pairs whose preferred answer has gained more than the other, and by how much
        they have on average."""
        return _figures(_gain(job, losses, job.reference.losses(rows, passes)))


def _margins(stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes) -> list[Tensor]:
    """m of each job's pairs, [pairs] float64 on the CPU: all in common passes, a row of a slot once for all who ask.

    Members of a sweep read the same rows against one reference, which so costs no more than a single job's.
    """
    places: dict[tuple[int, Example], int] = {}

    def ask(slot: int, rows: Sequence[Example]) -> list[int]:
        return [places.setdefault((slot, row), len(places)) for row in rows]

    asked = [(job, [ask(slot, sequences(batch)) for slot in (job.slot, job.reference.slot)]) for job, batch in stepping]
    losses = passes.scores([(row, index) for (_, row), index in places.items()], [slot for slot, _ in places]).losses
    return [_gain(job, losses[policy], losses[reference]) for job, (policy, reference) in asked]


def _gain(job: Learner, policy: Tensor, reference: Tensor) -> Tensor:
    """m of pairs [n] from the summed losses [2n] of their sequences."""
    chosen, rejected = (reference - policy).chunk(2)
    return job.spec.beta * (chosen - rejected)


def _pulled(job: Learner, batch: Sequence[Row], margins: Tensor) -> Contribution:
    """Each answer by itself, with the share that its pair's m gives it: the preferred ones up, the others down."""
    pull = (job.spec.beta * torch.sigmoid(-margins) / len(batch)).tolist()
    rows = [(row, index) for index, row in enumerate(sequences(batch))]
    return Contribution(rows, pull + [-weight for weight in pull], _figures(margins))


def _figures(margins: Tensor) -> Figures:
    loss = F.softplus(-margins).mean().item()
    return Figures(loss, (margins > 0).double().mean().item(), margins.mean().item())
