"""Products with frozen weights: the same on every path, and independent of who stands beside a row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from osora_core import products
from osora_core.products import Packed, frozen_linear, linear

SIZES = st.integers(1, 70)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(rows=SIZES, d_in=SIZES, d_out=SIZES, seed=st.integers(0, 9), is_transposed=st.booleans(), has_bias=st.booleans())
def test_products_agree_with_float64(
    rows: int, d_in: int, d_out: int, seed: int, is_transposed: bool, has_bias: bool
) -> None:
    x, weight = random(2, rows, d_in, seed=seed), random(d_out, d_in, seed=seed + 1)
    bias = random(d_out) if has_bias else None
    single = weight.float() if not is_transposed else weight.T.float().contiguous().T
    actual = linear(x.float(), single, None if bias is None else bias.float())
    expected = x @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)
    # Rows may come transposed as well.
    torch.testing.assert_close(
        linear(x[0].T.float().contiguous().T, single).double(), x[0] @ weight.T, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rows", [1, 2, 50])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_packed_weight_multiplies_as_it_did(rows: int, has_bias: bool) -> None:
    weight, bias, x = random(40, 24), random(40), random(2, rows, 24)
    product = Packed(weight.float(), bias.float() if has_bias else None)
    expected = x @ weight.T + (bias if has_bias else 0)
    torch.testing.assert_close(product(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    half = Packed(weight.bfloat16())(x.bfloat16())
    torch.testing.assert_close(half.double(), x @ weight.T, rtol=0.05, atol=0.2)


@pytest.mark.skipif(
    not products._ONEDNN or torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="oneDNN has kernels of its own for every kind of processor; this was seen of those for AVX512",
)
@pytest.mark.parametrize("shape", [(256, 256), (704, 256), (256, 704), (130, 70)])
def test_a_rows_result_does_not_depend_on_how_many_stand_beside_it(shape: tuple[int, int]) -> None:
    weight, x = random(*shape).float(), random(96, shape[1]).float()
    together = linear(x, weight)
    for start, count in [(0, 2), (5, 3), (7, 8), (40, 31), (64, 32)]:
        assert torch.equal(linear(x[start : start + count], weight), together[start : start + count])


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_frozen_layer_hands_gradients_to_its_input_alone(has_bias: bool) -> None:
    layer = nn.Linear(24, 40, bias=has_bias).requires_grad_(False)
    x = random(3, 5, 24).float().requires_grad_()
    y = frozen_linear(layer, x)
    torch.testing.assert_close(y, layer(x))
    weights = random(3, 5, 40, seed=1).float()
    (grad,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(grad, weights @ layer.weight)


def test_a_layer_that_trains_gets_its_gradient() -> None:
    layer = nn.Linear(8, 8)
    frozen_linear(layer, random(4, 8).float()).sum().backward()
    assert layer.weight.grad is not None
    # The same where the product is the caller's own.
    weight = random(8, 8).float().requires_grad_()
    linear(random(4, 8).float(), weight).sum().backward()
    assert weight.grad is not None


def test_autocast_is_honoured() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen_linear(layer, random(4, 8).float()).dtype == torch.bfloat16
        assert linear(random(4, 8).float(), layer.weight).dtype == torch.bfloat16


def test_no_rows_are_no_error() -> None:
    assert linear(torch.zeros(0, 8), torch.zeros(6, 8)).shape == (0, 6)
    assert frozen_linear(nn.Linear(8, 6).requires_grad_(False), torch.zeros(0, 8)).shape == (0, 6)
