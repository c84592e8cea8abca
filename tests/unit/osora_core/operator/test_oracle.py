"""Forward, backward, merge and export against a dense float64 weight, over random shapes, dtypes, ranks and biases."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from osora_core import export
from osora_core.adapter import WEIGHTS_NAME, Adapter
from osora_core.basis import Basis, Factors, compute_factors
from osora_core.operator import lora_factor, merged_weight, osora_add, osora_update

# How far each dtype may be off, relative to the largest value of the answer.
PRECISION = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
NAME = "model.layers.0.q_proj"


@dataclass
class Case:
    """One weight, its factors as they are stored, one adapter and an input; `bias` may be missing."""

    weight: Tensor
    bias: Tensor | None
    factors: Factors
    sigma: Tensor
    delta: Tensor
    x: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def dense(self, sigma: Tensor, delta: Tensor) -> Tensor:
        """W0 + diag(o) U diag(s) V^T - U diag(s0) V^T in float64, term by term."""
        rank = len(self.sigma)
        U, S, Vt = (t.double() for t in (self.factors.U, self.factors.S, self.factors.Vt))
        U, S, Vt = U[:, :rank], S[:rank], Vt[:rank]
        adapted = torch.diag(1 + delta) @ U @ torch.diag(S + sigma) @ Vt
        return self.weight.double() + adapted - U @ torch.diag(S) @ Vt

    def oracle(self, probe: Tensor) -> list[Tensor]:
        """y and the gradients of <y, probe> with respect to x, sigma and delta."""
        x, sigma, delta = (t.double().requires_grad_() for t in (self.x, self.sigma, self.delta))
        y = F.linear(x, self.dense(sigma, delta), None if self.bias is None else self.bias.double())
        return [y.detach(), *torch.autograd.grad(y, (x, sigma, delta), probe.double())]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    d_out, d_in = draw(st.integers(2, 24)), draw(st.integers(2, 24))
    basis_rank = draw(st.integers(1, min(d_out, d_in)))
    rank = draw(st.integers(1, basis_rank))
    dtype = draw(st.sampled_from(list(PRECISION)))
    batch = draw(st.sampled_from([(3,), (2, 4), (1, 2, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = random(d_out, d_in).to(dtype)
    bias = random(d_out).to(dtype) if draw(st.booleans()) else None
    size = draw(st.sampled_from([0.0, 1e-3, 0.3]))
    # The service keeps vectors in float32; in float64 they are so that the oracle's own precision can be asked for.
    vectors = torch.float64 if dtype == torch.float64 else torch.float32
    sigma, delta = (size * random(rank)).to(vectors), (size * random(d_out)).to(vectors)
    factors = compute_factors(weight, basis_rank)
    if dtype == torch.float64:
        factors = Factors(factors.U, factors.S.double(), factors.Vt)
    return Case(weight, bias, factors, sigma, delta, random(*batch, d_in).to(dtype))


def assert_close(actual: Tensor, expected: Tensor, precision: float, scale: float) -> None:
    error = (actual.double() - expected).abs().max().item() if actual.numel() else 0.0
    assert error <= precision * scale, f"off by {error:.3g} on a scale of {scale:.3g}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_forward_and_backward_are_those_of_the_dense_weight(case: Case) -> None:
    """Both executions for one adapter: that of the tuner and the general one of the engines."""
    U, S, Vt = case.factors.U, case.factors.S, case.factors.Vt
    probe = torch.sin(torch.arange(case.x[..., 0].numel() * len(case.weight)).double())
    probe = probe.view(*case.x.shape[:-1], len(case.weight)).to(case.dtype)
    oracle = case.oracle(probe)
    scale = max(1.0, *(t.abs().max().item() for t in oracle)) * max(1.0, S.max().item())

    def tuner(x: Tensor, sigma: Tensor, delta: Tensor) -> Tensor:
        return osora_add(x, F.linear(x, case.weight, case.bias), U, S, Vt, sigma, delta)

    def engine(x: Tensor, sigma: Tensor, delta: Tensor) -> Tensor:
        rank = len(case.sigma)
        rows = x.reshape(-1, x.shape[-1])
        slots, ranks = torch.zeros(len(rows), dtype=torch.long), torch.tensor([rank])
        wide = F.pad(sigma, (0, len(S) - rank)).unsqueeze(0)
        update = osora_update(rows, U, S, Vt, wide, delta.unsqueeze(0), slots, ranks)
        y = F.linear(rows, case.weight, case.bias) + update
        return y.view(*x.shape[:-1], -1)

    for execution in (tuner, engine):
        x, sigma, delta = (t.clone().requires_grad_() for t in (case.x, case.sigma, case.delta))
        y = execution(x, sigma, delta)
        assert y.dtype == case.dtype
        grads = torch.autograd.grad(y, (x, sigma, delta), probe)
        for actual, expected in zip((y, *grads), oracle, strict=True):
            assert_close(actual, expected, PRECISION[case.dtype], scale)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_a_merged_weight_is_the_dense_weight_rounded_once(case: Case) -> None:
    merged = merged_weight(case.weight, case.factors, case.sigma, case.delta)
    exact = case.dense(case.sigma.double(), case.delta.double())
    assert merged.dtype == case.dtype
    # Half a unit in the last place, and what float64 itself may differ by.
    unit = torch.finfo(case.dtype).eps / 2
    assert ((merged.double() - exact).abs() <= 1.01 * unit * exact.abs() + 1e-12).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases(), padding=st.integers(0, 5))
def test_an_exported_lora_is_the_update(case: Case, padding: int) -> None:
    rank, factors = len(case.sigma), case.factors
    basis = Basis({NAME: Factors(factors.U, factors.S.float(), factors.Vt)}, "base", len(factors.S))
    sigma, delta = case.sigma.float(), case.delta.float()
    adapter = Adapter({NAME: sigma}, {NAME: delta}, rank, "base", "base", basis.fingerprint, basis.rank)
    tensors = load(export.to_lora(adapter, basis, rank=rank + padding)[WEIGHTS_NAME])
    A, B = (tensors[f"base_model.model.{NAME}.lora_{part}.weight"] for part in "AB")
    assert A.shape == (rank + padding, case.weight.shape[1])
    assert B.shape == (case.weight.shape[0], rank + padding)
    exact = case.dense(sigma.double(), delta.double()) - case.weight.double()
    assert_close(B.double() @ A.double(), exact, 1e-6, max(1.0, factors.S.max().item()))


def test_small_updates_do_not_drown_in_large_singular_values() -> None:
    """In float32, diag(o) U diag(s) - U diag(s0) term by term would lose what a few steps have learned."""
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(32, 8, generator=generator))[0]
    S = torch.full((8,), 1e4)
    sigma, delta = torch.full((8,), 1e-2), torch.full((32,), 1e-6)
    exact = U.double() * (sigma.double() + delta.double().unsqueeze(1) * (S + sigma).double())
    torch.testing.assert_close(lora_factor(U, S, sigma, delta).double(), exact, rtol=1e-6, atol=0)
