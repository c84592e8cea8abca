"""The stored basis: what comes back is what was stored, and everybody uses the same one."""

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from osora_core import basis as basis_module
from osora_core.basis import Basis, BasisCache, Factors, compute_basis, compute_factors
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.identity import Identity
from osora_core.runtime import Runtime
from osora_core.weights import ALL_LINEAR, fingerprint_base

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

    def keys(self, folder: str) -> Iterable[str]:
        return []


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

    def keys(self, folder: str) -> Iterable[str]:
        return [path.relative_to(self.folder).as_posix() for path in (self.folder / folder).glob("*")]


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


class Wide(nn.Module):
    """Large enough for torch to share the work out between threads, in values that bfloat16 has."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.q_proj, self.o_proj = nn.Linear(400, 300), nn.Linear(300, 500)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).bfloat16())
        self.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_basis_is_the_same_whatever_the_threads_and_the_dtype(
    dtype: torch.dtype, threads: int, tmp_path: Path
) -> None:
    expected = BasisCache(tmp_path / "one").get(Wide(torch.float32), ALL_LINEAR, 64, CPU)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = BasisCache(tmp_path / "other").get(Wide(dtype), ALL_LINEAR, 64, CPU)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (found.base_fingerprint, found.stored) == (expected.base_fingerprint, expected.stored)
    assert (found.dtype, found.stored.dtype) == (dtype, torch.float32)
    for name, factors in found.factors.items():
        assert torch.equal(factors.U, expected.factors[name].U.to(dtype))
        assert torch.equal(factors.S, expected.factors[name].S)


def test_a_basis_that_an_earlier_version_stored_in_bfloat16_stays_the_one_to_use(tmp_path: Path) -> None:
    model, cache = Wide(torch.bfloat16), BasisCache(tmp_path)
    new = BasisCache(tmp_path / "new").get(model, ALL_LINEAR, 8, CPU)
    former = Basis(dict(new.factors), new.base_fingerprint, 8)
    former.save(tmp_path / former.key)
    assert former.fingerprint != new.fingerprint
    assert cache.get(model, ALL_LINEAR, 8, CPU).fingerprint == former.fingerprint
    # In another dtype as well, for an adapter that was made on it.
    wanted = Identity(former.base_fingerprint, former.fingerprint)
    found = cache.get(Wide(torch.float32), ALL_LINEAR, 8, CPU, wanted)
    assert (found.fingerprint, found.dtype) == (former.fingerprint, torch.float32)


@pytest.fixture
def elsewhere(tmp_path: Path) -> tuple[Small, Basis, Path]:
    """A basis as another processor would have computed it, in a folder under its hash."""
    model = Small()
    computed = compute_basis(model, ALL_LINEAR, 4, fingerprint_base(model))
    rounded = {n: Factors(f.U.bfloat16().float(), f.S, f.Vt.bfloat16().float()) for n, f in computed.factors.items()}
    basis = Basis(rounded, computed.base_fingerprint, 4)
    folder = tmp_path / "bases"
    basis.save(folder / f"{basis.fingerprint}.safetensors")
    return model, basis, folder


def wanted(basis: Basis) -> Identity:
    return Identity(basis.base_fingerprint, basis.fingerprint, basis.stored.probe)


def nothing_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basis_module, "compute_basis", lambda *_: pytest.fail("a weight was decomposed"))


def test_a_basis_is_found_by_its_hash_in_a_folder(
    elsewhere: tuple[Small, Basis, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, basis, folder = elsewhere
    nothing_is_decomposed(monkeypatch)
    monkeypatch.setenv("OSORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSORA_BASIS_FROM", str(folder))
    cache = BasisCache.default()
    assert cache.get(model, ALL_LINEAR, 4, CPU, wanted(basis)).fingerprint == basis.fingerprint
    assert cache.find(basis.base_fingerprint, basis.fingerprint, 4).fingerprint == basis.fingerprint
    # Then it is in the cache, and what is made anew fits the one that somebody went to fetch.
    (folder / f"{basis.fingerprint}.safetensors").unlink()
    monkeypatch.delenv("OSORA_BASIS_FROM")
    for identity in (wanted(basis), Identity()):
        assert BasisCache.default().get(model, ALL_LINEAR, 4, CPU, identity).fingerprint == basis.fingerprint


def test_another_basis_is_refused_after_one_weight(
    elsewhere: tuple[Small, Basis, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, basis, _ = elsewhere
    model = Wide(torch.float32)
    decomposed: list[str] = []
    decompose = basis_module.of_each

    def counting(compute: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Any]]:
        for name, factors in decompose(compute, weights):
            decomposed.append(name)
            yield name, factors

    monkeypatch.setattr(basis_module, "of_each", counting)
    other = Identity(fingerprint_base(model), basis.fingerprint, basis.stored.probe)
    with pytest.raises(IdentityMismatch, match=basis.fingerprint) as refused:
        BasisCache(tmp_path / "cache").get(model, ALL_LINEAR, 4, CPU, other)
    assert decomposed == ["q_proj"]
    # In a notebook the traceback is all that a person sees.
    assert "osora bases pull" in traceback.format_exception(refused.value)[-1]
    assert list(tmp_path.glob("cache/**/*.safetensors")) == []


def test_what_is_stored_is_refused_at_once_where_another_is_wanted(
    elsewhere: tuple[Small, Basis, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, basis, _ = elsewhere
    cache = BasisCache(tmp_path / "cache")
    stored = cache.get(model, ALL_LINEAR, 4, CPU)
    nothing_is_decomposed(monkeypatch)
    with pytest.raises(IdentityMismatch, match=f"{basis.fingerprint}, this is basis {stored.fingerprint}"):
        cache.get(model, ALL_LINEAR, 4, CPU, wanted(basis))
    with pytest.raises(IdentityMismatch, match=f"made on base f00d, this is base {basis.base_fingerprint}"):
        cache.get(model, ALL_LINEAR, 4, CPU, Identity("f00d", basis.fingerprint))
    with pytest.raises(UserError, match="is not stored"):
        cache.find(basis.base_fingerprint, basis.fingerprint, 4)


def test_a_file_under_the_wrong_hash_is_refused_and_not_kept(
    elsewhere: tuple[Small, Basis, Path], tmp_path: Path
) -> None:
    model, basis, folder = elsewhere
    name = "a" * 64
    (folder / f"{basis.fingerprint}.safetensors").rename(folder / f"{name}.safetensors")
    cache = BasisCache(tmp_path / "cache", elsewhere=str(folder))
    with pytest.raises(CorruptArtifact, match=f"holds basis {basis.fingerprint}, where {name}"):
        cache.get(model, ALL_LINEAR, 4, CPU, Identity(basis.base_fingerprint, name))
    assert list(tmp_path.glob("cache/**/*.safetensors")) == []


def test_a_hash_that_is_a_path_leads_nowhere(elsewhere: tuple[Small, Basis, Path], tmp_path: Path) -> None:
    _, basis, folder = elsewhere
    cache = BasisCache(tmp_path / "cache", elsewhere=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="is not stored"):
        cache.find(basis.base_fingerprint, f"../../{folder.name}/{basis.fingerprint}", 4)


def test_a_local_basis_reaches_a_store_that_lost_it(tmp_path: Path) -> None:
    model, remote = Small(), KeyedRemote(tmp_path / "remote")
    basis = BasisCache(tmp_path / "cache").get(model, ALL_LINEAR, 4, CPU)
    BasisCache(tmp_path / "cache", remote).get(model, ALL_LINEAR, 4, CPU)
    assert (tmp_path / "remote" / basis.key).exists()


def test_a_basis_that_could_not_be_shared_gives_way_to_the_one_that_was(tmp_path: Path) -> None:
    """Killed, or without its store, between the two: another machine, which rounds otherwise, may be first."""

    class Away(KeyedRemote):
        def publish(self, key: str, path: Path) -> None:
            raise ConnectionError("the store is away")

    model, folder = Small(), tmp_path / "remote"
    with pytest.raises(ConnectionError):
        BasisCache(tmp_path / "one", Away(folder)).get(model, ALL_LINEAR, 4, CPU)
    other = BasisCache(tmp_path / "two").get(model, ALL_LINEAR, 4, CPU)
    factors = {name: replace(one, S=one.S * 1.000001) for name, one in other.factors.items()}
    theirs = Basis(factors, other.base_fingerprint, 4)
    (folder / theirs.key).parent.mkdir(parents=True)
    theirs.save(folder / theirs.key)
    mine = BasisCache(tmp_path / "one", KeyedRemote(folder)).get(model, ALL_LINEAR, 4, CPU)
    assert mine.fingerprint == theirs.fingerprint
    assert not [*(tmp_path / "one").rglob("*.tmp")]
