"""Where stored bases lie: a directory of this machine, perhaps shared with others through a remote store."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock

from osora_common.ranks import DEFAULT_RANK
from osora_core import basis_file
from osora_core.factors import FOLDER, family_of, folder_of, key_of

# Where version 0.1.0 stored them. Adapters are tied to these very files, so they are used and none is computed again.
_FORMER_FOLDER = "bases/"


class RemoteBasis(Protocol):
    """Where processes on different machines share stored bases; keys are paths, a first write wins."""

    def fetch(self, key: str, path: Path) -> bool:
        """Download `key` to `path`, whole or not at all; False if there is none."""

    def publish(self, key: str, path: Path) -> None:
        """Upload unless the key exists already."""

    def keys(self, folder: str) -> Iterable[str]:
        """The keys that begin with `folder`; none from a store that cannot list them."""


@dataclass(frozen=True)
class Shelf:
    """Stored bases by key, see `osora_core.factors.key_of`."""

    directory: Path
    remote: RemoteBasis | None

    @contextmanager
    def locked(self, key: str) -> Iterator[Path]:
        """The path of a key, while no other process writes there; what killed ones left beside it is removed."""
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            for unfinished in path.parent.glob(f"{path.name}*.tmp"):
                unfinished.unlink()
            yield path

    @contextmanager
    def one_makes(self, base: str, targets: str | Sequence[str]) -> Iterator[None]:
        """While no other process of this machine makes a basis of these, of whatever rank."""
        path = self.directory / folder_of(base) / f"{family_of(targets)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def bring(self, key: str, path: Path) -> bool:
        """Have `key` at `path`, from wherever it is stored; False if it is stored nowhere. Call it under its lock."""
        if path.exists():
            return True
        former = _FORMER_FOLDER + key.removeprefix(FOLDER)
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

    def ranks(self, base: str, targets: str | Sequence[str], dtype: torch.dtype) -> list[int]:
        """The ranks at which a basis is stored in this dtype, here or in the remote store, the lowest first."""
        before, after = (re.escape(part) for part in key_of(base, targets, 0, dtype).split("-r0-"))
        name = re.compile(f"{before}-r([0-9]+)-{after}")
        keys: set[str] = set()
        for folder in (folder_of(base), _FORMER_FOLDER + folder_of(base).removeprefix(FOLDER)):
            here = self.directory / folder
            found = [f"{folder}{path.name}" for path in here.glob("*.safetensors")]
            if self.remote is not None:
                found += self.remote.keys(folder)
            keys.update(FOLDER + key.removeprefix(folder.partition("/")[0] + "/") for key in found)
        return sorted(int(match[1]) for key in keys if (match := name.fullmatch(key)))

    def enough(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> Path | None:
        """A stored basis of at least this rank: the largest, except that one of this very rank is only left for one
        that has grown from it."""
        ranks = self.ranks(base, targets, dtype)
        for larger in reversed([one for one in ranks if one > rank]):
            path = self.brought(key_of(base, targets, larger, dtype))
            if path is not None and (rank not in ranks or basis_file.began_at(path, rank)):
                return path
        return self.brought(key_of(base, targets, rank, dtype))

    def holds_any(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> bool:
        """Whether a basis of these is stored in this dtype, of this rank or, as far as the store can tell, of any."""
        return bool(self.ranks(base, targets, dtype)) or self.brought(key_of(base, targets, rank, dtype)) is not None

    def below(self, base: str, targets: str | Sequence[str], rank: int, dtype: torch.dtype) -> Path | None:
        """The largest stored basis of less than this rank."""
        # A remote store that cannot list its keys is asked for the rank that most bases have begun with.
        ranks = {*self.ranks(base, targets, dtype), DEFAULT_RANK}
        for lower in sorted((one for one in ranks if one < rank), reverse=True):
            path = self.brought(key_of(base, targets, lower, dtype))
            if path is not None:
                return path
        return None

    def brought(self, key: str) -> Path | None:
        """The path of a key, from wherever it is stored; None if it is stored nowhere."""
        with self.locked(key) as path:
            return path if self.bring(key, path) else None

    def remove_beginnings(self, of: Path) -> None:
        """Remove the smaller files of this directory that a basis has grown from: it holds them."""
        grown = basis_file.metadata(of)
        held = set(basis_file.fingerprints(grown).values()) - {grown["fingerprint"]}
        for path in of.parent.glob("*.safetensors"):
            if path != of and basis_file.metadata(path).get("fingerprint") in held:
                path.unlink()
