"""The loader: one fetch for many, never other bytes than those that were named, strength as a factor."""

import asyncio
import dataclasses
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
import torch

from inference.adapters import AdapterLoader
from inference.schemas import AdapterRef
from osora_core.adapter import Adapter
from osora_core.basis import Basis, BasisCache
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.inference import AdapterRow
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from tests.support.tiny_base import make_base

MUCH = 2**30


@pytest.fixture(scope="module")
def basis(tmp_path_factory: pytest.TempPathFactory) -> Basis:
    folder = tmp_path_factory.mktemp("base")
    base = make_base(folder / "model")
    return Runtime.load("tiny", BasisCache(folder / "cache"), path=str(base), device="cpu", rank=8).basis


class Store:
    """Objects in memory; counts the fetches of each."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.gate: Callable[[], object] = lambda: None

    def __call__(self, key: str) -> bytes:
        self.fetched.append(key)
        self.gate()
        return self.objects[key]


@pytest.fixture
def store() -> Store:
    return Store()


def publish(store: Store, basis: Basis, name: str, seed: int = 0) -> tuple[AdapterRef, torch.Tensor]:
    """An adapter with random vectors in the store; the reference to it, and its row."""
    row = torch.randn(basis.row_length, generator=torch.Generator().manual_seed(seed))
    adapter = Adapter.from_row(row, basis, rank=basis.rank, modules=set(basis.target_modules), base="tiny")
    return put(store, adapter, name), row


def put(store: Store, adapter: Adapter, name: str) -> AdapterRef:
    data = adapter.to_zip()
    store.objects[name] = data
    return AdapterRef(
        id=f"adp-{name}",
        name=f"ft:tiny:default:{name}:x",
        version=1,
        object_key=name,
        sha256=hashlib.sha256(data).hexdigest(),
        base_fingerprint=adapter.base_fingerprint,
        basis_fingerprint=adapter.basis_fingerprint,
    )


def all_pass(adapter: Adapter, row: AdapterRow) -> None: ...


def test_requests_for_a_cold_adapter_share_one_load(store: Store, basis: Basis) -> None:
    ref, expected = publish(store, basis, "a")
    released = threading.Event()
    store.gate = lambda: released.wait(60)

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, MUCH, all_pass)
        waiting = [asyncio.create_task(loader.get(ref, 1.0)) for _ in range(8)]
        await asyncio.sleep(0)  # all have asked
        waiting[0].cancel()  # one that gives up takes the load from nobody
        released.set()
        rows = [loaded.row for loaded in await asyncio.gather(*waiting[1:])]
        assert len({row.key for row in rows}) == 1
        assert all(torch.equal(row.values, expected) for row in rows)
        assert rows[0].rank == basis.rank
        await loader.get(ref, 1.0)

    asyncio.run(scenario())
    assert store.fetched == ["a"]


def test_other_bytes_than_those_named_are_refused_and_not_kept(store: Store, basis: Basis) -> None:
    """By their hash, whatever they hold: a good adapter, one of another base, or nothing that can be read."""
    ref, expected = publish(store, basis, "a", seed=1)
    whole = store.objects["a"]
    publish(store, basis, "a", seed=2)
    other = Adapter.from_zip(store.objects["a"])
    foreign = dataclasses.replace(other, base_fingerprint="f00d")

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, MUCH, all_pass)
        for content in (other.to_zip(), foreign.to_zip(), whole[:-9], b"{}"):
            store.objects["a"] = content
            with pytest.raises(CorruptArtifact, match=ref.sha256):
                await loader.get(ref, 1.0)
        store.objects["a"] = whole
        assert torch.equal((await loader.get(ref, 1.0)).row.values, expected)

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["base_fingerprint", "basis_fingerprint"])
def test_an_adapter_of_another_base_or_basis_is_refused(store: Store, basis: Basis, what: str) -> None:
    row = torch.zeros(basis.row_length)
    adapter = Adapter.from_row(row, basis, rank=8, modules=set(basis.target_modules), base="tiny")
    ref = put(store, dataclasses.replace(adapter, **{what: "0" * 64}), "foreign")
    with pytest.raises(IdentityMismatch, match="0" * 64):
        asyncio.run(AdapterLoader(store, basis, MUCH, all_pass).get(ref, 1.0))
    assert store.fetched == [], "its reference said so"
    lying = ref.model_copy(update={what: getattr(basis, what.removeprefix("basis_"))})  # and here what it holds does
    with pytest.raises(IdentityMismatch, match="0" * 64):
        asyncio.run(AdapterLoader(store, basis, MUCH, all_pass).get(lying, 1.0))


def test_a_mix_comes_with_its_adapter_and_strength_scales_it_as_well(store: Store, basis: Basis) -> None:
    row = torch.randn(basis.row_length + mix_length(basis.spans, 4), generator=torch.Generator().manual_seed(3))
    modules = set(basis.target_modules)
    ref = put(store, Adapter.from_row(row, basis, rank=basis.rank, modules=modules, base="tiny", mix=4), "mixed")

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, MUCH, all_pass, largest_mix=4)
        full, half = [(await loader.get(ref, strength)).row for strength in (1.0, 0.5)]
        assert isinstance(full, AdapterRow)
        assert isinstance(half, AdapterRow)
        assert torch.equal(full.values, row)
        assert torch.equal(half.values, row * 0.5)
        assert full.mix == half.mix == 4
        assert full.bytes == 4 * len(row)
        with pytest.raises(UserError, match="mix is 4; this server has room for mixes of 3"):
            await AdapterLoader(store, basis, MUCH, all_pass, largest_mix=3).get(ref, 1.0)

    asyncio.run(scenario())


def test_strength_scales_a_copy_under_a_key_of_its_own(store: Store, basis: Basis) -> None:
    ref, expected = publish(store, basis, "a")

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, MUCH, all_pass)
        full, half, none = [(await loader.get(ref, strength)).row for strength in (1.0, 0.5, 0.0)]
        assert torch.equal(half.values, expected * 0.5)
        assert not none.values.any()
        assert torch.equal(full.values, expected)  # the cached row is untouched
        assert len({full.key, half.key, none.key}) == 3

    asyncio.run(scenario())
    assert store.fetched == ["a"]


def test_the_least_recently_used_leaves_first(store: Store, basis: Basis) -> None:
    refs = {name: publish(store, basis, name, seed)[0] for seed, name in enumerate("abc")}

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, 2 * basis.row_length * 4, all_pass)
        for name in "abaca":  # c takes the place of b: a was asked for after it
            await loader.get(refs[name], 1.0)
            await asyncio.sleep(0)
        assert store.fetched == ["a", "b", "c"]
        await loader.get(refs["b"], 1.0)
        assert store.fetched == ["a", "b", "c", "b"]

    asyncio.run(scenario())


def test_an_adapter_is_checked_once_and_one_that_fails_every_time(store: Store, basis: Basis) -> None:
    refs = {name: publish(store, basis, name, seed)[0] for seed, name in enumerate("abc")}
    checked = []

    def check(adapter: Adapter, row: AdapterRow) -> None:
        checked.append(adapter)
        if len(checked) == 1:
            raise CorruptArtifact("not today")

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, basis.row_length * 4, check)
        with pytest.raises(CorruptArtifact, match="not today"):
            await loader.get(refs["a"], 1.0)
        for name in "abcab":
            await loader.get(refs[name], 1.0)
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert store.fetched == ["a", "a", "b", "c", "a", "b"]
    assert len(checked) == 1 + 3


def test_a_verdict_that_is_still_out_holds_for_all_who_ask_and_a_bad_one_for_nobody_later(
    store: Store, basis: Basis
) -> None:
    refs = {name: publish(store, basis, name, seed)[0] for seed, name in enumerate("ab")}
    verdicts: list[Future[None]] = []

    def check(adapter: Adapter, row: AdapterRow) -> Future[None]:
        verdicts.append(Future())
        return verdicts[-1]

    async def scenario() -> None:
        loader = AdapterLoader(store, basis, basis.row_length * 4, check)
        asked = [await loader.get(refs["a"], strength) for strength in (1.0, 0.5, 1.0)]
        assert [one.verdict for one in asked] == [verdicts[0]] * 3
        verdicts[0].set_exception(CorruptArtifact("not today"))
        assert all(one.is_refused for one in asked)
        again = await loader.get(refs["a"], 1.0)
        assert again.verdict is verdicts[1]
        verdicts[1].set_result(None)
        await loader.get(refs["b"], 1.0)  # takes its place
        assert (await loader.get(refs["a"], 1.0)).verdict is None

    asyncio.run(scenario())
    assert store.fetched == ["a", "a", "b", "a"]
    assert len(verdicts) == 3


def test_a_new_version_is_another_adapter(store: Store, basis: Basis) -> None:
    first, _ = publish(store, basis, "a", seed=1)
    loader = AdapterLoader(store, basis, MUCH, all_pass)

    async def scenario() -> None:
        before = (await loader.get(first, 1.0)).row
        second, expected = publish(store, basis, "a", seed=2)
        after = (await loader.get(second.model_copy(update={"version": 2}), 1.0)).row
        assert before.key != after.key
        assert torch.equal(after.values, expected)

    asyncio.run(scenario())
