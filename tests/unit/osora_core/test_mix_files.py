"""The files of an adapter with a mix, which is an extension of ours: format 2, and format 1 stays what it is."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from osora_core.adapter import CONFIG_NAME, WEIGHTS_NAME, Adapter
from osora_core.bank import Bank
from osora_core.basis import Basis, compute_factors
from osora_core.errors import CorruptArtifact
from osora_core.mix import mix_length
from osora_core.runtime import Runtime

MODULES = {"q_proj", "down_proj"}


def made(runtime: Runtime, c: int) -> Adapter:
    basis = runtime.basis
    length = basis.row_length + mix_length(basis.spans, c)
    row = torch.randn(length, generator=torch.Generator().manual_seed(3))
    return Adapter.from_row(row, basis, rank=8, modules=MODULES, base="small", mix=c)


@pytest.fixture
def mixed(runtime: Runtime) -> Adapter:
    return made(runtime, 4)


def changed(adapter: Adapter, tensors: dict[str, Tensor] | None = None, **config: Any) -> Adapter:
    files = adapter.files()
    written = {**json.loads(files[CONFIG_NAME]), **config}
    return Adapter.from_files(
        json.dumps({k: v for k, v in written.items() if v is not None}).encode(),
        files[WEIGHTS_NAME] if tensors is None else save(tensors),
    )


def test_a_mixed_adapter_round_trips_through_its_zip(mixed: Adapter, runtime: Runtime) -> None:
    data = mixed.to_zip()
    loaded = Adapter.from_zip(data)
    assert loaded.to_zip() == data
    assert (loaded.mix_size, loaded.parameters) == (4, mixed.parameters)
    assert {name: c.shape for name, c in loaded.mix.items()} == dict.fromkeys(mixed.sigma, (4, 4))
    assert all(torch.equal(loaded.mix[name], c) for name, c in mixed.mix.items())
    assert torch.equal(loaded.to_row(runtime.basis), mixed.to_row(runtime.basis))
    config = json.loads(mixed.files()[CONFIG_NAME])
    assert (config["mix"], config["format_version"], config["r"]) == (4, 2, 8)


def test_a_row_holds_every_c_behind_the_vectors(mixed: Adapter, runtime: Runtime) -> None:
    row = mixed.to_row(runtime.basis)
    again = Adapter.from_row(row, runtime.basis, rank=8, modules=MODULES, base="small", mix=4)
    assert again.to_zip() == mixed.to_zip()
    bank = Bank(runtime.basis, 2, device=torch.device("cpu"))
    bank.write(1, row, 8, mix=4)
    assert torch.equal(bank.read(1), row)
    bare = made(runtime, 0).to_row(runtime.basis)
    bank.write(1, bare, 8)
    assert torch.equal(bank.read(1), bare)
    assert not bank.mixes
    for wrong, c in ((row, 0), (bare, 4), (row, 3)):
        with pytest.raises(ValueError, match="does not fit"):
            bank.write(1, wrong, 8, mix=c)


def test_an_adapter_without_a_mix_is_the_bytes_that_it_was(runtime: Runtime) -> None:
    files = made(runtime, 0).files()
    assert not {"mix", "format_version"} & json.loads(files[CONFIG_NAME]).keys()
    assert not [name for name in load(files[WEIGHTS_NAME]) if "mix" in name]
    # What training by PEFT may write of its settings says the same.
    assert changed(made(runtime, 0), mix=0).files() == files


def test_config_and_tensors_of_a_mix_agree_or_are_refused(mixed: Adapter, runtime: Runtime) -> None:
    stored = load(mixed.files()[WEIGHTS_NAME])
    name = next(name for name in stored if name.endswith("osora_mix"))
    without = {key: tensor for key, tensor in stored.items() if not key.endswith("osora_mix")}
    nan = stored[name].clone()
    nan[1, 2] = torch.nan
    cases: list[tuple[dict[str, Tensor] | None, dict[str, Any], str]] = [
        (without, {}, "no osora_mix"),
        (None, {"mix": None, "format_version": None}, "has the mix 0"),
        (None, {"mix": None}, "format_version"),
        (None, {"format_version": None}, "format_version"),
        (None, {"format_version": 3}, "later version"),
        (None, {"format_version": "2"}, "format_version"),
        (None, {"mix": 5}, "4 wide, where 5 fit"),
        (None, {"mix": 9}, "above the adapter's r"),
        (None, {"mix": True}, "has the mix True"),
        (None, {"mix": -4}, "has the mix -4"),
        (None, {"mix": "4"}, "has the mix 4"),
        (None, {"r": "8"}, "above the adapter's r"),
        ({key: tensor for key, tensor in stored.items() if key != name}, {}, "osora_mix for every module"),
        ({**stored, "base_model.model.other.osora_mix": stored[name].clone()}, {}, "osora_mix for every module"),
        ({**stored, name: stored[name][:, :3].contiguous()}, {}, "no vector or mix"),
        ({**stored, name: stored[name][:3, :3].contiguous()}, {}, "3 wide, where 4 fit"),
        ({**stored, name: stored[name].flatten()}, {}, "no vector or mix"),
        ({**stored, name: stored[name].reshape(2, 2, 4)}, {}, "no vector or mix"),
        ({**stored, name: nan}, {}, "not numbers"),
    ]
    for tensors, config, says in cases:
        with pytest.raises(CorruptArtifact) as refused:
            changed(mixed, tensors, **config)
        assert says in f"{refused.value.message} {refused.value.next_action}", (config, says)
    sigma = name.replace("mix", "sigma")
    wider = Adapter.from_row(
        torch.ones(runtime.basis.row_length), runtime.basis, rank=8, modules=MODULES, base="small"
    ).sigma
    assert wider.keys() == mixed.sigma.keys()
    # A narrower sigma than the basis gives its module takes a narrower C: that is no adapter of this basis.
    narrow = changed(mixed, {**stored, sigma: stored[sigma][:3], name: stored[name][:3, :3].contiguous()})
    with pytest.raises(CorruptArtifact, match="does not fit the basis"):
        narrow.to_row(runtime.basis)


def test_hostile_headers_of_a_mix_are_refused(mixed: Adapter) -> None:
    files = mixed.files()
    weights = files[WEIGHTS_NAME]
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    name = next(name for name in header if name.endswith("mix"))
    for shape in ([-4, -4], [4.0, 4.0], [10**9, 10**9], [10**400] * 2, ["4", "4"], [[4], [4]], [], 4, None, [0, 0]):
        changed = json.dumps({**header, name: {**header[name], "shape": shape}}).encode()
        content = len(changed).to_bytes(8, "little") + changed + weights[8 + length :]
        with pytest.raises(CorruptArtifact):
            Adapter.from_files(files[CONFIG_NAME], content)


def test_a_weight_of_a_smaller_full_rank_uses_what_it_has() -> None:
    weights = {"layers.0.k": torch.randn(3, 9), "layers.0.q": torch.randn(8, 9)}
    basis = Basis({name: compute_factors(weight, 6) for name, weight in weights.items()}, "base", 6)
    length = basis.row_length + mix_length(basis.spans, 5)
    assert length == (3 + 3) + (6 + 8) + 3 * 3 + 5 * 5
    row = torch.randn(length, generator=torch.Generator().manual_seed(1))
    adapter = Adapter.from_row(row, basis, rank=6, modules={"k", "q"}, base="small", mix=5)
    assert {name: tuple(C.shape) for name, C in adapter.mix.items()} == {"layers.0.k": (3, 3), "layers.0.q": (5, 5)}
    again = Adapter.from_zip(adapter.to_zip())
    assert torch.equal(again.to_row(basis), row)
    wider = again.with_mix(6)
    assert torch.equal(wider.mix["layers.0.k"], adapter.mix["layers.0.k"])
    assert torch.equal(wider.mix["layers.0.q"][:5, :5], adapter.mix["layers.0.q"])
    assert not wider.mix["layers.0.q"][5:].any()
    assert not wider.mix["layers.0.q"][:, 5:].any()
