"""The reference setting's parametrisation is our operator's, to rounding."""

import torch

from benchmarks.quality.operators import Absolute
from osora_core.basis import Factors
from osora_core.operator import osora_update_reference


def _layer(outputs: int, inputs: int, rank: int) -> tuple[torch.Tensor, Factors]:
    torch.manual_seed(outputs)
    weight = torch.randn(outputs, inputs, dtype=torch.float64)
    U, S, Vt = torch.linalg.svd(weight, full_matrices=False)
    return weight, Factors(U[:, :rank], S[:rank], Vt[:rank])


def test_absolute_s_and_o_are_sigma_and_delta() -> None:
    for outputs, inputs, rank in ((12, 8, 5), (6, 10, 6)):
        weight, factors = _layer(outputs, inputs, rank)
        x = torch.randn(2, 7, inputs, dtype=torch.float64)
        s, o = torch.randn(2, rank, dtype=torch.float64), torch.randn(2, outputs, dtype=torch.float64)
        residual = weight - factors.U * factors.S @ factors.Vt
        wanted = torch.stack([x[k] @ (residual + o[k, :, None] * (factors.U * s[k]) @ factors.Vt).T for k in range(2)])
        # Ours: the base's weight as it is, and sigma and delta from zero.
        sigma, delta = (s - factors.S).requires_grad_(), (o - 1).requires_grad_()
        rows = torch.arange(2)
        ranks = torch.full((2,), rank)
        ours = x @ weight.T + osora_update_reference(x, factors.U, factors.S, factors.Vt, sigma, delta, rows, ranks)
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
        # The benchmark's operator is that setting, in float32.
        operator = Absolute(factors, rank, 2)
        with torch.no_grad():
            operator.s.copy_(s)
            operator.o.copy_(o)
        theirs = operator(x.float(), (x @ weight.T).float())
        torch.testing.assert_close(theirs.double(), wanted, rtol=1e-4, atol=1e-4)
        # And so are the gradients, since s and sigma, o and delta differ by constants.
        g = torch.randn_like(ours)
        (ours * g).sum().backward()
        (theirs * g.float()).sum().backward()
        for own, other in ((operator.s, sigma), (operator.o, delta)):
            assert own.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_the_reference_setting_begins_as_the_base() -> None:
    weight, factors = _layer(12, 8, 5)
    x = torch.randn(3, 4, 8)
    y = x @ weight.T.float()
    torch.testing.assert_close(Absolute(factors, 5, 3)(x, y), y, rtol=1e-5, atol=1e-5)
