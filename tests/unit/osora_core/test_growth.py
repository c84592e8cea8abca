"""A basis that grows: what was stored stays its beginning, and adapters that were made on it stay what they were."""

import multiprocessing
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from osora_core import basis as basis_module
from osora_core.adapter import Adapter
from osora_core.basis import Basis, BasisCache, Factors, compute_basis
from osora_core.basis_log import BasisLog
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.identity import Identity
from osora_core.runtime import Runtime
from osora_core.weights import ALL_LINEAR, fingerprint_base

CPU = torch.device("cpu")
FULL = 40


class Model(nn.Module):
    """Weights of full ranks 40, 12 and 40: tall, wide and square."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.up_proj, self.k_proj, self.o_proj = nn.Linear(40, 60), nn.Linear(40, 12), nn.Linear(40, 40)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).bfloat16())
        self.to(dtype)


class Remote:
    """A store of bases, which can be one that does not list its keys."""

    def __init__(self, folder: Path, lists: bool = True) -> None:
        self.folder, self.lists = folder, lists

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
        found = (self.folder / folder).glob("*") if self.lists else ()
        return [path.relative_to(self.folder).as_posix() for path in found]


def same(one: Factors, other: Factors, rank: int) -> bool:
    return all(
        torch.equal(getattr(one.first(rank), part), getattr(other.first(rank), part)) for part in ("U", "S", "Vt")
    )


def begins_with(basis: Basis, smaller: Basis) -> bool:
    return all(same(basis.factors[name], one, one.S.shape[0]) for name, one in smaller.factors.items())


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ranks of the bases that are computed from now on."""
    ranks: list[int] = []

    def counting(*args: object) -> Basis:
        ranks.append(int(str(args[2])))
        return compute_basis(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(basis_module, "compute_basis", counting)
    return ranks


def test_a_basis_grows_and_keeps_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, cache, model = computed(monkeypatch), BasisCache(tmp_path), Model()
    small = cache.get(model, ALL_LINEAR, 8, CPU)
    small = Basis({name: Factors(*(t.clone() for t in (f.U, f.S, f.Vt))) for name, f in small.factors.items()}, "", 8)
    middle, full = cache.get(model, ALL_LINEAR, 20, CPU), cache.get(model, ALL_LINEAR, "full", CPU)
    assert ranks == [8, 20, FULL]
    assert begins_with(middle, small)
    assert begins_with(full, middle)
    assert [one.rank for one in full.known] == [8, 20, FULL]
    assert [one.fingerprint for one in full.known] == [small.fingerprint, middle.fingerprint, full.fingerprint]
    assert {name: one.S.shape[0] for name, one in full.factors.items()} == {"up_proj": 40, "k_proj": 12, "o_proj": 40}
    # One file is stored, of which a lower rank is the beginning: nothing is computed, and hashes are the same.
    assert len([*tmp_path.rglob("*.safetensors")]) == 1
    again = cache.get(model, ALL_LINEAR, 8, CPU)
    assert ranks == [8, 20, FULL]
    assert (again.rank, again.known) == (8, full.known)
    assert begins_with(small, again)
    assert begins_with(again, small)


def test_what_has_grown_is_an_exact_decomposition(tmp_path: Path) -> None:
    model, cache = Model(), BasisCache(tmp_path)
    cache.get(model, ALL_LINEAR, 8, CPU)
    for name, one in cache.get(model, ALL_LINEAR, "full", CPU).factors.items():
        weight = model.get_submodule(name).weight.double()  # type: ignore[union-attr, operator]
        U, S, Vt = one.U.double(), one.S.double(), one.Vt.double()
        identity = torch.eye(len(S), dtype=torch.float64)
        torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-6)
        torch.testing.assert_close(Vt @ Vt.T, identity, rtol=0, atol=1e-6)
        torch.testing.assert_close((U * S) @ Vt, weight.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(S, torch.linalg.svdvals(weight.detach()), rtol=1e-5, atol=1e-5)


def test_a_larger_basis_begins_with_the_shared_one_however_it_came_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So machines whose installations differ in rank share adapters, as far as they compute alike."""
    monkeypatch.setattr(basis_module, "SHARED_RANK", 16)
    model = Model()
    small = BasisCache(tmp_path / "small").get(model, ALL_LINEAR, 16, CPU)
    at_once = BasisCache(tmp_path / "large").get(model, ALL_LINEAR, 30, CPU)
    grown = BasisCache(tmp_path / "small").get(model, ALL_LINEAR, 30, CPU)
    assert at_once.known == grown.known
    assert at_once.known[0] == small.stored


def test_an_adapter_is_made_on_the_smallest_basis_that_holds_it(tmp_path: Path) -> None:
    cache, model = BasisCache(tmp_path), Model()
    small = cache.get(model, ALL_LINEAR, 8, CPU).stored
    full = cache.get(model, ALL_LINEAR, "full", CPU)
    modules = set(full.target_modules)
    for rank, made_on in ((4, small), (8, small), (9, full.stored)):
        row = torch.randn(full.row_length, generator=torch.Generator().manual_seed(rank))
        adapter = Adapter.from_row(row, full, rank=rank, modules=modules, base="small")
        assert (adapter.basis_fingerprint, adapter.basis_rank, adapter.basis_probe) == (
            made_on.fingerprint, made_on.rank, made_on.probe,
        )  # fmt: skip
        adapter.check(full)


def test_an_adapter_of_triplets_that_are_not_loaded_is_refused(tmp_path: Path) -> None:
    cache, model = BasisCache(tmp_path), Model()
    full = cache.get(model, ALL_LINEAR, "full", CPU)
    row = torch.zeros(full.row_length)
    adapter = Adapter.from_row(row, full, rank=30, modules={"up_proj"}, base="small")
    with pytest.raises(IdentityMismatch, match="uses 30 triplets, and of its basis 8 are loaded") as refused:
        adapter.check(cache.get(model, ALL_LINEAR, 8, CPU))
    assert "OSORA_BASIS_RANK" in str(refused.value.next_action)


def test_a_wanted_basis_is_found_in_what_has_grown_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, model = BasisCache(tmp_path), Model()
    small = cache.get(model, ALL_LINEAR, 8, CPU).stored
    base = fingerprint_base(model)
    full = cache.get(model, ALL_LINEAR, "full", CPU)
    ranks = computed(monkeypatch)
    found = cache.get(model, ALL_LINEAR, 8, CPU, Identity(base, small.fingerprint, small.probe))
    assert found.holds(small.fingerprint)
    exported = cache.find(base, small.fingerprint, 8)
    assert begins_with(full, exported)
    assert ranks == []


def test_a_store_of_several_machines_grows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, model, remote = computed(monkeypatch), Model(), Remote(tmp_path / "remote")
    small = BasisCache(tmp_path / "one", remote).get(model, ALL_LINEAR, 8, CPU)
    two = BasisCache(tmp_path / "two", remote).get(model, ALL_LINEAR, 20, CPU)
    three = BasisCache(tmp_path / "three", remote).get(model, ALL_LINEAR, 20, CPU)
    assert ranks == [8, 20]
    assert two.known == three.known
    assert two.known[0] == small.stored
    # Who has not been told of the higher rank goes on with the same triplets, with or without the larger file.
    for lists in (True, False):
        late = BasisCache(tmp_path / f"late{lists}", Remote(tmp_path / "remote", lists)).get(model, ALL_LINEAR, 8, CPU)
        assert late.holds(small.fingerprint)
    assert ranks == [8, 20]


def test_a_basis_grows_from_what_a_store_that_does_not_list_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osora_core.basis_shelf.DEFAULT_RANK", 8)
    model, remote = Model(), Remote(tmp_path / "remote", lists=False)
    small = BasisCache(tmp_path / "one", remote).get(model, ALL_LINEAR, 8, CPU)
    grown = BasisCache(tmp_path / "two", remote).get(model, ALL_LINEAR, 20, CPU)
    assert grown.known[0] == small.stored


def test_another_machine_that_grows_first_wins(tmp_path: Path) -> None:
    """Its rounding is another: whoever comes second takes what is stored, and never has its own in place."""
    model, remote = Model(), Remote(tmp_path / "remote")
    small = BasisCache(tmp_path / "mine", remote).get(model, ALL_LINEAR, 8, CPU)
    other = BasisCache(tmp_path / "theirs", remote).get(model, ALL_LINEAR, 8, CPU)
    theirs = compute_basis(model, ALL_LINEAR, 20, other.base_fingerprint, prefix=other)
    factors = {n: Factors(f.U, torch.cat([f.S[:8], f.S[8:] * 1.000001]), f.Vt) for n, f in theirs.factors.items()}
    theirs = Basis(factors, theirs.base_fingerprint, 20, (8,))
    theirs.save(remote.folder / theirs.key)
    mine = BasisCache(tmp_path / "mine", remote).get(model, ALL_LINEAR, 20, CPU)
    assert mine.known == theirs.known
    assert mine.holds(small.fingerprint)


def test_a_basis_of_the_exact_rank_stays_in_use_beside_a_larger_one_that_did_not_grow_from_it(tmp_path: Path) -> None:
    """As earlier versions left them behind when their rank was changed, each with adapters of its own."""
    model, base = Model(), fingerprint_base(Model())
    small = compute_basis(model, ALL_LINEAR, 8, base)
    factors = {n: Factors(f.U, f.S * 1.000001, f.Vt) for n, f in small.factors.items()}
    former = Basis(factors, base, 8)
    former.save(tmp_path / former.key)
    larger = compute_basis(model, ALL_LINEAR, 20, base)
    larger.save(tmp_path / larger.key)
    assert BasisCache(tmp_path).get(model, ALL_LINEAR, 8, CPU).fingerprint == former.fingerprint
    assert BasisCache(tmp_path).get(model, ALL_LINEAR, 20, CPU).fingerprint == larger.fingerprint


def test_one_that_an_earlier_version_stored_in_bfloat16_grows_as_it_is(tmp_path: Path) -> None:
    model, cache = Model(torch.bfloat16), BasisCache(tmp_path)
    made = compute_basis(model, ALL_LINEAR, 8, fingerprint_base(model))
    former = Basis(
        {n: Factors(f.U.bfloat16(), f.S, f.Vt.bfloat16()) for n, f in made.factors.items()}, made.base_fingerprint, 8
    )
    former.save(tmp_path / former.key)
    grown = cache.get(model, ALL_LINEAR, "full", CPU)
    assert (grown.stored.dtype, grown.known[0]) == (torch.bfloat16, former.stored)
    for name, one in grown.factors.items():
        weight = model.get_submodule(name).weight.double().detach()  # type: ignore[union-attr, operator]
        left = weight - (one.U.double() * one.S.double()) @ one.Vt.double()
        assert torch.linalg.matrix_norm(left) < 0.01 * torch.linalg.matrix_norm(weight)


def test_a_pulled_basis_grows_too(tmp_path: Path) -> None:
    model = Model()
    computed = compute_basis(model, ALL_LINEAR, 8, fingerprint_base(model))
    rounded = {n: Factors(f.U.bfloat16().float(), f.S, f.Vt.bfloat16().float()) for n, f in computed.factors.items()}
    pulled = Basis(rounded, computed.base_fingerprint, 8)
    pulled.save(tmp_path / "basis" / f"{pulled.fingerprint}.safetensors")
    grown = BasisCache(tmp_path).get(model, ALL_LINEAR, 20, CPU)
    assert grown.known[0] == pulled.stored


def test_a_claim_to_have_grown_is_checked(tmp_path: Path) -> None:
    model = Model()
    cache = BasisCache(tmp_path)
    cache.get(model, ALL_LINEAR, 8, CPU)
    full = cache.get(model, ALL_LINEAR, 20, CPU)
    (path,) = tmp_path.rglob("*.safetensors")
    data = path.read_bytes()
    path.write_bytes(data.replace(full.known[0].fingerprint.encode(), b"a" * 64))
    with pytest.raises(CorruptArtifact, match=f"says it is {'a' * 64} but holds {full.known[0].fingerprint}"):
        cache.get(model, ALL_LINEAR, 20, CPU)


def test_a_growth_that_is_cut_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache = Model(), BasisCache(tmp_path)
    small = cache.get(model, ALL_LINEAR, 8, CPU).stored

    def cut(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get(model, ALL_LINEAR, 20, CPU, progress=cut)
    (path,) = tmp_path.rglob("*.safetensors")
    path.with_name(path.name.replace("-r8-", "-r20-") + ".x.tmp").write_bytes(b"half")  # what a kill leaves
    assert cache.get(model, ALL_LINEAR, 8, CPU).stored == small
    grown = cache.get(model, ALL_LINEAR, 20, CPU)
    assert grown.known[0] == small
    assert not [*tmp_path.rglob("*.tmp")]


def grow(folder: Path, rank: int) -> tuple[str, ...]:
    torch.set_num_threads(1)
    basis = BasisCache(folder).get(Model(), ALL_LINEAR, rank, CPU)
    return tuple(one.fingerprint for one in basis.known)


def test_processes_that_grow_it_at_once_end_with_one(tmp_path: Path) -> None:
    small = grow(tmp_path, 8)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(grow, [(tmp_path, 20), (tmp_path, 20), (tmp_path, 40)])
    final = grow(tmp_path, 40)
    assert len([*tmp_path.rglob("*.safetensors")]) == 1
    for known in found:
        assert set(known) <= set(final)
        assert known[0] == small[0]


def test_progress_counts_the_weights_that_are_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, int]] = []
    cache = BasisCache(tmp_path)
    cache.get(Model(), ALL_LINEAR, 8, CPU, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    cache.get(Model(), ALL_LINEAR, 8, CPU, progress=lambda *_: pytest.fail("nothing is computed"))
    clock = iter([0.0, 1.0, 10.0, 40.0])
    log = BasisLog("small", lambda: next(clock))
    with caplog.at_level("INFO"):
        for done in (1, 2, 8):
            log(done, 8)
    assert [record.getMessage() for record in caplog.records] == [
        "basis of small: 2 of 8 weights (25 %), about 30 s left",
        "basis of small: 8 of 8 weights (100 %)",
        "the basis of small took 40.0 s",
    ]


def test_a_base_says_no_more_than_it_has(base_path: Path, tmp_path: Path) -> None:
    """Whatever the installation asks for; and what a version stored that kept the number asked for stays in use."""
    cache = BasisCache(tmp_path)
    runtime = Runtime.load("small", cache, path=str(base_path), device="cpu", rank=1000)
    assert (runtime.basis.rank, runtime.basis.full_rank) == (32, 32)
    assert runtime.basis.full_rank_of({"k_proj"}) == 16
    (path,) = tmp_path.rglob("*.safetensors")
    before = Basis(runtime.basis.factors, runtime.basis.base_fingerprint, 128)
    shutil.rmtree(path.parent)
    before.save(tmp_path / before.key)
    after = Runtime.load("small", cache, path=str(base_path), device="cpu").basis
    assert (after.rank, after.fingerprint) == (128, runtime.basis.fingerprint)
