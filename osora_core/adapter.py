"""The artifact: an adapter as a PEFT directory (adapter_config.json, adapter_model.safetensors), on disk or zipped."""

import errno
import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from osora_core.adapter_tensors import KEY_PREFIX, Layout, read_tensors
from osora_core.basis import Basis
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.identity import mismatch
from osora_core.mix import mix_spans
from osora_core.row_order import mix_order, vector_order

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
# The part of adapter_config.json that the artifact itself decides.
_OWN = (
    "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "mix", "format_version", "canary",
    "basis_probe",
)  # fmt: skip
_IDENTITY = ("base_fingerprint", "basis_fingerprint", "basis_rank")
MIXED_VERSION = 2
"""The format_version of an adapter with a mix; those without one have none, and are what they always were."""
# The earliest time a ZIP can carry: equal adapters must give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# The mode of unpacked files: who unpacks them and who serves them may be two.
READABLE = 0o644


@dataclass(frozen=True)
class Adapter:
    """sigma [r] and delta [d_out] (float32) by module name, with the identity of base and basis.

    mix: the C [c, c] of each module, none where the adapter has no mix; mix_size: c, 0 without. A module whose full
    rank is smaller has a C of that size.

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
    mix: Mapping[str, Tensor] = field(default_factory=dict)
    mix_size: int = 0

    @property
    def target_modules(self) -> list[str]:
        return sorted({name.rpartition(".")[2] for name in self.sigma})

    @property
    def parameters(self) -> int:
        return sum(t.numel() for part in (self.sigma, self.delta, self.mix) for t in part.values())

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
            **({"mix": self.mix_size, "format_version": MIXED_VERSION} if self.mix_size else {}),
            "base_fingerprint": self.base_fingerprint,
            "basis_fingerprint": self.basis_fingerprint,
            "basis_rank": self.basis_rank,
            **({} if self.basis_probe is None else {"basis_probe": self.basis_probe}),
            **({} if self.canary is None else {"canary": dict(self.canary)}),
        }

    def files(self) -> dict[str, bytes]:
        """The directory's two files, the same bytes for the same adapter."""
        parts = {"osora_sigma": self.sigma, "osora_delta": self.delta, "osora_mix": self.mix}
        tensors = {
            f"{KEY_PREFIX}{name}.{part}": tensor.detach().cpu().float().contiguous()
            for part, of_module in parts.items()
            for name, tensor in of_module.items()
        }
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
            layout, tensors = read_tensors(memoryview(weights))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, struct.error) as error:
            raise CorruptArtifact(f"the adapter's files cannot be parsed: {error}") from error
        if config.get("peft_type") != "OSORA":
            raise CorruptArtifact(f"this is a {config.get('peft_type')} adapter, not an OSORA one")
        if not layout.is_whole:
            raise CorruptArtifact(
                "an OSORA adapter holds one osora_sigma and one osora_delta for every module, and with a mix one "
                "osora_mix for every module"
            )
        unnamed = [key for key in ("r", *_IDENTITY) if config.get(key) is None]
        if unnamed:
            raise CorruptArtifact(f"{CONFIG_NAME} does not say {', '.join(unnamed)}")
        mix_size = _mix_size(config, layout)
        mix = {name: tensors[index].view(layout.side(name), -1) for name, index in layout.mix.items()}
        if not all(tensor.isfinite().all() for tensor in mix.values()):
            raise CorruptArtifact("an osora_mix of the adapter holds values that are not numbers")
        return cls(
            {name: tensors[index] for name, index in layout.sigma.items()},
            {name: tensors[index] for name, index in layout.delta.items()},
            mix=mix,
            mix_size=mix_size,
            rank=config["r"],
            base=config.get("base_model_name_or_path") or "",
            base_fingerprint=config["base_fingerprint"],
            basis_fingerprint=config["basis_fingerprint"],
            basis_rank=config["basis_rank"],
            basis_probe=config.get("basis_probe"),
            canary=config.get("canary"),
            extra={k: v for k, v in config.items() if k not in (*_OWN, *_IDENTITY) and v is not None},
        )

    def with_mix(self, c: int) -> "Adapter":
        """The same adapter with mixes of size c, at least its own: what is added is zero."""
        if c == self.mix_size:
            return self
        mix = {name: sigma.new_zeros(min(c, len(sigma)), min(c, len(sigma))) for name, sigma in self.sigma.items()}
        for name, own in self.mix.items():
            mix[name][: len(own), : len(own)] = own
        return replace(self, mix=mix, mix_size=c)

    def check(self, basis: Basis) -> None:
        """Raise IdentityMismatch, naming both hashes, unless this adapter was made on this base and basis.

        Raises CorruptArtifact if its vectors nevertheless do not fit.
        """
        self._order(basis)

    def to_row(self, basis: Basis) -> Tensor:
        """The adapter as one row [P] float32, which is what a slot of a bank holds; modules it does not adapt are zero.

        With a mix [P + M]: the C of all modules lie behind the vectors, see `osora_core.mix`. Raises what `check` does.
        """
        order = self._order(basis)
        tensors = [*self.sigma.values(), *(self.delta[name] for name in self.sigma)]
        tensors += [self.mix[name].flatten() for name in self.sigma] if self.mix_size else []
        zeros = tensors[0].new_zeros(max(-min(order), 0))
        # At once, and without holding up other threads.
        with torch.no_grad():
            row = torch.cat([tensors[i] if i >= 0 else zeros[:-i] for i in order])
        return row.float().cpu()

    def _order(self, basis: Basis) -> tuple[int, ...]:
        """How this adapter's vectors lie in its row: see `osora_core.row_order`. Raises what `check` does."""
        for what, mine, theirs in (
            ("base", self.base_fingerprint, basis.base_fingerprint),
            ("basis", self.basis_fingerprint, basis.fingerprint),
        ):
            if mine != theirs and not (what == "basis" and basis.holds(mine)):
                raise mismatch(what, mine, theirs)
        check_loaded(max(map(len, self.sigma.values())), basis)
        names = tuple(self.sigma)
        sigma, delta = (tuple(part[name].numel() for name in names) for part in (self.sigma, self.delta))
        order = vector_order(basis.spans, names, sigma, delta)
        if not self.mix_size:
            return order
        mix = tuple(self.mix[name].shape[0] for name in names)
        return order + mix_order(basis.spans, names, mix, self.mix_size)

    @classmethod
    def from_row(
        cls, row: Tensor, basis: Basis, *, rank: int, modules: set[str], base: str, mix: int = 0
    ) -> "Adapter":  # fmt: skip
        """The adapter that a row [P], [P + M] with a mix of this size, holds, of the modules whose last name component
        is in `modules`."""
        spans = [span for span in basis.spans if span.name.rpartition(".")[2] in modules]
        made_on = basis.for_rank(rank)
        mixes = row[basis.row_length :]
        own = {span.name: place for span, place in zip(basis.spans, mix_spans(basis.spans, mix), strict=True)}
        return cls(
            {span.name: row[span.start : span.start + min(rank, span.rank)].clone() for span in spans},
            {span.name: row[span.delta].clone() for span in spans},
            rank=rank,
            base=base,
            base_fingerprint=basis.base_fingerprint,
            basis_fingerprint=made_on.fingerprint,
            basis_rank=made_on.rank,
            basis_probe=made_on.probe,
            mix={s.name: mixes[own[s.name].values].view(own[s.name].size, -1).clone() for s in spans} if mix else {},
            mix_size=mix,
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


def _mix_size(config: Mapping[str, Any], layout: Layout) -> int:
    """The c of an adapter; 0 without a mix. Raises CorruptArtifact where config and tensors do not agree on it."""
    size, version = config.get("mix") or 0, config.get("format_version") or 1
    if type(version) is not int or version not in (1, MIXED_VERSION):
        raise CorruptArtifact(
            f"{CONFIG_NAME} has the format_version {str(version)[:40]}, and this version of Osora reads up to "
            f"{MIXED_VERSION}",
            next_action="install a later version of Osora",
        )
    if type(size) is not int or size < 0 or (size > 0) != (version == MIXED_VERSION):
        raise CorruptArtifact(f"{CONFIG_NAME} has the mix {str(size)[:40]} and the format_version {version}")
    if bool(size) != bool(layout.mix):
        raise CorruptArtifact(
            f"{CONFIG_NAME} has the mix {size}, and {WEIGHTS_NAME} {'no' if size else 'an'} osora_mix of its modules"
        )
    if size and (type(config["r"]) is not int or size > config["r"]):
        raise CorruptArtifact(f"the mix {size} is above the adapter's r, which is {str(config['r'])[:40]}")
    for name in layout.mix:
        fitting = min(size, layout.sizes[layout.sigma[name]])
        if layout.side(name) != fitting:
            raise CorruptArtifact(f"the osora_mix of {name} is {layout.side(name)} wide, where {fitting} fit its sigma")
    return size
