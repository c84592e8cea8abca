"""Adapter files: what comes back is what was stored, and what is not ours is refused."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from osora_core.adapter import Adapter
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture
def adapter(runtime: Runtime) -> Adapter:
    row = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(3))
    return Adapter.from_row(row, runtime.basis, rank=8, modules={"q_proj", "down_proj"}, base="small")


def test_an_adapter_round_trips_through_its_zip(adapter: Adapter, runtime: Runtime) -> None:
    data = adapter.to_zip()
    assert data == adapter.to_zip()
    loaded = Adapter.from_zip(data)
    assert loaded.config() == adapter.config()
    assert torch.equal(loaded.to_row(runtime.basis), adapter.to_row(runtime.basis))
    for name, sigma in adapter.sigma.items():
        assert torch.equal(loaded.sigma[name], sigma)


def test_an_adapter_round_trips_through_its_directory(adapter: Adapter, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert Adapter.load(tmp_path).to_zip() == adapter.to_zip()


def test_an_adapter_is_read_where_it_lies(adapter: Adapter, runtime: Runtime) -> None:
    """A store's client hands out its own memory. What was read is a copy: nothing is in common with it."""
    memory = memoryview(bytearray(adapter.to_zip()))
    loaded = Adapter.from_zip(memory)
    memory[:] = bytes(len(memory))
    assert torch.equal(loaded.to_row(runtime.basis), adapter.to_row(runtime.basis))
    for damaged in (memory, memory[:0], memoryview(adapter.to_zip())[:-1]):
        with pytest.raises(CorruptArtifact):
            Adapter.from_zip(damaged)


def test_other_bytes_than_the_named_ones_are_refused(adapter: Adapter) -> None:
    with pytest.raises(CorruptArtifact, match="expected 0000"):
        Adapter.from_zip(adapter.to_zip(), "0000")
    with pytest.raises(CorruptArtifact):
        Adapter.from_zip(b"not a zip")


def test_a_zip_that_somebody_compressed_is_read_too(adapter: Adapter, runtime: Runtime) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in adapter.files().items():
            archive.writestr(name, content)
    assert torch.equal(Adapter.from_zip(data.getvalue()).to_row(runtime.basis), adapter.to_row(runtime.basis))


def test_our_reader_reads_what_safetensors_writes_and_refuses_everything_else(adapter: Adapter) -> None:
    files = adapter.files()
    config, weights = files["adapter_config.json"], files["adapter_model.safetensors"]
    stored = load(weights)
    half = {name: tensor.half() for name, tensor in stored.items()}
    for tensors in (stored, half):
        read = Adapter.from_files(config, save(tensors))
        for part, suffix in ((read.sigma, "osora_sigma"), (read.delta, "osora_delta")):
            for name, tensor in part.items():
                expected = tensors[f"base_model.model.{name}.{suffix}"]
                assert tensor.dtype == torch.float32
                assert torch.equal(tensor, expected.float())
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    name = next(name for name in header if name.endswith("sigma"))
    wrong_entries: list[object] = [
        {**header[name], "data_offsets": [0, 10**9]},
        {**header[name], "data_offsets": [-4, 0]},
        {**header[name], "shape": [10**6]},
        {**header[name], "shape": [1, *header[name]["shape"]]},
        {**header[name], "dtype": "F64"},
        {},
        7,
    ]
    broken = [b"", weights[:7], weights[: len(weights) - 4], b"\xff" * 8 + weights[8:]]
    for entry in wrong_entries:
        changed = json.dumps({**header, name: entry}).encode()
        broken.append(len(changed).to_bytes(8, "little") + changed + weights[8 + length :])
    for content in broken:
        with pytest.raises(CorruptArtifact):
            Adapter.from_files(config, content)


@pytest.mark.parametrize("part", ["base", "basis"])
def test_another_base_or_basis_is_refused_with_both_hashes(adapter: Adapter, runtime: Runtime, part: str) -> None:
    field = f"{part}_fingerprint"
    theirs = runtime.basis.base_fingerprint if part == "base" else runtime.basis.fingerprint
    with pytest.raises(IdentityMismatch) as refused:
        replace(adapter, **{field: "f00d"}).to_row(runtime.basis)
    assert "f00d" in refused.value.message
    assert theirs in refused.value.message
