"""The operator's executions against a dense weight in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from osora_core.basis import compute_factors
from osora_core.operator import (
    SlotRuns,
    equal_runs,
    merged_weight,
    osora_add_batched,
    osora_linear,
    osora_linear_merged,
    osora_update,
    osora_update_reference,
    runs,
)

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]


class Case:
    """Random operands: slot 0 is zero, the others have ranks of their own."""

    def __init__(self, d_in: int, d_out: int, rank: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.weight, self.bias = random(d_out, d_in), random(d_out)
        U, S, Vh = torch.linalg.svd(self.weight, full_matrices=False)
        self.U, self.S, self.Vt = U[:, :rank], S[:rank], Vh[:rank]
        self.ranks = torch.tensor([0, rank, max(1, rank // 2), 1])
        self.used = torch.arange(rank) < self.ranks.unsqueeze(1)
        self.sigma = random(4, rank) * 0.3 * self.used
        self.delta = random(4, d_out) * 0.3
        self.delta[0] = 0
        self.x = random(5, 3, d_in)
        self.slots = [0, 1, 2, 2, 3]

    def dense(self, x: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor) -> Tensor:
        """y by materialising each token's own W0 + diag(o) U diag(s) V^T - U diag(s0) V^T."""
        scale = (self.S + sigma) * self.used
        o = 1 + delta
        kept = self.S * self.used
        update = (o.unsqueeze(-1) * self.U * scale.unsqueeze(1) - self.U * kept.unsqueeze(1)) @ self.Vt
        weights = (self.weight + update)[slots]
        if slots.dim() == 1:
            weights = weights.unsqueeze(1)
        return (weights @ x.unsqueeze(-1)).squeeze(-1) + self.bias

    def differentiate(self, operator: Operator) -> list[Tensor]:
        x, sigma, delta = (t.clone().requires_grad_() for t in (self.x, self.sigma, self.delta))
        y = operator(x, sigma, delta)
        probe = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view_as(y)
        (y * probe).sum().backward()
        assert x.grad is not None
        assert sigma.grad is not None
        assert delta.grad is not None
        return [y.detach(), x.grad, sigma.grad * self.used, delta.grad]


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A frozen linear with this weight [d_out, d_in] and bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = bias
    return layer.requires_grad_(False)


shapes = st.tuples(st.integers(3, 20), st.integers(3, 20), st.integers(1, 12), st.integers(0, 10_000))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes, per_token=st.booleans())
def test_every_execution_equals_the_dense_weight(shape: tuple[int, int, int, int], per_token: bool) -> None:
    d_in, d_out, rank, seed = shape
    case = Case(d_in, d_out, min(rank, d_in, d_out), seed)
    rows = torch.tensor(case.slots)
    slots = rows.unsqueeze(1).expand(-1, 3) if per_token else rows
    operands = (case.U, case.S, case.Vt)
    oracle = case.differentiate(lambda x, s, d: case.dense(x, s, d, slots))
    executions: list[Operator] = [
        lambda x, s, d: (
            F.linear(x, case.weight, case.bias) + osora_update_reference(x, *operands, s, d, slots, case.ranks)
        ),
        lambda x, s, d: F.linear(x, case.weight, case.bias) + osora_update(x, *operands, s, d, slots, case.ranks),
    ]
    if not per_token:
        neighbours = runs(case.slots)
        executions.append(
            lambda x, s, d: osora_linear_merged(x, case.weight, case.bias, *operands, s, d, case.ranks, neighbours)
        )
        distinct = torch.tensor([run.slot for run in neighbours])
        executions.append(
            lambda x, s, d: osora_add_batched(
                x, F.linear(x, case.weight, case.bias), *operands, s, d, case.ranks, distinct, equal_runs(neighbours)
            )
        )
    for execution in executions:
        for actual, expected in zip(case.differentiate(execution), oracle, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slot_zero_is_the_base_bit_for_bit(dtype: torch.dtype) -> None:
    case = Case(16, 24, 8, seed=1)
    weight, bias, x, U, Vt = (t.to(dtype) for t in (case.weight, case.bias, case.x, case.U, case.Vt))
    S, sigma, delta = (t.float() for t in (case.S, case.sigma, case.delta))
    mixed = osora_linear(x, linear(weight, bias), U, S, Vt, sigma, delta, torch.tensor(case.slots), case.ranks)
    assert torch.equal(mixed[0], F.linear(x, weight, bias)[0])
    assert not torch.equal(mixed[1], F.linear(x, weight, bias)[1])


def test_the_merged_weight_gives_what_the_operator_gives() -> None:
    case = Case(12, 10, 6, seed=2)
    factors = compute_factors(case.weight.float(), 6)
    weight, x = case.weight.float(), case.x.float()
    sigma, delta = case.sigma.float(), case.delta.float()
    for slot, rank in enumerate(case.ranks.tolist()):
        merged = F.linear(x, merged_weight(weight, factors, sigma[slot, :rank], delta[slot] if rank else delta[0]))
        slots = torch.full((5,), slot)
        operands = (factors.U, factors.S, factors.Vt, sigma, delta)
        direct = osora_linear(x, linear(weight), *operands, slots, case.ranks)
        torch.testing.assert_close(merged, direct, rtol=1e-4, atol=1e-4)


def test_runs_names_neighbours_with_equal_slots() -> None:
    assert runs([4, 4, 0, 2, 2]) == ((4, 0, 2), (0, 2, 3), (2, 3, 5))


@pytest.mark.parametrize("way", ["general", "merged", "batched"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_overflows_in_one_slot_reaches_no_other(way: str, broken: float) -> None:
    case = Case(9, 7, 5, seed=3)
    slots = torch.tensor(case.slots)

    def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
        sigma, delta = (t.clone().requires_grad_() for t in (case.sigma.float(), case.delta.float()))
        operands = [t.float() for t in (x, case.weight, case.bias, case.U, case.S, case.Vt)]
        if way == "general":
            x, weight, bias, *factors = operands
            y = osora_linear(x, linear(weight, bias), *factors, sigma, delta, slots, case.ranks)  # type: ignore[misc, arg-type]
        elif way == "batched":
            x, weight, bias, *factors = operands
            distinct, equal = torch.tensor([run.slot for run in runs(case.slots)]), equal_runs(runs(case.slots))
            y = osora_add_batched(x, F.linear(x, weight, bias), *factors, sigma, delta, case.ranks, distinct, equal)
        else:
            y = osora_linear_merged(*operands, sigma, delta, case.ranks, runs(case.slots))  # type: ignore[misc, arg-type]
        y.sum().backward()
        assert sigma.grad is not None
        assert delta.grad is not None
        return sigma.grad, delta.grad

    x = case.x.clone()
    x[1, 0] = broken
    others = [0, 2, 3]
    for hit, whole in zip(gradients(x), gradients(case.x), strict=True):
        torch.testing.assert_close(hit[others], whole[others], rtol=0, atol=0)
        assert not hit[1].isfinite().any()


def test_equal_runs_are_neighbours_with_equally_many_rows() -> None:
    assert equal_runs(runs([4, 3, 7, 7, 2, 2, 5])) == ((0, 2, 0, 2), (2, 4, 2, 6), (4, 5, 6, 7))


@pytest.mark.parametrize(("rows", "tokens", "merges"), [(2, 60, True), (2, 3, False)], ids=["many", "few"])
def test_a_layer_merges_where_a_slot_has_enough_tokens(
    monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int, merges: bool
) -> None:
    """And gives the same either way."""
    case = Case(16, 16, 4, seed=4)
    x = torch.randn(2 * rows, tokens, 16)
    slots = [1] * rows + [2] * rows
    operands = [t.float() for t in (case.U, case.S, case.Vt, case.sigma, case.delta)]
    layer = linear(case.weight.float(), case.bias.float())
    chosen: list[str] = []

    def merged(*args: Any) -> Tensor:
        chosen.append("merged")
        return osora_linear_merged(*args)

    monkeypatch.setattr("osora_core.operator.choice.osora_linear_merged", merged)
    grouped = SlotRuns.of(runs(slots), x.device)
    y = osora_linear(x, layer, *operands, torch.tensor(slots), case.ranks, grouped)
    assert bool(chosen) == merges
    expected = layer(x) + osora_update_reference(x, *operands, torch.tensor(slots), case.ranks)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_no_plain_linear_is_never_merged() -> None:
    """A subclass may compute something else than its weight says, as quantised ones do."""

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    case = Case(16, 16, 4, seed=5)
    layer = Doubled(16, 16).requires_grad_(False)
    x, slots = torch.randn(2, 200, 16), torch.tensor([1, 1])
    operands = [t.float() for t in (case.U, case.S, case.Vt, case.sigma, case.delta)]
    y = osora_linear(x, layer, *operands, slots, case.ranks, SlotRuns.of(runs([1, 1]), x.device))
    expected = layer(x) + osora_update_reference(x, *operands, slots, case.ranks)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
