"""The basis of a base: the stored top-R singular triplets of every targeted weight.

Factors computed twice differ by far more than an adapter's precision, so a basis is computed once per (base, targets,
rank), stored, and named by the hash of its content. Trainer and server use the same stored one.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, cast

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from osora_core.errors import CorruptArtifact, UserError
from osora_core.svd import top_triplets
from osora_core.weights import (
    ALL_LINEAR,
    compute_dtype,
    dense_weight,
    find_targets,
    fingerprint_base,
    fingerprint_tensors,
    is_plain,
)

FORMAT = "osora-basis-1"
_FOLDER = "basis/"
# Where version 0.1.0 stored them. Adapters are tied to these very files, so they are used and none is computed again.
_FORMER_FOLDER = "bases/"


@dataclass(frozen=True)
class Factors:
    """U [d_out, R], S [R] (float32, descending), Vt [R, d_in]; U and Vt in the model's dtype."""

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


@dataclass(frozen=True)
class Basis:
    """Factors by module name (in model order), with the identity of what they were computed from."""

    factors: Mapping[str, Factors]
    base_fingerprint: str
    rank: int

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, dtypes, shapes and bytes of all factors; independent of file layout and device."""
        return fingerprint_tensors(
            (f"{name}.{part}", getattr(factors, part))
            for name, factors in self.factors.items()
            for part in ("U", "S", "Vt")
        )

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

    def save(self, path: Path) -> None:
        """Write to `path` as safetensors; complete or not at all (temporary file, fsync, rename)."""
        tensors = {
            f"{name}.{part}": getattr(factors, part).detach().cpu().contiguous()
            for name, factors in self.factors.items()
            for part in ("U", "S", "Vt")
        }
        metadata = {
            "format": FORMAT,
            "base_fingerprint": self.base_fingerprint,
            "rank": str(self.rank),
            "modules": json.dumps(list(self.factors)),
            "fingerprint": self.fingerprint,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        os.close(descriptor)
        try:
            save_file(tensors, temporary, metadata)
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Basis":
        """Read a stored basis onto `device` and check its content against its fingerprint.

        Raises CorruptArtifact if the file is not a basis or its bytes are not those it was saved with.
        """
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
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
        return basis


def compute_factors(weight: Tensor, rank: int, dtype: torch.dtype | None = None) -> Factors:
    """The top min(rank, d_out, d_in) triplets of weight [d_out, d_in], S in float32, U and Vt in `dtype` or its own."""
    U, S, Vt = top_triplets(weight.detach(), rank)
    dtype = dtype or weight.dtype
    return Factors(U.to(dtype).contiguous(), S.float().contiguous(), Vt.to(dtype).contiguous())


def compute_basis(model: nn.Module, targets: str | Sequence[str], rank: int, base_fingerprint: str) -> Basis:
    """Decompose every targeted weight of `model`, one after the other on the GPU if there is one."""
    factors = {}
    with torch.no_grad():
        for name, module in find_targets(model, targets).items():
            dtype = None if is_plain(cast(Tensor, module.weight)) else compute_dtype(model)
            weight = dense_weight(module)
            factors[name] = compute_factors(weight.cuda() if torch.cuda.is_available() else weight, rank, dtype)
    return Basis(factors, base_fingerprint, rank)


class RemoteBasis(Protocol):
    """Where processes on different machines share stored bases; keys are paths, a first write wins."""

    def fetch(self, key: str, path: Path) -> bool:
        """Download `key` to `path`, whole or not at all; False if there is none."""

    def publish(self, key: str, path: Path) -> None:
        """Upload unless the key exists already."""


@dataclass(frozen=True)
class BasisCache:
    """Stored bases in a local directory, optionally shared through a remote store."""

    directory: Path
    remote: RemoteBasis | None = None

    @classmethod
    def default(cls) -> "BasisCache":
        """The directory of $OSORA_CACHE, or ~/.cache/osora."""
        return cls(Path(os.environ.get("OSORA_CACHE") or Path.home() / ".cache" / "osora"))

    def get(
        self,
        model: nn.Module,
        targets: str | Sequence[str],
        rank: int,
        device: torch.device,
        *,
        before: Callable[[], object] = lambda: None,
    ) -> Basis:
        """The one basis of (model's weights, targets, rank): read, fetched, or computed and stored.

        Of the processes of a machine that start together, one computes it. Of several machines the first to upload it
        wins, and the others fetch that. On a CPU the factors are memory-mapped, so that processes share their memory.
        `before` is called before a basis is computed: what it raises spares that.
        """
        base = fingerprint_base(model)
        key = _key(base, targets, rank, compute_dtype(model))
        with self._locked(key) as path:
            if not self._bring(key, path):
                before()
                compute_basis(model, targets, rank, base).save(path)
                if self.remote is not None:
                    self.remote.publish(key, path)
                    self.remote.fetch(key, path)
            return Basis.load(path, device)

    def find(self, base_fingerprint: str, basis_fingerprint: str, rank: int) -> Basis:
        """The stored all-linear basis of these hashes, on the CPU, without its base: what an export needs.

        Raises UserError, naming both hashes, if neither this directory nor the remote store has it.
        """
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            key = _key(base_fingerprint, ALL_LINEAR, rank, dtype)
            with self._locked(key) as path:
                if self._bring(key, path):
                    basis = Basis.load(path, torch.device("cpu"))
                    if basis.fingerprint == basis_fingerprint:
                        return basis
        raise UserError(
            f"the basis {basis_fingerprint} of base {base_fingerprint} is not stored in {self.directory}",
            next_action="load the base once with this cache, or copy the basis from where the adapter was trained",
        )

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


def _key(base_fingerprint: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> str:
    names = targets if isinstance(targets, str) else "-".join(sorted(targets))
    return f"{_FOLDER}{base_fingerprint}/{names}-r{rank}-{str(dtype).removeprefix('torch.')}.safetensors"
