"""The stored bases of base models, shared through the object store: a basis is computed by one worker only."""

import os
import tempfile
from pathlib import Path

from registry.store import ObjectStore


class StoredBasis:
    """An `osora_core.basis.RemoteBasis` over the registry's object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def fetch(self, key: str, path: Path) -> bool:
        if self._store.size(key) is None:
            return False
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(self._store.stream(key))
        os.replace(temporary, path)
        return True

    def publish(self, key: str, path: Path) -> None:
        self._store.put_if_absent(key, path)
