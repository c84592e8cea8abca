"""The basis of a base: the stored top-R singular triplets of every targeted weight.

A basis belongs to the values of a base's checkpoint, in float32, whatever dtype the base is loaded in and however many
threads compute it. Two kinds of processor round differently all the same, by far more than an adapter's precision. So a
basis is computed once per (base, targets, rank), stored, and named by the hash of its content; all use that one.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from osora_core import basis_file, basis_place, progress
from osora_core.checkpoint import own_values
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.identity import ANY, FETCH_BASIS, Identity, mismatch
from osora_core.svd import of_each, top_triplets
from osora_core.weights import (
    ALL_LINEAR,
    compute_dtype,
    dense_weight,
    find_targets,
    fingerprint_base,
    fingerprint_tensors,
)

DTYPE = torch.float32
"""What a basis is stored in. Version 0.1.0 stored it in the dtype that the model was loaded in."""
_FOLDER = "basis/"
# Where version 0.1.0 stored them. Adapters are tied to these very files, so they are used and none is computed again.
_FORMER_FOLDER = "bases/"


@dataclass(frozen=True)
class Factors:
    """U [d_out, R], S [R] (float32, descending), Vt [R, d_in]; U and Vt in one dtype."""

    U: Tensor
    S: Tensor
    Vt: Tensor


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
    independent of file layout and device; probe: the same of the first module's factors alone."""

    fingerprint: str
    probe: str
    dtype: torch.dtype


@dataclass(frozen=True)
class Basis:
    """Factors by module name (in model order), with the identity of what they were computed from.

    origin: what is stored, where the factors are a copy of it in another dtype.
    """

    factors: Mapping[str, Factors]
    base_fingerprint: str
    rank: int
    origin: Stored | None = None

    @cached_property
    def stored(self) -> Stored:
        """What is stored, whatever dtype this copy of it is in."""
        if self.origin is not None:
            return self.origin
        first = next(iter(self.factors))
        return Stored(_hash(self.factors), _hash({first: self.factors[first]}), self.dtype)

    @property
    def fingerprint(self) -> str:
        return self.stored.fingerprint

    @property
    def key(self) -> str:
        """Where an all-linear basis lies in a store of bases."""
        return _key(self.base_fingerprint, ALL_LINEAR, self.rank, self.stored.dtype)

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

    def to(self, device: torch.device, dtype: torch.dtype) -> "Basis":
        """The same basis on a device, U and Vt in `dtype`; itself where nothing changes."""
        if dtype == self.dtype and device == next(iter(self.factors.values())).U.device:
            return self
        factors = {
            name: Factors(one.U.to(device, dtype), one.S.to(device), one.Vt.to(device, dtype))
            for name, one in self.factors.items()
        }
        return Basis(factors, self.base_fingerprint, self.rank, self.stored)

    def save(self, path: Path) -> None:
        """Write to `path` as safetensors; complete or not at all (temporary file, fsync, rename)."""
        tensors = {
            f"{name}.{part}": getattr(factors, part).detach().cpu().contiguous()
            for name, factors in self.factors.items()
            for part in ("U", "S", "Vt")
        }
        metadata = {
            "format": basis_file.FORMAT,
            "base_fingerprint": self.base_fingerprint,
            "rank": str(self.rank),
            "modules": json.dumps(list(self.factors)),
            "fingerprint": self.fingerprint,
        }
        with basis_file.draft(path) as draft:
            save_file(tensors, draft, metadata)

    @classmethod
    def load(cls, path: Path, device: torch.device, dtype: torch.dtype | None = None) -> "Basis":
        """Read a stored basis onto `device`, U and Vt in `dtype` or as stored, and check it against its fingerprint.

        On a CPU, in the dtype that it is stored in, it is memory-mapped. Raises CorruptArtifact if the file is not a
        basis or its bytes are not those it was saved with.
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
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise CorruptArtifact(
                f"the basis file {path} cannot be read: {error}",
                next_action="delete the file; it is fetched or computed again at the next start",
            ) from error
        basis = cls(factors, metadata["base_fingerprint"], int(metadata["rank"]))
        if basis.fingerprint != metadata["fingerprint"]:
            raise CorruptArtifact(
                f"the basis file {path} says it is {metadata['fingerprint']} but holds {basis.fingerprint}",
                next_action="delete the file; it is fetched or computed again at the next start",
            )
        return basis.to(device, dtype or basis.dtype)


def compute_factors(weight: Tensor, rank: int, dtype: torch.dtype | None = None) -> Factors:
    """The top min(rank, d_out, d_in) triplets of weight [d_out, d_in], S in float32, U and Vt in `dtype` or its own."""
    U, S, Vt = top_triplets(weight.detach(), rank)
    dtype = dtype or weight.dtype
    return Factors(U.to(dtype).contiguous(), S.float().contiguous(), Vt.to(dtype).contiguous())


def compute_basis(
    model: nn.Module, targets: str | Sequence[str], rank: int, base_fingerprint: str, wanted: Identity = ANY
) -> Basis:
    """Decompose every targeted weight of `model`: the same factors whatever its dtype and the number of threads.

    On the GPU if there is one. Raises IdentityMismatch after the first weight if it shows that this is not `wanted`.
    """
    modules = find_targets(model, targets)
    weights = ((name, dense_weight(module).detach()) for name, module in modules.items())
    factors: dict[str, Factors] = {}
    with torch.no_grad():
        for name, one in of_each(partial(compute_factors, rank=rank, dtype=DTYPE), weights):
            factors[name] = Factors(one.U.cpu(), one.S.cpu(), one.Vt.cpu())
            progress.tell(len(factors), len(modules))
            if len(factors) == 1 and wanted.probe not in (None, _hash(factors)):
                raise IdentityMismatch(
                    f"the adapter was made on basis {wanted.basis}, which is not stored here, and this processor would "
                    "compute another",
                    next_action=FETCH_BASIS,
                )
    return Basis(factors, base_fingerprint, rank)


class RemoteBasis(Protocol):
    """Where processes on different machines share stored bases; keys are paths, a first write wins."""

    def fetch(self, key: str, path: Path) -> bool:
        """Download `key` to `path`, whole or not at all; False if there is none."""

    def publish(self, key: str, path: Path) -> None:
        """Upload unless the key exists already."""


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
        self, model: nn.Module, targets: str | Sequence[str], rank: int, device: torch.device,
        wanted: Identity = ANY, before: Callable[[], object] = lambda: None,
    ) -> Basis:  # fmt: skip
        """The one basis of (base, targets, rank), in the model's dtype: read, fetched, or computed and stored.

        Of the processes of a machine that start together, one computes it. Of several machines the first to upload it
        wins, and the others fetch that. On a CPU a float32 one is memory-mapped: processes share its memory. Raises
        IdentityMismatch if it is not `wanted`, before anything is decomposed where stored files or the probe show it.
        `before` is called before a basis is computed: what it raises spares that.
        """
        dtype = compute_dtype(model)
        values, base = self._identify(model, targets, rank, wanted)
        if wanted.base not in (None, base):
            raise mismatch("base", str(wanted.base), base, "load the base that the adapter names")
        if wanted.basis is not None:
            path = self._find(base, wanted.basis, rank)
        else:
            path = self._pulled(base, rank, targets) or self._former(base, targets, rank, dtype)
        if path is None:
            path = self._make(values, base, targets, rank, wanted, before)
        return _load(path, wanted, device, dtype)

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
        return _load(path, Identity(base_fingerprint, basis_fingerprint), torch.device("cpu"), None)

    def _identify(
        self, model: nn.Module, targets: str | Sequence[str], rank: int, wanted: Identity
    ) -> tuple[nn.Module, str]:
        """The model that holds the base's own values, and the base's fingerprint."""
        held = fingerprint_base(model)
        if held == wanted.base:
            return model, held
        if wanted.base is None and self._former(held, targets, rank, compute_dtype(model)) is not None:
            return model, held
        values = own_values(model)
        return values, held if values is model else fingerprint_base(values)

    def _find(self, base: str, basis: str, rank: int) -> Path | None:
        """The file of the all-linear basis of this hash, from wherever it is stored."""
        for dtype in (DTYPE, torch.bfloat16, torch.float16):
            key = _key(base, ALL_LINEAR, rank, dtype)
            with self._locked(key) as path:
                if self._bring(key, path) and basis_file.metadata(path).get("fingerprint") == basis:
                    return path
        if not re.fullmatch("[0-9a-f]{64}", basis):
            return None
        with self._locked(f"{_FOLDER}{basis}.safetensors") as path:
            if path.exists():
                return path
            if self.elsewhere is None:
                return None
            with basis_file.draft(path) as draft:
                if not basis_place.fetch(self.elsewhere, basis, draft):
                    return None
                _load(draft, Identity(basis=basis), torch.device("cpu"), None)
            return path

    def _pulled(self, base: str, rank: int, targets: str | Sequence[str]) -> Path | None:
        """A basis of this base that was fetched by its hash: whoever fetched it wants new adapters to fit it too."""
        if targets != ALL_LINEAR:
            return None
        folders = [self.directory / _FOLDER, *basis_place.folders(self.elsewhere)]
        found = (path for folder in folders for path in sorted(folder.glob("*.safetensors")))
        asked = {"base_fingerprint": base, "rank": str(rank)}.items()
        return next((path for path in found if asked <= basis_file.metadata(path).items()), None)

    def _former(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> Path | None:
        """A basis that version 0.1.0 stored in another dtype. Adapters are tied to it, so it stays the one to use."""
        if dtype == DTYPE:
            return None
        key = _key(base, targets, rank, dtype)
        with self._locked(key) as path:
            return path if self._bring(key, path) else None

    def _make(
        self, values: nn.Module, base: str, targets: str | Sequence[str], rank: int, wanted: Identity,
        before: Callable[[], object],
    ) -> Path:  # fmt: skip
        """The basis that this machine, or another of the remote store, computes. Refuses what was not `wanted`."""
        key = _key(base, targets, rank, DTYPE)
        with self._locked(key) as path:
            if not self._bring(key, path):
                before()
                with basis_file.draft(path) as own:
                    compute_basis(values, targets, rank, base, wanted).save(own)
                    if self.remote is not None:
                        self.remote.publish(key, own)
                        if self.remote.fetch(key, path):  # perhaps another's; ours was never in its place
                            own.write_bytes(b"")
            elif self.remote is not None:
                self.remote.publish(key, path)
            here = basis_file.metadata(path).get("fingerprint", "")
        if wanted.basis not in (None, here):
            raise mismatch("basis", str(wanted.basis), here, FETCH_BASIS)
        return path

    @contextmanager
    def _locked(self, key: str) -> Iterator[Path]:
        """The path of a key, while no other process writes there; what killed ones left beside it is removed."""
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            for unfinished in path.parent.glob(f"{path.name}*.tmp"):
                unfinished.unlink()
            yield path

    def _bring(self, key: str, path: Path) -> bool:
        """Have `key` at `path`, from wherever it is stored; False if it is stored nowhere."""
        if path.exists():
            return True
        former = _FORMER_FOLDER + key.removeprefix(_FOLDER)
        if (self.directory / former).exists():
            os.replace(self.directory / former, path)
            return True
        if self.remote is None:
            return False
        if self.remote.fetch(key, path):
            return True
        if not self.remote.fetch(former, path):
            return False
        self.remote.publish(key, path)
        return True


def _load(path: Path, wanted: Identity, device: torch.device, dtype: torch.dtype | None) -> Basis:
    """The basis at `path`. Raises CorruptArtifact if it is not the one that was wanted."""
    basis = Basis.load(path, device, dtype)
    found_here = {"base": (wanted.base, basis.base_fingerprint), "basis": (wanted.basis, basis.fingerprint)}
    for what, (expected, found) in found_here.items():
        if expected not in (None, found):
            raise CorruptArtifact(
                f"the file {path} holds {what} {found}, where {expected} was looked for",
                next_action="delete the file, or correct what fetched it",
            )
    return basis


def _hash(factors: Mapping[str, Factors]) -> str:
    parts = ((f"{name}.{part}", getattr(one, part)) for name, one in factors.items() for part in ("U", "S", "Vt"))
    return fingerprint_tensors(parts)


def _key(base_fingerprint: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> str:
    names = targets if isinstance(targets, str) else "-".join(sorted(targets))
    return f"{_FOLDER}{base_fingerprint}/{names}-r{rank}-{str(dtype).removeprefix('torch.')}.safetensors"
