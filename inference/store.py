"""Adapters and bases from the object store, read-only but for bases that are not there yet."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError

from inference.errors import ServerError
from inference.settings import InferenceSettings
from osora_common.files import write_whole
from osora_common.object_store import open_http_store, open_object_store

_PIECE_BYTES = 1024 * 1024


class ArtifactStore:
    """What the registry's store holds, as seen from here: the same keys, through obstore or the API."""

    def __init__(self, settings: InferenceSettings) -> None:
        url = settings.store_url
        self._writable = not url.startswith("http")
        if self._writable:
            options = {name: value.get_secret_value() for name, value in settings.object_store_options.items()}
            self._store = open_object_store(url, options)
        else:
            self._store = open_http_store(url, settings.token() or "")

    def get(self, key: str) -> memoryview:
        """An object's bytes. Raises ServerError (503) if it is not there: the database said that it was."""
        try:
            return memoryview(obstore.get(self._store, key).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise ServerError(
                503,
                "service_unavailable_error",
                "artifact_missing",
                f"the object store has no {key!r}",
                next_action="check that API and inference server name the same OSORA_OBJECT_STORE",
            ) from error

    def fetch(self, key: str, path: Path) -> bool:
        """See `osora_core.basis.RemoteBasis.fetch`."""
        try:
            found = obstore.get(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return False
        write_whole(path, (memoryview(piece) for piece in found.stream(min_chunk_size=_PIECE_BYTES)))
        return True

    def publish(self, key: str, path: Path) -> None:
        """See `osora_core.basis.RemoteBasis.publish`."""
        if not self._writable:
            return
        try:
            obstore.head(self._store, key)
        except (NotFoundError, FileNotFoundError):
            with suppress(AlreadyExistsError):
                obstore.put(self._store, key, path, mode="create", use_multipart=False)

    def keys(self, folder: str) -> Iterable[str]:
        """See `osora_core.basis.RemoteBasis.keys`: the API tells none."""
        if not self._writable:
            return []
        return [found["path"] for batch in obstore.list(self._store, folder) for found in batch]
