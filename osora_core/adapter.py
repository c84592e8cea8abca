"""The artifact: an adapter as a PEFT directory (adapter_config.json, adapter_model.safetensors), on disk or zipped."""

import errno
import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from osora_core.basis import Basis, Span
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.identity import mismatch

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
KEY_PREFIX = "base_model.model."
# The part of adapter_config.json that the artifact itself decides.
_OWN = ("peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "canary", "basis_probe")
_IDENTITY = ("base_fingerprint", "basis_fingerprint", "basis_rank")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# The earliest time a ZIP can carry: equal adapters must give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# The mode of unpacked files: who unpacks them and who serves them may be two.
READABLE = 0o644
# A header of two tensors for each linear of 80 layers takes an eighth of it. Strangers' may be of megabytes.
_KEPT_HEADER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Adapter:
    """sigma [r] and delta [d_out] (float32) by module name, with the identity of base and basis.

    base: what the world calls its base, see `osora_core.base_models.public_name`. basis_probe: the hash of the basis's
    first factors (None where version 0.1.0 wrote it). canary: what it answered when it was published
    (`osora_core.canary`). extra: settings of an OsoraConfig that training by PEFT left, kept so that writing the
    adapter again loses nothing.
    """

    sigma: Mapping[str, Tensor]
    delta: Mapping[str, Tensor]
    rank: int
    base: str
    base_fingerprint: str
    basis_fingerprint: str
    basis_rank: int
    basis_probe: str | None = None
    canary: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target_modules(self) -> list[str]:
        return sorted({name.rpartition(".")[2] for name in self.sigma})

    @property
    def parameters(self) -> int:
        return sum(t.numel() for part in (self.sigma, self.delta) for t in part.values())

    def config(self) -> dict[str, Any]:
        """What adapter_config.json holds; OsoraConfig reads it back."""
        return {
            "target_modules": self.target_modules,
            **self.extra,
            "peft_type": "OSORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "inference_mode": True,
            "r": self.rank,
            "base_fingerprint": self.base_fingerprint,
            "basis_fingerprint": self.basis_fingerprint,
            "basis_rank": self.basis_rank,
            **({} if self.basis_probe is None else {"basis_probe": self.basis_probe}),
            **({} if self.canary is None else {"canary": dict(self.canary)}),
        }

    def files(self) -> dict[str, bytes]:
        """The directory's two files, the same bytes for the same adapter."""
        tensors = {}
        for name in self.sigma:
            tensors[f"{KEY_PREFIX}{name}.osora_sigma"] = self.sigma[name].detach().cpu().float().contiguous()
            tensors[f"{KEY_PREFIX}{name}.osora_delta"] = self.delta[name].detach().cpu().float().contiguous()
        config = json.dumps(self.config(), indent=2, sort_keys=True) + "\n"
        return {CONFIG_NAME: config.encode(), WEIGHTS_NAME: save(tensors, metadata={"format": "pt"})}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (directory / name).write_bytes(content)

    def to_zip(self) -> bytes:
        """The directory as one ZIP: the object that is stored, hashed and downloaded."""
        return pack(self.files())

    @classmethod
    def load(cls, directory: Path) -> "Adapter":
        return cls.from_files((directory / CONFIG_NAME).read_bytes(), (directory / WEIGHTS_NAME).read_bytes())

    @classmethod
    def from_zip(cls, data: bytes | memoryview, sha256: str | None = None) -> "Adapter":
        """Read an artifact, first checking its bytes against `sha256` where one is given.

        Raises CorruptArtifact on another hash or a broken archive.
        """
        if sha256 is not None:
            verify(data, sha256)
        return cls.from_files(*unpack(data))

    @classmethod
    def from_files(cls, config_json: bytes, weights: bytes | memoryview) -> "Adapter":
        try:
            config = json.loads(config_json)
            layout, tensors = _tensors(memoryview(weights))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, struct.error) as error:
            raise CorruptArtifact(f"the adapter's files cannot be parsed: {error}") from error
        if config.get("peft_type") != "OSORA":
            raise CorruptArtifact(f"this is a {config.get('peft_type')} adapter, not an OSORA one")
        if not layout.is_whole:
            raise CorruptArtifact("an OSORA adapter holds one osora_sigma and one osora_delta for every module")
        unnamed = [key for key in ("r", *_IDENTITY) if config.get(key) is None]
        if unnamed:
            raise CorruptArtifact(f"{CONFIG_NAME} does not say {', '.join(unnamed)}")
        return cls(
            {name: tensors[index] for name, index in layout.sigma.items()},
            {name: tensors[index] for name, index in layout.delta.items()},
            rank=config["r"],
            base=config.get("base_model_name_or_path") or "",
            base_fingerprint=config["base_fingerprint"],
            basis_fingerprint=config["basis_fingerprint"],
            basis_rank=config["basis_rank"],
            basis_probe=config.get("basis_probe"),
            canary=config.get("canary"),
            extra={k: v for k, v in config.items() if k not in (*_OWN, *_IDENTITY) and v is not None},
        )

    def check(self, basis: Basis) -> None:
        """Raise IdentityMismatch, naming both hashes, unless this adapter was made on this base and basis.

        Raises CorruptArtifact if its vectors nevertheless do not fit.
        """
        self._order(basis)

    def to_row(self, basis: Basis) -> Tensor:
        """The adapter as one row [P] float32, which is what a slot of a bank holds; modules it does not adapt are zero.

        Raises what `check` does.
        """
        order = self._order(basis)
        tensors = [*self.sigma.values(), *(self.delta[name] for name in self.sigma)]
        zeros = tensors[0].new_zeros(max(span.rank + span.d_out for span in basis.spans))
        # At once, and without holding up other threads.
        with torch.no_grad():
            row = torch.cat([tensors[i] if i >= 0 else zeros[:-i] for i in order])
        return row.float().cpu()

    def _order(self, basis: Basis) -> tuple[int, ...]:
        """How this adapter's vectors lie in its row: see the function of this name. Raises what `check` does."""
        for what, mine, theirs in (
            ("base", self.base_fingerprint, basis.base_fingerprint),
            ("basis", self.basis_fingerprint, basis.fingerprint),
        ):
            if mine != theirs and not (what == "basis" and basis.holds(mine)):
                raise mismatch(what, mine, theirs)
        check_loaded(max(map(len, self.sigma.values())), basis)
        names = tuple(self.sigma)
        sigma, delta = (tuple(part[name].numel() for name in names) for part in (self.sigma, self.delta))
        return _order(basis.spans, names, sigma, delta)

    @classmethod
    def from_row(cls, row: Tensor, basis: Basis, *, rank: int, modules: set[str], base: str) -> "Adapter":
        """The adapter that a row [P] holds, of the modules whose last name component is in `modules`."""
        spans = [span for span in basis.spans if span.name.rpartition(".")[2] in modules]
        made_on = basis.for_rank(rank)
        return cls(
            {span.name: row[span.start : span.start + min(rank, span.rank)].clone() for span in spans},
            {span.name: row[span.delta].clone() for span in spans},
            rank=rank,
            base=base,
            base_fingerprint=basis.base_fingerprint,
            basis_fingerprint=made_on.fingerprint,
            basis_rank=made_on.rank,
            basis_probe=made_on.probe,
        )


def check_loaded(triplets: int, basis: Basis) -> None:
    """Raise IdentityMismatch for an adapter of more triplets than are loaded of the basis that it was made on."""
    if basis.rank < triplets <= basis.stored.rank:
        raise IdentityMismatch(
            f"the adapter uses {triplets} triplets, and of its basis {basis.rank} are loaded here",
            next_action="load the basis at a higher rank: OSORA_BASIS_RANK is that of a service",
        )


def verify(data: bytes | memoryview, sha256: str) -> None:
    """Raise CorruptArtifact unless an artifact's bytes have this hash."""
    if (actual := hashlib.sha256(data).hexdigest()) != sha256:
        raise CorruptArtifact(f"the adapter's bytes hash to {actual}, expected {sha256}")


def unpack(data: bytes | memoryview) -> tuple[bytes, memoryview]:
    """The config and the weights of an artifact. Raises CorruptArtifact if it is no ZIP of both."""
    try:
        with zipfile.ZipFile(_Memory(data)) as archive:
            return archive.read(CONFIG_NAME), _member(archive, memoryview(data), WEIGHTS_NAME)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CorruptArtifact(f"the adapter is not a ZIP of {CONFIG_NAME} and {WEIGHTS_NAME}: {error}") from error


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files as one uncompressed ZIP, the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = (stat.S_IFREG | READABLE) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


class _Memory(io.RawIOBase):
    """A buffer as a file. BytesIO would copy one that is not bytes, and hold up every other thread meanwhile."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, f"{position} lies before the first byte")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _member(archive: zipfile.ZipFile, data: memoryview, name: str) -> memoryview:
    """A file of the ZIP `data`: the part of `data` that it is, if it is stored uncompressed.

    To open it would copy it and compute its checksum, a good part of the time that loading a cold adapter takes.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        return memoryview(archive.read(name))
    # A local header is 30 bytes, whose last four are the lengths of the name and of an extra field that follow.
    lengths = data[info.header_offset + 26 : info.header_offset + 30]
    begin = info.header_offset + 30 + sum(struct.unpack("<HH", lengths))
    return data[begin : begin + info.file_size]


@dataclass(frozen=True)
class _Layout:
    """A safetensors file's dtype, the sizes of its tensors as they lie in it, and which is whose sigma and delta."""

    dtype: torch.dtype
    sizes: list[int]
    sigma: dict[str, int]
    delta: dict[str, int]

    @property
    def is_whole(self) -> bool:
        found = self.sigma.keys()
        return bool(found) and found == self.delta.keys() and 2 * len(found) == len(self.sizes)


def _tensors(weights: memoryview) -> tuple[_Layout, Sequence[Tensor]]:
    """The tensors of a safetensors file, float32, copied as one; its own reader makes hundreds of copies.

    The format: the header's length in 8 bytes, the header in JSON, the tensors one behind the other. Raises ValueError,
    KeyError, TypeError, AttributeError, RuntimeError or struct.error for anything else, and for dtypes that differ.
    """
    (length,) = struct.unpack("<Q", weights[:8])
    header = bytes(weights[8 : 8 + length])
    layout = _layout(header) if length <= _KEPT_HEADER_BYTES else _layout.__wrapped__(header)
    content, expected = np.frombuffer(weights[8 + length :], np.uint8), sum(layout.sizes) * layout.dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes of tensors, where the header says {expected}")
    # Numpy's copy lets other threads run, a bytearray's does not.
    return layout, torch.split(torch.from_numpy(content.copy()).view(layout.dtype).float(), layout.sizes)


# Adapters of one spec have one header and one order: what they take is taken once, and holds up no other thread again.


@lru_cache(maxsize=64)
def _layout(header: bytes) -> _Layout:
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    dtypes = {_DTYPES[entry["dtype"]] for entry in entries.values()}
    if len(dtypes) != 1:
        raise ValueError(f"tensors of {len(dtypes)} types")
    layout = _Layout(dtypes.pop(), [], {}, {})
    end = 0
    for index, name in enumerate(sorted(entries, key=lambda name: entries[name]["data_offsets"])):
        if len(entries[name]["shape"]) != 1:
            raise ValueError(f"{name} is no vector of OSoRA; an adapter with modules_to_save is for PEFT alone")
        (size,) = entries[name]["shape"]
        begin, end = end, end + size * layout.dtype.itemsize
        if size < 1 or entries[name]["data_offsets"] != [begin, end]:
            raise ValueError(f"{name} does not lie where the tensor before it ends")
        layout.sizes.append(size)
        for suffix, part in ((".osora_sigma", layout.sigma), (".osora_delta", layout.delta)):
            if name.endswith(suffix):
                part[name.removeprefix(KEY_PREFIX).removesuffix(suffix)] = index
    return layout


@lru_cache(maxsize=64)
def _order(
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
