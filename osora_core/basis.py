"""The basis of a base: the stored top-R singular triplets of every targeted weight.

Factors computed twice differ by far more than an adapter's precision, so a basis is computed once per (base, targets,
rank), stored, and named by the hash of its content. Trainer and server use the same stored one.
"""

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from transformers.pytorch_utils import Conv1D

from osora_core.errors import CorruptArtifact, UserError
from osora_core.svd import top_triplets

FORMAT = "osora-basis-1"
ALL_LINEAR = "all-linear"
PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The schemes of transformers whose weights we can read; any other would hide weights from the base's fingerprint.
READABLE_QUANTISATION = ("bitsandbytes", "torchao")
# Tensors that are hashed at once, each in memory as its values: enough threads to keep up with a disk.
_HASHED_AT_ONCE = 8


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
        """Of U and Vt, and so of what is served on them."""
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


def is_plain(weight: Tensor) -> bool:
    """Whether a weight is what its numbers say: a floating-point tensor without scales kept elsewhere."""
    return type(weight) in (Tensor, nn.Parameter) and weight.dtype in PLAIN_DTYPES


def dense_weight(module: nn.Module) -> Tensor:
    """The weight [d_out, d_in] of a supported linear, without quantisation; raises UserError for anything else.

    Supported are nn.Linear and Conv1D in floating point and the int8 and 4-bit weights of bitsandbytes and torchao.
    """
    weight = cast(Tensor, module.weight)
    if isinstance(module, nn.Linear | Conv1D) and is_plain(weight):
        return weight.T if isinstance(module, Conv1D) else weight
    if isinstance(module, nn.Linear) and type(weight).__module__.startswith("torchao."):
        return weight.dequantize().detach()
    if isinstance(module, nn.Linear) and type(weight).__name__ in ("Int8Params", "Params4bit"):
        # Only who loads such a base needs PEFT, which takes seconds to import.
        from peft.utils.integrations import dequantize_bnb_weight

        return dequantize_bnb_weight(cast(nn.Parameter, weight), getattr(module, "state", None)).detach()
    raise UserError(
        f"OSoRA cannot read the weight of a {type(module).__name__} ({type(weight).__name__}, {weight.dtype})",
        param="target_modules",
        next_action="load the base without quantisation, or with bitsandbytes or torchao",
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
    if not linears:
        raise UserError(
            f"this {type(model).__name__} has no nn.Linear and no Conv1D to adapt",
            next_action="load the base without quantisation, or with bitsandbytes or torchao",
        )
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
    """Decompose every targeted weight of `model`, one after the other on the GPU if there is one."""
    factors = {}
    with torch.no_grad():
        for name, module in find_targets(model, targets).items():
            dtype = None if is_plain(cast(Tensor, module.weight)) else compute_dtype(model)
            weight = dense_weight(module)
            factors[name] = compute_factors(weight.cuda() if torch.cuda.is_available() else weight, rank, dtype)
    return Basis(factors, base_fingerprint, rank)


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that a model computes in: that of its first floating-point parameter."""
    return next(p.dtype for p in model.parameters() if is_plain(p))


def fingerprint_tensors(tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> str:
    """sha256 (hex) over (name, dtype, shape, bytes) of each tensor, sorted by name; as `dtype` where one is given.

    `tensors` is read as the hashing goes on, a few ahead of it, and only those few are brought to the CPU and
    converted: a base need not fit into memory twice, and one that is quantised need not fit without that.
    """

    def digest(item: tuple[str, Tensor]) -> str:
        name, tensor = item
        data = tensor.detach().cpu().to(dtype or tensor.dtype).contiguous()
        content = hashlib.sha256(data.view(-1).view(torch.uint8).numpy().data).hexdigest()
        return f"{name} {str(data.dtype).removeprefix('torch.')} {tuple(data.shape)} {content}\n"

    lines: list[str] = []
    # Not `map`, which reads all that it is given at once.
    pending: deque[Future[str]] = deque()
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        for item in tensors:
            pending.append(pool.submit(digest, item))
            del item
            if len(pending) == _HASHED_AT_ONCE:
                lines.append(pending.popleft().result())
        lines += [future.result() for future in pending]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def fingerprint_base(model: nn.Module) -> str:
    """The identity of a base: a hash of its parameters' values, the same for a bfloat16 checkpoint read as float32.

    A quantised weight counts with the values it stands for. Raises UserError for a scheme that hides weights from us.
    """
    quantisation = getattr(getattr(model, "config", None), "quantization_config", None)
    method = getattr(quantisation, "quant_method", None)
    if quantisation is not None and getattr(method, "value", method) not in READABLE_QUANTISATION:
        raise UserError(
            f"a base quantised with {getattr(method, 'value', method)} is not supported",
            param="model",
            next_action=f"load it without quantisation, or with {' or '.join(READABLE_QUANTISATION)}",
        )
    return fingerprint_tensors(_values(model), torch.float32)


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name, quantised ones as what they stand for."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise UserError(
                f"{name} is not in memory but on the meta device",
                param="model",
                next_action="load the base without offloading and without init_empty_weights",
            )
        if is_plain(parameter):
            yield name, parameter
        else:
            yield name, dense_weight(model.get_submodule(name.rpartition(".")[0]))


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

    def get(self, model: nn.Module, targets: str | Sequence[str], rank: int, device: torch.device) -> Basis:
        """The one basis of (model's weights, targets, rank): read, fetched, or computed and stored.

        Of processes that start together one computes; across machines the first upload wins and the rest fetch it.
        On a CPU the factors are memory-mapped: processes that use the same one share its memory.
        """
        base = fingerprint_base(model)
        key = _key(base, targets, rank, compute_dtype(model))
        with self._locked(key) as path:
            if not self._bring(key, path):
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


_FOLDER = "basis/"
_FORMER_FOLDER = "bases/"
"""Where version 0.1.0 and those before it stored them. Adapters are tied to these very files: none is made again."""


def _key(base_fingerprint: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> str:
    names = targets if isinstance(targets, str) else "-".join(sorted(targets))
    return f"{_FOLDER}{base_fingerprint}/{names}-r{rank}-{str(dtype).removeprefix('torch.')}.safetensors"
