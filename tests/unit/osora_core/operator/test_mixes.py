"""Every execution of the operator with mixes against a dense weight in float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from osora_core.basis import Factors
from osora_core.operator import (
    Mixes,
    SlotRuns,
    equal_runs,
    merged_weight,
    of_layers,
    osora_add,
    osora_add_batched,
    osora_linear,
    osora_linear_merged,
    osora_update,
    osora_update_reference,
    runs,
)

SLOTS = [0, 1, 2, 2, 3, 4]
Gradients = list[Tensor]
Operator = Callable[[Tensor, Tensor, Tensor, list[Tensor]], Tensor]


@dataclass
class Case:
    """One weight and the adapters of slots 1 to 4, of which 1 and 4 have mixes of one size, 2 one of another and 3
    none; Cs: [c, c] each."""

    weight: Tensor
    U: Tensor
    S: Tensor
    Vt: Tensor
    ranks: Tensor
    sigma: Tensor
    delta: Tensor
    Cs: list[Tensor]
    x: Tensor

    @classmethod
    def of(cls, d_in: int, d_out: int, rank: int, seed: int) -> "Case":
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        weight = random(d_out, d_in)
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        ranks = torch.tensor([0, rank, max(1, rank - 1), max(1, rank // 2), rank])
        sigma = random(5, rank) * 0.3 * (torch.arange(rank) < ranks.unsqueeze(1))
        delta = random(5, d_out) * 0.3
        delta[0] = 0
        c, other = max(1, rank - 1), max(1, rank // 2)
        Cs = [random(c, c), random(other, other), random(c, c)]
        return cls(weight, U[:, :rank], S[:rank], Vh[:rank], ranks, sigma, delta, Cs, random(6, 3, d_in))

    def to(self, dtype: torch.dtype) -> "Case":
        """As it is on a base of this dtype, with vectors and mixes in float32."""
        base = (t.to(dtype) for t in (self.weight, self.U))
        weight, U = base
        vectors = (t.float() for t in (self.sigma, self.delta))
        Cs = [C.float() for C in self.Cs]
        return Case(weight, U, self.S.float(), self.Vt.to(dtype), self.ranks, *vectors, Cs, self.x.to(dtype))

    @property
    def mixed(self) -> dict[int, Tensor]:
        return dict(zip((1, 2, 4), self.Cs, strict=True))

    def padded(self, Cs: Sequence[Tensor]) -> Tensor:
        """C of every slot [n, R, R]."""
        rank = len(self.S)
        of_slot = dict(zip((1, 2, 4), Cs, strict=True))
        none = torch.zeros(rank, rank, dtype=Cs[0].dtype)
        wide = [F.pad(C, (0, rank - len(C), 0, rank - len(C))) if (C := of_slot.get(s)) is not None else none
                for s in range(5)]  # fmt: skip
        return torch.stack(wide)

    def mixes(self, Cs: Sequence[Tensor], slots: Tensor, grouped: SlotRuns | None) -> list[Mixes]:
        """As `linear.use_slots` gives them: one for each size."""
        found = []
        by_size = {len(C): [s for s, other in zip((1, 2, 4), Cs, strict=True) if len(other) == len(C)] for C in Cs}
        of_slot = dict(zip((1, 2, 4), Cs, strict=True))
        for size, own in by_size.items():
            stacked = torch.stack([torch.zeros(size, size, dtype=Cs[0].dtype), *(of_slot[s] for s in own)])
            found += of_layers([stacked], {s: i for i, s in enumerate(own, start=1)}, slots, 5, grouped)
        return found

    def dense(self, x: Tensor, sigma: Tensor, delta: Tensor, Cs: list[Tensor], slots: Tensor) -> Tensor:
        """W0 + diag(o) U (diag(s) + C) V^T - U diag(s0) V^T of each row or token, term by term."""
        used = torch.arange(len(self.S)) < self.ranks.unsqueeze(1)
        kept = torch.diag_embed(self.S * used)
        inner = torch.diag_embed((self.S + sigma) * used) + self.padded(Cs)
        o = torch.diag_embed(1 + delta)
        weights = (self.weight + (o @ self.U @ inner - self.U @ kept) @ self.Vt)[slots]
        return ((weights.unsqueeze(1) if slots.dim() == 1 else weights) @ x.unsqueeze(-1)).squeeze(-1)

    def differentiate(self, operator: Operator) -> Gradients:
        """y and the gradients of x, sigma, delta and each C."""
        inputs = [t.clone().requires_grad_() for t in (self.x, self.sigma, self.delta, *self.Cs)]
        x, sigma, delta, *Cs = inputs
        y = operator(x, sigma, delta, Cs)
        probe = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view_as(y).to(y.dtype)
        x_, sigma_, *others = torch.autograd.grad(y, inputs, probe)
        return [y.detach(), x_, sigma_ * (torch.arange(len(self.S)) < self.ranks.unsqueeze(1)), *others]


shapes = st.tuples(st.integers(3, 20), st.integers(3, 20), st.integers(1, 12), st.integers(0, 10_000))


def executions(case: Case, per_token: bool) -> dict[str, Operator]:
    rows = torch.tensor(SLOTS)
    slots = rows.unsqueeze(1).expand(-1, 3) if per_token else rows
    factors = case.U, case.S, case.Vt
    grouped = SlotRuns.of(runs(SLOTS), slots.device)
    found: dict[str, Operator] = {
        "reference": lambda x, s, d, Cs: F.linear(x, case.weight) + osora_update_reference(
            x, *factors, s, d, slots, case.ranks, case.padded(Cs)
        ),
        "general": lambda x, s, d, Cs: F.linear(x, case.weight) + osora_update(
            x, *factors, s, d, slots, case.ranks, case.mixes(Cs, slots, None)
        ),
    }  # fmt: skip
    if per_token:
        return found
    return {
        **found,
        "general, grouped": lambda x, s, d, Cs: F.linear(x, case.weight) + osora_update(
            x, *factors, s, d, slots, case.ranks, case.mixes(Cs, slots, grouped)
        ),
        "batched": lambda x, s, d, Cs: osora_add_batched(
            x, F.linear(x, case.weight), *factors, s, d, case.ranks, grouped.slots, grouped.equal,
            case.mixes(Cs, slots, grouped),
        ),
        "merged": lambda x, s, d, Cs: osora_linear_merged(
            x, case.weight, None, *factors, s, d, case.ranks, grouped.runs, case.mixes(Cs, slots, grouped)
        ),
    }  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes, per_token=st.booleans())
def test_every_execution_with_mixes_equals_the_dense_weight(shape: tuple[int, int, int, int], per_token: bool) -> None:
    d_in, d_out, rank, seed = shape
    case = Case.of(d_in, d_out, min(rank, d_in, d_out), seed)
    rows = torch.tensor(SLOTS)
    slots = rows.unsqueeze(1).expand(-1, 3) if per_token else rows
    oracle = case.differentiate(lambda x, s, d, Cs: case.dense(x, s, d, Cs, slots))
    for name, execution in executions(case, per_token).items():
        for actual, expected in zip(case.differentiate(execution), oracle, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_in_a_base_of_lower_precision_they_are_off_by_its_rounding(dtype: torch.dtype, off: float) -> None:
    """C in float32 all the same: its small values are not lost."""
    case = Case.of(24, 20, 8, seed=1).to(dtype)
    exact = Case(*(t.double() for t in (case.weight, case.U, case.S, case.Vt)), case.ranks,
                 *(t.double() for t in (case.sigma, case.delta)), [C.double() for C in case.Cs],
                 case.x.double())  # fmt: skip
    slots = torch.tensor(SLOTS)
    oracle = exact.differentiate(lambda x, s, d, Cs: exact.dense(x, s, d, Cs, slots))
    for name, execution in executions(case, per_token=False).items():
        if name == "merged" and dtype == torch.bfloat16:
            continue  # which is for float32 alone
        for actual, expected in zip(case.differentiate(execution), oracle, strict=True):
            error = (actual.double() - expected).norm() / expected.norm()
            assert error < off, (name, error)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes)
def test_the_executions_of_one_adapter_equal_the_dense_weight(shape: tuple[int, int, int, int]) -> None:
    """That of the tuner, and the merged weight."""
    d_in, d_out, rank, seed = shape
    case = Case.of(d_in, d_out, min(rank, d_in, d_out), seed)
    slot, C = 1, case.Cs[0]
    slots = torch.full((6,), slot)

    def picked(found: Gradients) -> Gradients:
        y, x, sigma, delta, of_C, *_ = found
        return [y, x, sigma[slot], delta[slot], of_C]

    def added(x: Tensor, sigma: Tensor, delta: Tensor, Cs: list[Tensor]) -> Tensor:
        y = osora_add(x, F.linear(x, case.weight), case.U, case.S, case.Vt, sigma[slot], delta[slot], Cs[0])
        return y + 0 * sum(C.sum() for C in Cs)

    oracle = case.differentiate(lambda x, s, d, Cs: case.dense(x, s, d, Cs, slots) + 0 * sum(C.sum() for C in Cs))
    for actual, expected in zip(picked(case.differentiate(added)), picked(oracle), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    factors = Factors(case.U, case.S, case.Vt)
    merged = merged_weight(case.weight, factors, case.sigma[slot], case.delta[slot], C)
    torch.testing.assert_close(F.linear(case.x, merged), oracle[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["general", "general, grouped", "batched", "merged"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_overflows_in_one_slot_reaches_no_others_mix(name: str, broken: float) -> None:
    case = Case.of(9, 7, 5, seed=3)
    whole = case.differentiate(executions(case, per_token=False)[name])
    case.x[1, 0] = broken  # of slot 1, whose C is as large as that of slot 4
    hit = case.differentiate(executions(case, per_token=False)[name])
    for place in (5, 6):
        torch.testing.assert_close(hit[place], whole[place], rtol=0, atol=0)
    for place in (2, 3):
        torch.testing.assert_close(hit[place][[0, 2, 3, 4]], whole[place][[0, 2, 3, 4]], rtol=0, atol=0)
    assert not hit[4].isfinite().any()


@pytest.mark.parametrize("tokens", [2, 200], ids=["few", "many"])
def test_a_layer_gives_the_same_however_it_chooses(tokens: int) -> None:
    case = Case.of(16, 16, 4, seed=4).to(torch.float32)
    x, slots = torch.randn(6, tokens, 16), torch.tensor(SLOTS)
    layer = nn.Linear(16, 16, bias=False).requires_grad_(False)
    grouped = SlotRuns.of(runs(SLOTS), x.device)
    operands = case.U, case.S, case.Vt, case.sigma, case.delta
    y = osora_linear(x, layer, *operands, slots, case.ranks, grouped, case.mixes(case.Cs, slots, grouped))
    expected = layer(x) + osora_update_reference(x, *operands, slots, case.ranks, case.padded(case.Cs))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_equal_runs_are_pieces_and_those_without_a_mix_are_none() -> None:
    grouped = SlotRuns.of(runs([0, 3, 1, 1, 2, 2, 2]), torch.device("cpu"))
    assert len(grouped.equal) == len(equal_runs(grouped.runs)) == 3
    (mixes,) = of_layers([torch.zeros(2, 3, 3)], {2: 1}, torch.tensor([0, 3, 1, 1, 2, 2, 2]), 5, grouped)
    assert [(piece.start, piece.stop, piece.places.tolist()) for piece in mixes.pieces] == [(4, 7, [1])]
