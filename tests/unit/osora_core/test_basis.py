"""The stored basis: what comes back is what was stored, and everybody uses the same one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from osora_core import basis as basis_module
from osora_core.basis import Basis, BasisCache, compute_factors
from osora_core.errors import CorruptArtifact
from osora_core.runtime import Runtime
from osora_core.weights import ALL_LINEAR

CPU = torch.device("cpu")


def test_factors_are_the_top_singular_triplets() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    factors = compute_factors(weight, 7)
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    torch.testing.assert_close(factors.S.double(), S[:7], rtol=1e-5, atol=1e-5)
    product = (factors.U * factors.S) @ factors.Vt
    torch.testing.assert_close(product.double(), (U[:, :7] * S[:7]) @ Vh[:7], rtol=1e-4, atol=1e-4)


def test_a_basis_comes_back_as_it_was_stored(runtime: Runtime, tmp_path: Path) -> None:
    runtime.basis.save(tmp_path / "basis.safetensors")
    loaded = Basis.load(tmp_path / "basis.safetensors", CPU)
    assert loaded.fingerprint == runtime.basis.fingerprint
    assert loaded.spans == runtime.basis.spans


def test_a_damaged_basis_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    runtime.basis.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="holds"):
        Basis.load(path, CPU)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptArtifact):
        Basis.load(path, CPU)


class FolderRemote:
    """A remote store where another machine was first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, key: str, path: Path) -> bool:
        source = self.folder / key.replace("/", "_")
        if source.exists():
            path.write_bytes(source.read_bytes())
        return source.exists()

    def publish(self, key: str, path: Path) -> None:
        target = self.folder / key.replace("/", "_")
        if not target.exists():
            target.write_bytes(path.read_bytes())


def test_a_second_machine_takes_the_basis_of_the_first(base_path: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    first = Runtime.load("small", BasisCache(tmp_path / "one", FolderRemote(remote)), path=str(base_path), rank=4)
    (stored,) = remote.iterdir()
    tensors = load_file(stored)
    second = Runtime.load("small", BasisCache(tmp_path / "two", FolderRemote(remote)), path=str(base_path), rank=4)
    assert second.basis.fingerprint == first.basis.fingerprint
    name = next(iter(second.basis.factors))
    assert torch.equal(second.basis.factors[name].U, tensors[f"{name}.U"])


class Small(nn.Module):
    """Something with a weight to decompose."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 10)
        with torch.no_grad():
            self.q_proj.weight.copy_(torch.randn(10, 12, generator=torch.Generator().manual_seed(seed)))


def former(folder: Path) -> Path:
    """Give a folder the layout that it had in version 0.1.0."""
    (folder / "basis").rename(folder / "bases")
    return folder


class KeyedRemote(FolderRemote):
    """The same, with the folders that keys name."""

    def fetch(self, key: str, path: Path) -> bool:
        source = self.folder / key
        if source.exists():
            path.write_bytes(source.read_bytes())
        return source.exists()

    def publish(self, key: str, path: Path) -> None:
        target = self.folder / key
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Small, Basis]:
    """A model whose basis lies in tmp_path / "cache" and in the store tmp_path / "remote", as version 0.1.0 had it.

    Nobody may compute it once more: on another machine, or with other threads, it would be another one.
    """
    model = Small()
    (tmp_path / "remote").mkdir()
    basis = BasisCache(tmp_path / "cache", KeyedRemote(tmp_path / "remote")).get(model, ALL_LINEAR, 4, CPU)
    former(tmp_path / "cache")
    former(tmp_path / "remote")

    def compute(*_: object) -> Basis:
        raise AssertionError("a stored basis was computed once more")

    monkeypatch.setattr(basis_module, "compute_basis", compute)
    return model, basis


def test_a_cache_of_an_earlier_version_is_used(stored: tuple[Small, Basis], tmp_path: Path) -> None:
    model, basis = stored
    cache = BasisCache(tmp_path / "cache")
    assert cache.get(model, ALL_LINEAR, 4, CPU).fingerprint == basis.fingerprint
    assert cache.find(basis.base_fingerprint, basis.fingerprint, 4).fingerprint == basis.fingerprint


def test_a_store_of_an_earlier_version_is_used_and_brought_up_to_date(
    stored: tuple[Small, Basis], tmp_path: Path
) -> None:
    model, basis = stored
    remote = KeyedRemote(tmp_path / "remote")
    assert BasisCache(tmp_path / "one", remote).get(model, ALL_LINEAR, 4, CPU).fingerprint == basis.fingerprint
    (before,), (after,) = ([*(tmp_path / "remote" / name).rglob("*.safetensors")] for name in ("bases", "basis"))
    assert before.read_bytes() == after.read_bytes()
    exported = BasisCache(tmp_path / "two", remote).find(basis.base_fingerprint, basis.fingerprint, 4)
    assert exported.fingerprint == basis.fingerprint


def test_what_a_killed_process_left_of_a_basis_is_removed(tmp_path: Path) -> None:
    model, cache = Small(), BasisCache(tmp_path)
    cache.get(model, ALL_LINEAR, 4, CPU)
    (path,) = tmp_path.rglob("*.safetensors")
    other = path.with_name("all-linear-r2-float32.safetensors.abc.tmp")
    for unfinished in (path.with_name(f"{path.name}.abc.tmp"), other):
        unfinished.write_bytes(b"half")
    cache.get(model, ALL_LINEAR, 4, CPU)
    assert [*tmp_path.rglob("*.tmp")] == [other]  # which another process may be writing
