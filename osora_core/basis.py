"""The basis of a base: computed once, stored, and shared by everybody; it grows where a higher rank is asked for.

A basis belongs to the values of a base's checkpoint, in float32, whatever dtype the base is loaded in and however many
threads compute it. Two kinds of processor round differently all the same, by far more than an adapter's precision. So a
basis is computed once per (base, targets), stored, and named by the hash of its content; all use that one. Where it has
too few triplets for what is asked, only those that are missing are computed: what is stored stays the beginning of what
comes, byte for byte, so adapters that were made on it keep their meaning.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from osora_common.ranks import Rank
from osora_core import basis_file, basis_place
from osora_core.basis_shelf import RemoteBasis, Shelf
from osora_core.checkpoint import own_values
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.factors import FOLDER, Basis, Factors, Span, Stored, hash_factors, key_of
from osora_core.identity import ANY, FETCH_BASIS, Identity, mismatch
from osora_core.svd import further_triplets, of_each, top_triplets
from osora_core.weights import ALL_LINEAR, compute_dtype, dense_weight, find_targets, fingerprint_base, weight_shape

__all__ = [
    "Basis", "BasisCache", "Factors", "Progress", "RemoteBasis", "Span", "Stored", "compute_basis", "compute_factors",
    "full_rank",
]  # fmt: skip

DTYPE = torch.float32
"""What a basis is stored in. Version 0.1.0 stored it in the dtype that the model was loaded in."""
SHARED_RANK = 128
"""A basis of a higher rank begins with that of this one, however it came to be: the rest is computed from there."""

Progress = Callable[[int, int], object]
"""Told of each weight that is done: how many are, and of how many."""


def full_rank(model: nn.Module, targets: str | Sequence[str]) -> int:
    """The largest full rank of any targeted weight: no adapter can use more triplets."""
    return max(min(weight_shape(module)) for module in find_targets(model, targets).values())


def compute_factors(
    weight: Tensor, rank: int, dtype: torch.dtype | None = None, prefix: Factors | None = None
) -> Factors:
    """The top min(rank, d_out, d_in) triplets of weight [d_out, d_in], S in float32, U and Vt in `dtype` or its own.

    They begin with those of `prefix` as they are, or with those of SHARED_RANK.
    """
    weight = weight.detach()
    if prefix is None:
        U, S, Vt = top_triplets(weight, min(rank, SHARED_RANK))
        dtype = dtype or weight.dtype
        prefix = Factors(U.to(dtype).contiguous(), S.float().contiguous(), Vt.to(dtype).contiguous())
    have = prefix.S.shape[0]
    if have >= min(rank, *weight.shape):
        return prefix
    prefix = Factors(*(t.to(weight.device) for t in (prefix.U, prefix.S, prefix.Vt)))
    U, S, Vt = further_triplets(weight, prefix.U, prefix.S, prefix.Vt, rank - have)
    return Factors(
        torch.cat([prefix.U, U.to(prefix.U.dtype)], dim=1),
        torch.cat([prefix.S, S.float()]),
        torch.cat([prefix.Vt, Vt.to(prefix.Vt.dtype)]),
    )


def compute_basis(
    model: nn.Module, targets: str | Sequence[str], rank: int, base_fingerprint: str, wanted: Identity = ANY,
    prefix: Basis | None = None, progress: Progress = lambda done, total: None,
) -> Basis:  # fmt: skip
    """Decompose every targeted weight of `model`: the same factors whatever its dtype and the number of threads.

    On the GPU if there is one. `prefix`: the basis that it grows from, as it is stored. Raises IdentityMismatch after
    the first weight if it shows that this is not `wanted`.
    """
    modules = find_targets(model, targets)
    weights = ((name, dense_weight(module).detach()) for name, module in modules.items())

    def compute(name: str, weight: Tensor) -> Factors:
        return compute_factors(weight, rank, DTYPE, None if prefix is None else prefix.factors[name])

    factors: dict[str, Factors] = {}
    with torch.no_grad():
        for name, one in of_each(compute, weights):
            factors[name] = Factors(one.U.cpu(), one.S.cpu(), one.Vt.cpu())
            if len(factors) == 1 and wanted.probe not in (None, hash_factors(factors)):
                raise IdentityMismatch(
                    f"the adapter was made on basis {wanted.basis}, which is not stored here, and this processor would "
                    "compute another",
                    next_action=FETCH_BASIS,
                )
            progress(len(factors), len(modules))
    if prefix is not None:
        return Basis(factors, base_fingerprint, rank, tuple(one.rank for one in prefix.known))
    return Basis(factors, base_fingerprint, rank, (SHARED_RANK,) if rank > SHARED_RANK else ())


@dataclass(frozen=True)
class BasisCache:
    """Stored bases in a local directory, perhaps shared through a remote store, and elsewhere, see `basis_place`."""

    directory: Path
    remote: RemoteBasis | None = None
    elsewhere: str | None = None

    @classmethod
    def default(cls) -> "BasisCache":
        """The directory of $OSORA_CACHE, or ~/.cache/osora; elsewhere is $OSORA_BASIS_FROM."""
        directory = Path(os.environ.get("OSORA_CACHE") or "~/.cache/osora").expanduser()
        return cls(directory, elsewhere=os.environ.get(basis_place.VARIABLE) or None)

    def get(
        self, model: nn.Module, targets: str | Sequence[str], rank: Rank, device: torch.device,
        wanted: Identity = ANY, before: Callable[[], object] = lambda: None,
        progress: Progress = lambda done, total: None,
    ) -> Basis:  # fmt: skip
        """The basis of (base, targets) of this rank, in the model's dtype: read, fetched, or computed and stored.

        Of a stored one of a higher rank it is the first triplets; one of a lower rank grows. Of the processes of a
        machine that start together, one computes it. Of several machines the first to upload it wins, and the others
        fetch that. On a CPU a float32 one is memory-mapped: processes share its memory. Raises IdentityMismatch if it
        is not `wanted`, before anything is decomposed where stored files or the probe show it. `before` is called
        before a basis is computed: what it raises spares that. `progress` is told of each weight that is decomposed.
        """
        dtype, full = compute_dtype(model), full_rank(model, targets)
        most = full if rank == "full" else min(rank, full)
        values, base = self._identify(model, targets, most, wanted)
        if wanted.base not in (None, base):
            raise mismatch("base", str(wanted.base), base, "load the base that the adapter names")

        def stored() -> Path | None:
            if wanted.basis is not None:
                return self._find(base, wanted.basis, most)
            return self._enough(base, targets, most, dtype)

        path = stored()
        if path is None:
            with self._shelf.one_makes(base, targets):
                path = stored()  # another process may have made it meanwhile
                if path is None:
                    grown_from = None if wanted.basis is not None else self._below(base, targets, most, dtype)
                    make = _Making(values, targets, most, base, wanted, grown_from, progress)
                    path = self._make(make, before)
        try:
            return _load(path, wanted, device, dtype, most)
        except CorruptArtifact:
            if path.exists():
                raise
        # Another process has grown it meanwhile, and what it grew from is gone.
        return self.get(model, targets, rank, device, wanted, before, progress)

    def find(self, base_fingerprint: str, basis_fingerprint: str, rank: int) -> Basis:
        """The stored all-linear basis of these hashes, on the CPU, without its base: what an export needs.

        Raises UserError, naming both hashes, if it is stored neither here nor in the remote store nor elsewhere.
        """
        path = self._find(base_fingerprint, basis_fingerprint, rank)
        if path is None:
            raise UserError(
                f"the basis {basis_fingerprint} of base {base_fingerprint} is not stored in {self.directory}",
                next_action=FETCH_BASIS,
            )
        return _load(path, Identity(base_fingerprint, basis_fingerprint), torch.device("cpu"), None, rank)

    @property
    def _shelf(self) -> Shelf:
        return Shelf(self.directory, self.remote)

    def _identify(
        self, model: nn.Module, targets: str | Sequence[str], rank: int, wanted: Identity
    ) -> tuple[nn.Module, str]:
        """The model that holds the base's own values, and the base's fingerprint."""
        held, dtype = fingerprint_base(model), compute_dtype(model)
        if held == wanted.base:
            return model, held
        # One that version 0.1.0 stored in another dtype: adapters are tied to it, so it stays the one to use.
        if wanted.base is None and dtype != DTYPE and self._shelf.holds_any(held, targets, rank, dtype):
            return model, held
        values = own_values(model)
        return values, held if values is model else fingerprint_base(values)

    def _find(self, base: str, basis: str, rank: int) -> Path | None:
        """The file of the all-linear basis of this hash, or of one that has grown from it, from wherever it is."""
        for dtype in (DTYPE, torch.bfloat16, torch.float16):
            others = (one for one in self._shelf.ranks(base, ALL_LINEAR, dtype) if one != rank)
            for one in (rank, *others):
                path = self._shelf.brought(key_of(base, ALL_LINEAR, one, dtype))
                if path is not None and basis_file.begins_with(path, basis):
                    return path
        if not re.fullmatch("[0-9a-f]{64}", basis):
            return None
        grown = (path for _, path in self._pulled(base, ALL_LINEAR) if basis_file.begins_with(path, basis))
        return self._by_hash(basis) or next(grown, None)

    def _by_hash(self, basis: str) -> Path | None:
        """The file that is called by this hash, here or elsewhere."""
        with self._shelf.locked(f"{FOLDER}{basis}.safetensors") as path:
            if path.exists():
                return path
            if self.elsewhere is None:
                return None
            with basis_file.draft(path) as draft:
                if not basis_place.fetch(self.elsewhere, basis, draft):
                    return None
                _load(draft, Identity(basis=basis), torch.device("cpu"), None)
            return path

    def _enough(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> Path | None:
        """The stored basis to use where one of this rank is asked for; None if there are not so many triplets."""
        found = [(held, path) for held, path in self._pulled(base, targets) if held >= rank]
        if found:
            return found[0][1]
        if dtype != DTYPE and (path := self._shelf.enough(base, targets, rank, dtype)) is not None:
            return path
        path = self._shelf.enough(base, targets, rank, DTYPE)
        if path is not None and self.remote is not None:
            self.remote.publish(path.relative_to(self.directory).as_posix(), path)
        return path

    def _below(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> Path | None:
        """The stored basis that is to grow to this rank; None if there is none."""
        found = [path for held, path in self._pulled(base, targets) if held < rank]
        kinds = (DTYPE,) if dtype == DTYPE else (dtype, DTYPE)
        below = (self._shelf.below(base, targets, rank, kind) for kind in kinds)
        return found[-1] if found else next((path for path in below if path is not None), None)

    def _pulled(self, base: str, targets: str | Sequence[str]) -> list[tuple[int, Path]]:
        """Bases of this base that were fetched by their hash, by rank: whoever fetched one wants new adapters to fit it
        too."""
        if targets != ALL_LINEAR:
            return []
        folders = [self.directory / FOLDER, *basis_place.folders(self.elsewhere)]
        found = [(basis_file.metadata(path), path) for folder in folders for path in folder.glob("*.safetensors")]
        return sorted((int(said["rank"]), path) for said, path in found if said.get("base_fingerprint") == base)

    def _make(self, making: "_Making", before: Callable[[], object]) -> Path:
        """The basis that this machine, or another of the remote store, computes. Refuses what was not wanted."""
        key, wanted = making.key, making.wanted.basis
        with self._shelf.locked(key) as path:
            if not self._shelf.bring(key, path):
                before()
                with basis_file.draft(path) as own:
                    making.run().save(own)
                    if self.remote is not None:
                        self.remote.publish(key, own)
                        if self.remote.fetch(key, path):  # perhaps another's; ours was never in its place
                            own.write_bytes(b"")
                self._shelf.remove_beginnings(path)
            elif self.remote is not None:
                self.remote.publish(key, path)
            here = basis_file.metadata(path).get("fingerprint", "")
        if wanted not in (None, here):
            raise mismatch("basis", str(wanted), here, FETCH_BASIS)
        return path


@dataclass(frozen=True)
class _Making:
    """A basis that is to be computed, from the file that it grows from if there is one."""

    model: nn.Module
    targets: str | Sequence[str]
    rank: int
    base: str
    wanted: Identity
    grows_from: Path | None
    progress: Progress

    @property
    def key(self) -> str:
        dtype = DTYPE if self.grows_from is None else basis_file.dtype(self.grows_from)
        return key_of(self.base, self.targets, self.rank, dtype)

    def run(self) -> Basis:
        prefix = None if self.grows_from is None else Basis.load(self.grows_from, torch.device("cpu"))
        return compute_basis(self.model, self.targets, self.rank, self.base, self.wanted, prefix, self.progress)


def _load(
    path: Path, wanted: Identity, device: torch.device, dtype: torch.dtype | None, rank: int | None = None
) -> Basis:
    """The basis at `path`, up to `rank`. Raises CorruptArtifact if it is not the one that was wanted."""
    basis = Basis.load(path, device, dtype, rank)
    for what, expected, found, is_it in (
        ("base", wanted.base, basis.base_fingerprint, wanted.base == basis.base_fingerprint),
        ("basis", wanted.basis, basis.fingerprint, wanted.basis is not None and basis.holds(wanted.basis)),
    ):
        if expected is not None and not is_it:
            raise CorruptArtifact(
                f"the file {path} holds {what} {found}, where {expected} was looked for",
                next_action="delete the file, or correct what fetched it",
            )
    return basis
