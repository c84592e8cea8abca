"""Adapters and bases from the object store, read-only but for bases that are not there yet."""

import os
import tempfile
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import from_url

from inference.errors import ServerError
from inference.settings import InferenceSettings

_CLIENT_OPTIONS = frozenset({"allow_http", "connect_timeout", "proxy_url", "timeout"})


class ArtifactStore:
    """What the registry's store holds, as seen from here: the same keys, through obstore or the API."""

    def __init__(self, settings: InferenceSettings) -> None:
        url = settings.store_url
        self._writable = not url.startswith("http")
        arguments: dict[str, Any] = {}
        if url.startswith("file:"):
            arguments = {"mkdir": True}
        elif url.startswith("http"):
            headers = {"authorization": f"Bearer {settings.token()}"}
            arguments = {"client_options": {"allow_http": True, "default_headers": headers}}
        elif not url.startswith("memory:"):
            values = {name.lower(): value.get_secret_value() for name, value in settings.object_store_options.items()}
            client = {name: values.pop(name) for name in list(values) if name in _CLIENT_OPTIONS}
            if values.get("endpoint", "").startswith("http://"):
                client.setdefault("allow_http", "true")
            arguments = {"config": values, "client_options": client}
        self._store = from_url(url, **arguments)

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
            data = obstore.get(self._store, key).bytes()
        except (NotFoundError, FileNotFoundError):
            return False
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
        return True

    def publish(self, key: str, path: Path) -> None:
        """See `osora_core.basis.RemoteBasis.publish`."""
        if not self._writable:
            return
        try:
            obstore.put(self._store, key, path, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return
