"""Supervised: answers to learn. The loss is the mean of -log p(token) over all counted tokens of the batch."""

from collections.abc import Sequence

from torch import Tensor

import osora_data
from osora_core.data import Example, Renderer, Row, sequences
from osora_core.training.methods.protocol import Contribution, Figures, Learner
from osora_core.training.passes import Passes


class Supervised:
    row_type = Example
    needs_reference = False

    def render(self, row: osora_data.Row, renderer: Renderer) -> Example:
        return renderer.render(row.value, row.line)

    def contributions(self, stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes) -> list[Contribution]:
        return [
            Contribution([(row, 0) for row in sequences(batch)], [1 / sum(row.loss_tokens for row in batch)])
            for _, batch in stepping
        ]

    def figures(self, job: Learner, rows: Sequence[Row], losses: Tensor, hits: Tensor, passes: Passes) -> Figures:
        """Nats a token, and the share of tokens that are the likeliest at their place."""
        counted = sum(row.loss_tokens for row in rows)
        return Figures(losses.sum().item() / counted, hits.sum().item() / counted)
