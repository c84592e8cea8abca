"""A basis in memory: the top-R singular triplets of every targeted weight, and the hashes that are its identity.

A stored basis may be the beginning of a larger one: the first triplets of a basis that has grown are the very bytes of
the one that it grew from. So a basis is known by several hashes, one for each rank that it has been stored at, and an
adapter that names any of them was made on these triplets.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from osora_core import basis_file
from osora_core.errors import CorruptArtifact
from osora_core.weights import ALL_LINEAR, fingerprint_tensors

FOLDER = "basis/"
"""Where bases lie, in a directory or in a store."""


@dataclass(frozen=True)
class Factors:
    """U [d_out, R], S [R] (float32, descending), Vt [R, d_in]; U and Vt in one dtype."""

    U: Tensor
    S: Tensor
    Vt: Tensor

    def first(self, rank: int) -> "Factors":
        """The first `rank` triplets, itself if it has no more."""
        if self.S.shape[0] <= rank:
            return self
        return Factors(self.U[:, :rank].contiguous(), self.S[:rank].contiguous(), self.Vt[:rank].contiguous())


@dataclass(frozen=True)
class Span:
    """Where one module's vectors lie in an adapter row: sigma [start, start + rank), delta right behind it."""

    name: str
    rank: int
    d_out: int
    start: int

    @property
    def sigma(self) -> slice:
        return slice(self.start, self.start + self.rank)

    @property
    def delta(self) -> slice:
        return slice(self.start + self.rank, self.start + self.rank + self.d_out)


class Stored(NamedTuple):
    """What is known of a stored basis. fingerprint: sha256 over names, dtypes, shapes and bytes of all factors,
    independent of file layout and device; probe: the same of the first module's factors alone; rank: how many triplets
    it has of each weight that has so many."""

    fingerprint: str
    probe: str
    dtype: torch.dtype
    rank: int


@dataclass(frozen=True)
class Basis:
    """Factors by module name (in model order), with the identity of what they were computed from.

    rank: how many triplets there are of each weight that has so many. prefix_ranks: lower ranks at which it has been
    stored too. origin: what is stored, where the factors are a part of it or a copy in another dtype.
    """

    factors: Mapping[str, Factors]
    base_fingerprint: str
    rank: int
    prefix_ranks: tuple[int, ...] = ()
    origin: tuple[Stored, ...] = ()

    @cached_property
    def known(self) -> tuple[Stored, ...]:
        """The stored bases that begin with these triplets, or that these begin with, by rank: the last one is what is
        stored, the others are its beginnings."""
        if self.origin:
            return self.origin
        return tuple(self._at(rank) for rank in (*sorted(self.prefix_ranks), self.rank))

    def _at(self, rank: int) -> Stored:
        first = next(iter(self.factors))
        probe = hash_factors({first: self.factors[first]}, rank)
        return Stored(hash_factors(self.factors, rank), probe, self.dtype, rank)

    @property
    def stored(self) -> Stored:
        """What is stored, whatever dtype and how much of it this copy is."""
        return self.known[-1]

    @property
    def fingerprint(self) -> str:
        return self.stored.fingerprint

    def holds(self, fingerprint: str) -> bool:
        """Whether an adapter that was made on the basis of this hash has its triplets here, as far as they are loaded
        (`Adapter.check` tells whether they are)."""
        return any(one.fingerprint == fingerprint for one in self.known)

    def for_rank(self, rank: int) -> Stored:
        """What an adapter of this rank is made on: the smallest stored basis that has all its triplets, so that it can
        be used wherever that one is."""
        return next((one for one in self.known if one.rank >= rank), self.stored)

    @property
    def full_rank(self) -> int:
        """The largest rank that any weight has: no adapter can use more."""
        return self.full_rank_of(None)

    def full_rank_of(self, modules: Collection[str] | None) -> int:
        """The same of the weights whose last name component is among these; of all, for None or if none is."""
        full = {name: min(one.U.shape[0], one.Vt.shape[1]) for name, one in self.factors.items()}
        chosen = [rank for name, rank in full.items() if modules is None or name.rpartition(".")[2] in modules]
        return max(chosen or full.values())

    @property
    def key(self) -> str:
        """Where an all-linear basis lies in a store of bases."""
        return self.key_at(self.stored)

    def key_at(self, stored: Stored) -> str:
        """Where one of those that are `known` lies there, as long as nobody removes what it has grown out of."""
        return key_of(self.base_fingerprint, ALL_LINEAR, stored.rank, stored.dtype)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        spans: list[Span] = []
        start = 0
        for name, factors in self.factors.items():
            span = Span(name, factors.S.shape[0], factors.U.shape[0], start)
            spans.append(span)
            start = span.delta.stop
        return tuple(spans)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of U and Vt."""
        return next(iter(self.factors.values())).U.dtype

    @property
    def row_length(self) -> int:
        """P, the values of an adapter row: the sum of R + d_out over the modules."""
        return self.spans[-1].start + self.spans[-1].rank + self.spans[-1].d_out

    @property
    def target_modules(self) -> list[str]:
        """The last components of the module names, sorted: what PEFT calls target_modules."""
        return sorted({name.rpartition(".")[2] for name in self.factors})

    def first(self, rank: int) -> "Basis":
        """The first `rank` triplets of each weight, known by the same hashes; itself if none has more."""
        if rank >= max(one.S.shape[0] for one in self.factors.values()):
            return self
        factors = {name: one.first(rank) for name, one in self.factors.items()}
        return replace(self, factors=factors, rank=rank, origin=self.known)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Basis":
        """The same basis on a device, U and Vt in `dtype`; itself where nothing changes."""
        if dtype == self.dtype and device == next(iter(self.factors.values())).U.device:
            return self
        factors = {
            name: Factors(one.U.to(device, dtype), one.S.to(device), one.Vt.to(device, dtype))
            for name, one in self.factors.items()
        }
        return replace(self, factors=factors, origin=self.known)

    def save(self, path: Path) -> None:
        """Write to `path` as safetensors; complete or not at all (temporary file, fsync, rename)."""
        tensors = {
            f"{name}.{part}": getattr(factors, part).detach().cpu().contiguous()
            for name, factors in self.factors.items()
            for part in ("U", "S", "Vt")
        }
        prefixes = {one.rank: one.fingerprint for one in self.known[:-1]}
        metadata = {
            "format": basis_file.FORMAT,
            "base_fingerprint": self.base_fingerprint,
            "rank": str(self.rank),
            "modules": json.dumps(list(self.factors)),
            "fingerprint": self.fingerprint,
            **({basis_file.PREFIXES: json.dumps(prefixes)} if prefixes else {}),
        }
        with basis_file.draft(path) as draft:
            save_file(tensors, draft, metadata)

    @classmethod
    def load(
        cls, path: Path, device: torch.device, dtype: torch.dtype | None = None, rank: int | None = None
    ) -> "Basis":
        """Read a stored basis onto `device`, U and Vt in `dtype` or as stored, and check it against its fingerprints;
        of each weight no more than `rank` triplets.

        On a CPU, whole and in the dtype that it is stored in, it is memory-mapped. Raises CorruptArtifact if the file
        is not a basis or its bytes are not those it was saved with.
        """
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != basis_file.FORMAT:
                    raise CorruptArtifact(f"{path} is not a basis file (format {metadata.get('format')!r})")
                factors = {
                    name: Factors(*(file.get_tensor(f"{name}.{part}") for part in ("U", "S", "Vt")))
                    for name in json.loads(metadata["modules"])
                }
            said = basis_file.fingerprints(metadata)
            basis = cls(factors, metadata["base_fingerprint"], int(metadata["rank"]), tuple(said)[:-1])
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise CorruptArtifact(
                f"the basis file {path} cannot be read: {error}",
                next_action="delete the file; it is fetched or computed again at the next start",
            ) from error
        for one in reversed(basis.known):
            if one.fingerprint != said[one.rank]:
                raise CorruptArtifact(
                    f"the basis file {path} says it is {said[one.rank]} but holds {one.fingerprint}",
                    next_action="delete the file; it is fetched or computed again at the next start",
                )
        return basis.first(basis.rank if rank is None else rank).to(device, dtype or basis.dtype)


def hash_factors(factors: Mapping[str, Factors], rank: int | None = None) -> str:
    """The hash that names a basis of these factors, or of the first `rank` triplets of each."""

    def parts() -> Iterator[tuple[str, Tensor]]:
        for name, whole in factors.items():
            one = whole if rank is None else whole.first(rank)
            yield from ((f"{name}.{part}", getattr(one, part)) for part in ("U", "S", "Vt"))

    return fingerprint_tensors(parts())


def key_of(base_fingerprint: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> str:
    """The key of a basis in a store of bases: a path."""
    return f"{folder_of(base_fingerprint)}{family_of(targets)}-r{rank}-{str(dtype).removeprefix('torch.')}.safetensors"


def folder_of(base_fingerprint: str) -> str:
    """Where the bases of a base lie in a store."""
    return f"{FOLDER}{base_fingerprint}/"


def family_of(targets: str | Sequence[str]) -> str:
    """What the keys of the bases of these targets, whatever their rank, begin with in that folder."""
    return targets if isinstance(targets, str) else "-".join(sorted(targets))
