"""How an adapter's tensors lie in its row, as a list of the row's pieces.

Adapters of one spec have one order: what it takes is taken once, and holds up no other thread again.
"""

from functools import lru_cache

from osora_core.basis import Span
from osora_core.errors import CorruptArtifact
from osora_core.mix import mix_spans


@lru_cache(maxsize=64)
def vector_order(
    spans: tuple[Span, ...], names: tuple[str, ...], sigma: tuple[int, ...], delta: tuple[int, ...]
) -> tuple[int, ...]:
    """An adapter row as a list of its pieces: i is the sigma of the i-th of n modules, n + i its delta, -m is m zeros.

    sigma, delta: the sizes of the modules' vectors. Raises CorruptArtifact for one that does not fit its span.
    """
    left = dict(zip(names, range(len(names)), strict=True))
    order = []
    for span in spans:
        index = left.get(span.name)
        if index is None:
            order.append(-span.rank - span.d_out)
        elif sigma[index] <= span.rank and delta[index] == span.d_out:
            del left[span.name]
            missing = [sigma[index] - span.rank] if sigma[index] < span.rank else []
            order += [index, *missing, len(names) + index]
    if left:
        name, index = next(iter(left.items()))
        raise CorruptArtifact(f"{name} with {sigma[index]} sigma and {delta[index]} delta does not fit the basis")
    return tuple(order)


@lru_cache(maxsize=64)
def mix_order(spans: tuple[Span, ...], names: tuple[str, ...], mix: tuple[int, ...], c: int) -> tuple[int, ...]:
    """What follows in a row with mixes of size c: 2n + i is the C of the i-th of n modules, -m is m zeros.

    mix: the sides of the modules' C. Raises CorruptArtifact for one that does not fit its span.
    """
    index = dict(zip(names, range(len(names)), strict=True))
    order = []
    for span, (size, _) in zip(spans, mix_spans(spans, c), strict=True):
        if (of := index.get(span.name)) is None:
            order.append(-(size**2))
        elif mix[of] != size:
            raise CorruptArtifact(f"{span.name} with an osora_mix {mix[of]} wide does not fit the basis")
        else:
            order.append(2 * len(names) + of)
    return tuple(order)
