"""The stored bases of base models, shared through the object store: a basis is computed by one worker only."""

from collections.abc import Iterable
from pathlib import Path

from osora_common.files import write_whole
from registry.store import ObjectStore


class StoredBasis:
    """An `osora_core.basis.RemoteBasis` over the registry's object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def fetch(self, key: str, path: Path) -> bool:
        if self._store.size(key) is None:
            return False
        write_whole(path, self._store.stream(key))
        return True

    def publish(self, key: str, path: Path) -> None:
        if self._store.size(key) is None:  # what is there already need not be read to find that out
            self._store.put_if_absent(key, path)

    def keys(self, folder: str) -> Iterable[str]:
        return [found.key for found in self._store.list(folder)]
