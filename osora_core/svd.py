"""The top singular triplets of a weight, fast and to more than float32's precision.

The eigenvectors of the smaller Gram matrix are the singular vectors of one side. The matrix is formed in float64, so
squaring loses nothing; the one expensive step, its eigendecomposition, runs in float32. What float32 cannot resolve
there, eigenvalues below `_RESOLVED` of the largest, is found by taking out what was found and decomposing the rest.
A Rayleigh-Ritz step in float64 ends it. `benchmarks/basis.py` compares this with the other ways.

Where triplets are there already, `further_triplets` finds the next ones in what is orthogonal to them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# float32 finds an eigenvalue to about 1e-7 of the largest, so one of this size to three digits before the last step.
_RESOLVED = 1e-4
# Values of weights that are decomposed at once on a CPU; each takes about 32 bytes meanwhile.
_VALUES_AT_ONCE = 128 * 1024**2
# Where more than this part of all eigenvectors is wanted, they are found as fast in float64 from the start.
_ALL_AT_ONCE = 0.5
# Below this part of the largest a float64 Gram matrix holds rounding and nothing else.
_NOTHING = 1e-14


def top_triplets(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [d_out, r], S [r] (descending) and Vt [r, d_in] of weight [d_out, d_in], r = min(rank, d_out, d_in); float64.

    Deterministic: no random start, and signs are fixed (each right vector's largest entry is positive). Where the
    weight has fewer than r triplets, the rest are orthonormal vectors with a singular value of about zero.
    """
    wide = weight.shape[0] < weight.shape[1]
    tall = (weight.T if wide else weight).double()
    right = _top_eigenvectors(tall.T @ tall, min(rank, tall.shape[1]))
    left, triangle = torch.linalg.qr(tall @ right)
    # The columns of W V are orthogonal, so R is diagonal: the singular values, up to signs.
    diagonal = triangle.diagonal()
    values, left = diagonal.abs(), left * torch.where(diagonal < 0, -1.0, 1.0)
    return _signed(right, values, left) if wide else _signed(left, values, right)


def further_triplets(weight: Tensor, U: Tensor, S: Tensor, Vt: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [d_out, c], S [c] and Vt [c, d_in] that follow the top triplets U, S, Vt (r of them, in any precision) of
    weight [d_out, d_in], c = min(count, d_out - r, d_in - r); float64, deterministic, with signs as `top_triplets`.

    They are orthonormal among themselves and to what was given, as it was given: not to the triplets that it was
    rounded from. So all together reconstruct the weight as well as the rounding lets the first ones.
    """
    wide = weight.shape[0] < weight.shape[1]
    tall, left, right = (t.double() for t in ((weight.T, Vt.T, U) if wide else (weight, U, Vt.T)))
    count = min(count, tall.shape[1] - right.shape[1])
    # The last columns of a whole Q are a basis of all that is orthogonal to the columns that it was made from.
    free = torch.linalg.qr(right, mode="complete")[0][:, right.shape[1] :]
    rest = (tall - (left * S.double()) @ right.T) @ free
    rest = rest - left @ (left.T @ rest)
    gram = rest.T @ rest
    if count > _ALL_AT_ONCE * gram.shape[0]:
        right = free @ torch.linalg.eigh(gram)[1].flip(1)[:, :count]
    else:
        right = free @ _top_eigenvectors(gram, count)
    # With the given columns in front, so that it stays orthogonal to them where nothing but rounding is left.
    Q, triangle = torch.linalg.qr(torch.cat([left, tall @ right], dim=1))
    diagonal = triangle.diagonal()[-count:]
    values, left = diagonal.abs(), Q[:, -count:] * torch.where(diagonal < 0, -1.0, 1.0)
    return _signed(right, values, left) if wide else _signed(left, values, right)


def _signed(U: Tensor, S: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V^T with the largest entry of each right vector positive."""
    largest = V.gather(0, V.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return U * signs, S, (V * signs).T


def of_each(compute: Callable[[str, Tensor], T], weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, T]]:
    """What `compute` makes of each weight and its name, in order; `weights` is read as the work goes on.

    On the GPU, if there is one, one after the other. Else several at once, each on one thread: shared between threads,
    a sum is made in another order for every number of them, and the result would depend on it.
    """
    if torch.cuda.is_available():
        yield from ((name, compute(name, weight.cuda())) for name, weight in weights)
        return
    threads = torch.get_num_threads()
    pending: deque[tuple[str, int, Future[T]]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for name, weight in weights:
            while pending and (
                len(pending) >= threads or sum(size for _, size, _ in pending) + weight.numel() > _VALUES_AT_ONCE
            ):
                done, _, result = pending.popleft()
                yield done, result.result()
            pending.append((name, weight.numel(), pool.submit(compute, name, weight)))
        for done, _, result in pending:
            yield done, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # That of the linear algebra's library is one for the whole process.
        torch.set_num_threads(threads)


def _top_eigenvectors(gram: Tensor, count: int) -> Tensor:
    """The eigenvectors [n, count] (float64, orthonormal, descending) of a positive gram [n, n] in float64."""
    found = gram.new_empty(gram.shape[0], 0)
    rest, ceiling = gram, None
    while found.shape[1] < count:
        values, vectors = torch.linalg.eigh(rest.float())
        values, vectors = values.flip(0), vectors.flip(1)
        ceiling = values[0] if ceiling is None else ceiling
        missing = count - found.shape[1]
        if values[0] > _NOTHING * ceiling:
            missing = int((values[:missing] > _RESOLVED * values[0]).sum())
        new = vectors[:, :missing].double()
        found = torch.linalg.qr(torch.cat([found, new - found @ (found.T @ new)], dim=1))[0]
        if found.shape[1] < count:
            rest = gram - found @ (found.T @ gram)
            rest = rest - (rest @ found) @ found.T
    rotation: Tensor = torch.linalg.eigh(found.T @ gram @ found)[1]
    return found @ rotation.flip(1)
