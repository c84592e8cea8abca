"""The top triplets against a float64 SVD, on every kind of spectrum."""

import pytest
import torch
from torch import Tensor

from osora_core.svd import further_triplets, top_triplets

SHAPES = [(96, 96), (160, 96), (96, 160)]


def make_weight(shape: tuple[int, int], spectrum: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    if spectrum == "gaussian":
        return weight
    U, _, Vt = torch.linalg.svd(weight, full_matrices=False)
    i = torch.arange(min(shape), dtype=torch.float64)
    values = {"power": 1 / (i + 1) ** 2, "exponential": torch.exp(-i / 6), "flat": torch.ones_like(i)}[spectrum]
    return (U * values) @ Vt


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", ["gaussian", "power", "exponential", "flat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_reconstruction_are_those_of_the_svd(
    shape: tuple[int, int], spectrum: str, dtype: torch.dtype
) -> None:
    weight, rank = make_weight(shape, spectrum).to(dtype), 40
    U, S, Vt = top_triplets(weight, rank)
    exact = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(S, exact[:rank], rtol=1e-3, atol=0)
    optimum = exact[rank:].square().sum().sqrt()
    assert torch.linalg.matrix_norm(weight.double() - (U * S) @ Vt) <= 1.001 * optimum
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(Vt @ Vt.T, identity, rtol=0, atol=1e-9)
    assert (Vt.gather(1, Vt.abs().argmax(dim=1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("true_rank", [0, 5])
def test_a_weight_of_low_rank_has_finite_orthonormal_factors(shape: tuple[int, int], true_rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape[0], true_rank, generator=generator) @ torch.randn(
        true_rank, shape[1], generator=generator
    )
    U, S, Vt = top_triplets(weight, 20)
    identity = torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(Vt @ Vt.T, identity, rtol=0, atol=1e-9)
    torch.testing.assert_close((U * S) @ Vt, weight.double(), rtol=0, atol=1e-5)
    assert S[true_rank:].abs().max() < 1e-4


def test_a_rank_above_the_weights_gives_all_there_is() -> None:
    weight = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, S, Vt = top_triplets(weight, 128)
    assert S.shape == (6,)
    torch.testing.assert_close((U * S) @ Vt, weight)


def test_equal_input_gives_equal_factors() -> None:
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    for one, two in zip(top_triplets(weight, 16), top_triplets(weight.clone(), 16), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", ["gaussian", "power", "exponential", "flat"])
@pytest.mark.parametrize(("first", "count"), [(30, 20), (30, 66), (95, 1)])
def test_further_triplets_go_on_from_rounded_ones(
    shape: tuple[int, int], spectrum: str, first: int, count: int
) -> None:
    """Against a float64 SVD: the first ones are float32, as they are stored, and all are as one decomposition."""
    weight = make_weight(shape, spectrum)
    stored = tuple(part.float() for part in top_triplets(weight, first))
    further = further_triplets(weight, *stored, count)
    U = torch.cat([stored[0].double(), further[0]], dim=1)
    S, Vt = torch.cat([stored[1].double(), further[1]]), torch.cat([stored[2].double(), further[2]])
    rank = first + count
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(Vt @ Vt.T, identity, rtol=0, atol=1e-6)
    exact = torch.linalg.svdvals(weight)
    torch.testing.assert_close(S, exact[:rank], rtol=1e-3, atol=1e-6 * exact[0].item())
    # What is left of the weight is what an exact decomposition leaves, as far as the first triplets span the space of
    # the exact ones: on a steep spectrum float32 finds that to some 1e-5.
    left = torch.linalg.matrix_norm(weight - (U * S) @ Vt)
    optimum = exact[rank:].square().sum().sqrt()
    assert left <= 1.001 * optimum + 2e-5 * torch.linalg.matrix_norm(weight)
    assert (Vt[first:].gather(1, Vt[first:].abs().argmax(dim=1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_further_triplets_of_a_weight_of_low_rank_are_orthonormal(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape[0], 5, generator=generator) @ torch.randn(5, shape[1], generator=generator)
    stored = tuple(part.float() for part in top_triplets(weight, 8))
    further = further_triplets(weight, *stored, 1000)
    assert further[1].shape == (88,)
    assert further[1].max() < 1e-4
    U, Vt = torch.cat([stored[0].double(), further[0]], dim=1), torch.cat([stored[2].double(), further[2]])
    identity = torch.eye(96, dtype=torch.float64)
    torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(Vt @ Vt.T, identity, rtol=0, atol=1e-6)
