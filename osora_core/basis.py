"""The basis of a base: the stored top-R singular triplets of every targeted weight.

Factors computed twice differ by far more than an adapter's precision, so a basis is computed once per (base, targets,
rank), stored, and named by the hash of its content. Trainer and server use the same stored one.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from osora_core.errors import CorruptArtifact, UserError

FORMAT = "osora-basis-1"
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Factors:
    """U [d_out, R], S [R] (float32, descending), Vt [R, d_in]; U and Vt in the model's dtype."""

    U: Tensor
    S: Tensor
    Vt: Tensor


@dataclass(frozen=True)
class Span:
    """Where one module's vectors lie in a bank row: sigma [start, start + rank), delta right behind it."""

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
    def row_length(self) -> int:
        """Values in one bank row: the sum of R + d_out over the modules."""
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
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CorruptArtifact(f"the basis file {path} cannot be read: {error}") from error
        except Exception as error:
            if type(error).__name__ == "SafetensorError":
                raise CorruptArtifact(f"the basis file {path} is damaged: {error}") from error
            raise
        basis = cls(factors, metadata["base_fingerprint"], int(metadata["rank"]))
        if basis.fingerprint != metadata["fingerprint"]:
            raise CorruptArtifact(
                f"the basis file {path} says it is {metadata['fingerprint']} but holds {basis.fingerprint}",
                next_action="delete the file; it is fetched or computed again at the next start",
            )
        return basis


def compute_factors(weight: Tensor, rank: int) -> Factors:
    """The top min(rank, d_out, d_in) singular triplets of weight [d_out, d_in], in its dtype (S in float32).

    Signs are fixed (each right vector's largest entry is positive), so equal input gives equal factors.
    """
    U, S, Vt = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    U, S, Vt = U[:, :rank], S[:rank], Vt[:rank]
    largest = Vt.gather(1, Vt.abs().argmax(dim=1, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
    return Factors((U * signs.T).to(dtype).contiguous(), S.contiguous(), (Vt * signs).to(dtype).contiguous())


def dense_weight(module: nn.Module) -> Tensor:
    """The weight [d_out, d_in] of a supported linear; raises UserError for anything else."""
    if isinstance(module, Conv1D):
        return module.weight.T
    if isinstance(module, nn.Linear) and module.weight.dtype.is_floating_point:
        return module.weight
    raise UserError(
        f"OSoRA adapts nn.Linear and Conv1D with floating-point weights, not {type(module).__name__}",
        param="target_modules",
        next_action="leave this module out of target_modules, or load the base without quantisation",
    )


def find_targets(model: nn.Module, targets: str | Iterable[str]) -> dict[str, nn.Module]:
    """Modules to adapt, by full name in model order: every linear but the output head, or those whose last name
    component is listed. Raises UserError if a listed name matches nothing."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    linears: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    if targets == ALL_LINEAR:
        return linears
    wanted = {targets} if isinstance(targets, str) else set(targets)
    found = {name: module for name, module in linears.items() if name.rpartition(".")[2] in wanted}
    missing = wanted - {name.rpartition(".")[2] for name in found}
    if missing or not found:
        known = sorted({name.rpartition(".")[2] for name in linears})
        raise UserError(
            f"no linear module is called {', '.join(sorted(missing))}",
            param="target_modules",
            next_action=f"choose from {', '.join(known)}, or 'all-linear'",
        )
    return found


def compute_basis(model: nn.Module, targets: str | Sequence[str], rank: int, base_fingerprint: str) -> Basis:
    """Decompose every targeted weight of `model` where it lies."""
    with torch.no_grad():
        factors = {
            name: compute_factors(dense_weight(module), rank) for name, module in find_targets(model, targets).items()
        }
    return Basis(factors, base_fingerprint, rank)


def fingerprint_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 (hex) over (name, dtype, shape, bytes) of each tensor, sorted by name."""

    def digest(item: tuple[str, Tensor]) -> str:
        name, tensor = item
        data = tensor.detach().cpu().contiguous()
        content = hashlib.sha256(data.view(-1).view(torch.uint8).numpy().data).hexdigest()
        return f"{name} {str(data.dtype).removeprefix('torch.')} {tuple(data.shape)} {content}\n"

    with ThreadPoolExecutor() as pool:
        lines = sorted(pool.map(digest, tensors))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint_base(model: nn.Module) -> str:
    """The identity of a base: a hash of its parameters' values, the same for a bfloat16 checkpoint read as float32."""
    return fingerprint_tensors((name, p.detach().float()) for name, p in model.named_parameters())


class RemoteBasis(Protocol):
    """Where processes on different machines share bases; keys are paths, a first write wins."""

    def fetch(self, key: str, path: Path) -> bool:
        """Download `key` to `path`; False if there is none."""

    def publish(self, key: str, path: Path) -> None:
        """Upload unless the key exists already."""


@dataclass(frozen=True)
class BasisCache:
    """Stored bases in a local directory, optionally shared through a remote store."""

    directory: Path
    remote: RemoteBasis | None = None

    def get(self, model: nn.Module, targets: str | Sequence[str], rank: int, device: torch.device) -> Basis:
        """The one basis of (model's weights, targets, rank): read, fetched, or computed and stored.

        Of processes that start together one computes; across machines the first upload wins and the rest fetch it.
        """
        base = fingerprint_base(model)
        names = targets if isinstance(targets, str) else "-".join(sorted(targets))
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        key = f"bases/{base}/{names}-r{rank}-{dtype}.safetensors"
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists() and not (self.remote is not None and self.remote.fetch(key, path)):
                compute_basis(model, targets, rank, base).save(path)
                if self.remote is not None:
                    self.remote.publish(key, path)
                    self.remote.fetch(key, path)
            return Basis.load(path, device)
