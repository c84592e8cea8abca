"""Seconds and errors of ways to find the top singular triplets, by shape and spectrum.

    python -m benchmarks.basis
    python -m benchmarks.basis --device cuda --json basis.json

`gram` is what Osora uses (osora_core.svd). `svd` is the full decomposition, `eigh` the float32 Gram matrix as it is,
`lowrank` torch's randomised subspace iteration. The errors are the largest relative one of the top r singular values
and how far the rank-r reconstruction is above the optimum, against float64. On a GPU the seven linears of a Llama-8B
layer (random, bfloat16) are timed as well, and multiplied by 32 layers.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.report import Report, parser
from osora_core.svd import top_triplets

RANK = 128
LAYERS = 32
# Shapes (d_out, d_in) of a Llama-8B layer and how many of each it has.
LLAMA_8B = {(4096, 4096): 2, (1024, 4096): 2, (14336, 4096): 2, (4096, 14336): 1}
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "power": lambda i: 1 / (i + 1),
    "exponential": lambda i: torch.exp(-i / 32),
}
SECONDS_TARGET, VALUE_TARGET, EXCESS_TARGET = 25.0, 1e-3, 1e-3

Way = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]


def svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vt = torch.linalg.svd(weight.float(), full_matrices=False)
    return U[:, :rank], S[:rank], Vt[:rank]


def eigh(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    wide = weight.shape[0] < weight.shape[1]
    tall = (weight.T if wide else weight).float()
    values, vectors = torch.linalg.eigh(tall.T @ tall)
    S, right = values.flip(0)[:rank].clamp(min=0).sqrt(), vectors.flip(1)[:, :rank]
    left = tall @ right / S.clamp(min=1e-30)
    return (right, S, left.T) if wide else (left, S, right.T)


def lowrank(weight: Tensor, rank: int, *, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(weight.float(), q=rank, niter=iterations)
    return U, S, V.T


WAYS: dict[str, Way] = {
    "gram": top_triplets,
    "eigh": eigh,
    "svd": svd,
    "lowrank-4": partial(lowrank, iterations=4),
    "lowrank-16": partial(lowrank, iterations=16),
}


def make_weight(shape: tuple[int, int], spectrum: str, device: str) -> Tensor:
    """A float32 weight with this spectrum: the same for the same arguments."""
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(shape, generator=generator, device=device)
    if spectrum == "gaussian":
        return weight
    U, _, Vt = torch.linalg.svd(weight, full_matrices=False)
    values = SPECTRA[spectrum](torch.arange(min(shape), dtype=torch.float32, device=device))
    made: Tensor = (U * values) @ Vt
    return made


def errors(weight: Tensor, found: tuple[Tensor, Tensor, Tensor], exact: Tensor) -> tuple[float, float]:
    """Largest relative error of the singular values, and the reconstruction's excess over the optimum."""
    U, S, Vt = (part.double() for part in found)
    rank = len(S)
    optimum = exact[rank:].square().sum().sqrt()
    reached = torch.linalg.matrix_norm(weight.double() - (U * S) @ Vt)
    return ((S - exact[:rank]).abs() / exact[:rank]).max().item(), (reached / optimum - 1).item()


def seconds(way: Way, weight: Tensor, repeats: int) -> float:
    """The median time of a way, after one run to warm up."""
    taken = []
    for _ in range(repeats + 1):
        _wait(weight)
        begun = time.perf_counter()
        way(weight, RANK)
        _wait(weight)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def _wait(weight: Tensor) -> None:
    if weight.is_cuda:
        torch.cuda.synchronize()


def accuracy(report: Report, ways: list[str], size: int) -> dict[str, tuple[float, float]]:
    """Every way on every spectrum, tall and wide. Returns the worst errors of each way."""
    worst: dict[str, tuple[float, float]] = {}
    for spectrum in ("gaussian", *SPECTRA):
        for shape in ((size, size), (size, size * 2)):
            weight = make_weight(shape, spectrum, report.device)
            exact = torch.linalg.svdvals(weight.double())
            for name in ways:
                with report.guard(shape=_text(shape), spectrum=spectrum, way=name):
                    taken = seconds(WAYS[name], weight, repeats=1)
                    value, excess = errors(weight, WAYS[name](weight, RANK), exact)
                    report.add(
                        shape=_text(shape), spectrum=spectrum, way=name, seconds=taken, value=value, excess=excess
                    )
                    before = worst.get(name, (0.0, 0.0))
                    worst[name] = (max(before[0], value), max(before[1], excess))
    return worst


def llama_8b(report: Report, ways: list[str]) -> dict[str, float]:
    """Seconds of each way for all linears of Llama-8B's layers, from one matrix of each shape (bfloat16)."""
    totals = dict.fromkeys(ways, 0.0)
    for shape, count in LLAMA_8B.items():
        weight = make_weight(shape, "gaussian", report.device).bfloat16()
        tall = (weight.T if shape[0] < shape[1] else weight).double()
        exact = torch.linalg.eigvalsh(tall.T @ tall).flip(0).clamp(min=0).sqrt()
        for name in ways:
            with report.guard(shape=_text(shape), spectrum="gaussian", way=name):
                taken = seconds(WAYS[name], weight, repeats=1 if name == "svd" else 3)
                totals[name] += LAYERS * count * taken
                value, excess = errors(weight, WAYS[name](weight, RANK), exact)
                report.add(shape=_text(shape), spectrum="gaussian", way=name, seconds=taken, value=value, excess=excess)
    for name, total in totals.items():
        report.add(shape=f"llama-8b x{LAYERS}", spectrum="gaussian", way=name, seconds=total)
    return totals


def _text(shape: tuple[int, int]) -> str:
    return "x".join(map(str, shape))


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, help="matrices for the errors (default: 768 on a CPU, 1024 on a GPU)")
    arguments.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which ways to compare")
    options = arguments.parse_args()
    size = options.size or (1024 if options.device == "cuda" else 768)
    report = Report(
        options.device,
        {"shape": "14", "spectrum": "12", "way": "10", "seconds": "10.4f", "value": "10.1e", "excess": "10.1e"},
    )
    totals = llama_8b(report, options.ways) if options.device == "cuda" else {}
    worst = accuracy(report, options.ways, size)
    value, excess = worst.get("gram", (None, None))
    for name, measured, unit, limit in (
        ("error of singular values", value, "relative", VALUE_TARGET),
        ("excess of reconstruction", excess, "relative", EXCESS_TARGET),
        ("basis of Llama-8B, r=128", totals.get("gram"), "s", SECONDS_TARGET),
    ):
        report.target(name, measured, unit, f"<= {limit:g}", measured is not None and measured <= limit)
    report.write(options.json)


if __name__ == "__main__":
    main()
