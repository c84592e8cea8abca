"""Bases from the object store: whole or not at all. How a store is opened is tested with osora_common."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import obstore
import pytest
from pydantic import SecretStr

from inference.settings import InferenceSettings
from inference.store import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    made = ArtifactStore(InferenceSettings(data_dir=tmp_path, object_store=f"file://{tmp_path}/objects"))
    (tmp_path / "objects" / "bases").mkdir()
    (tmp_path / "objects" / "bases" / "one").write_bytes(b"basis" * 1_000_000)
    (tmp_path / "cache").mkdir()
    return made


def test_a_basis_is_downloaded(store: ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "one"
    assert store.fetch("bases/one", path)
    assert path.read_bytes() == b"basis" * 1_000_000
    assert not store.fetch("bases/two", tmp_path / "cache" / "two")


def test_a_download_that_breaks_off_leaves_no_file(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(min_chunk_size: int) -> Iterator[bytes]:
        yield b"basis"
        raise ConnectionError

    monkeypatch.setattr(obstore, "get", lambda *arguments: SimpleNamespace(stream=pieces))
    with pytest.raises(ConnectionError):
        store.fetch("bases/one", tmp_path / "cache" / "one")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith("-lock")] == []


def test_options_are_those_of_the_registry() -> None:
    options = {"allow_invalid_certificates": "true", "aws_endpoint": "http://minio:9000", "aws_region": "here"}
    secrets = {name: SecretStr(value) for name, value in options.items()}
    ArtifactStore(InferenceSettings(object_store="s3://bucket/prefix", object_store_options=secrets))
