"""Object storage: files, checkpoints and adapters, by key. Rows in the database point here."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import LocalStore
from pydantic import SecretStr
from sqlalchemy import Engine

from osora_common.object_store import open_object_store
from osora_common.store_url import DATABASE_STORE
from registry.blobs import DatabaseStore
from registry.object_keys import StoredObject, checked, missing

_PIECES_AT_ONCE = 4
_CHUNK_BYTES = 1024 * 1024

# obstore writes a file beside its place, under its name and a number, and then renames it. No key looks like that.
_UNFINISHED = re.compile(r"#[0-9]+$")


class ObjectStore(Protocol):
    """Immutable-by-convention objects under keys such as `adapters/<job>/<attempt>/adapter.zip`."""

    @property
    def url(self) -> str:
        """Where the objects are, without credentials."""

    def put(self, key: str, data: bytes | Path) -> None:
        """Stores an object, replacing any of that key. No reader ever sees a part of it."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Stores an object unless there is one of that key; says whether it did."""

    def get(self, key: str) -> bytes:
        """The whole object. Raises `NotFound`."""

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """The object in pieces, from a byte of it on. Raises `NotFound` at the call, not at the first piece."""

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None when there is none."""

    def delete(self, key: str) -> None:
        """Removes the object; fine when there is none."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """What is under a folder such as `adapters/ftjob-1`, in no order, read from the store as it is asked for."""

    def clear_unfinished(self, before: float) -> int:
        """Removes what is left of puts that were cut short before that time; returns how many. Nobody else sees them.

        Only files on disk leave any that are ours to remove: a cloud's unfinished uploads are for a rule of its bucket.
        """


def open_store(url: str, options: dict[str, SecretStr], engine: Engine) -> ObjectStore:
    """The store that a URL names: `db:` (in `engine`'s database) or anything obstore knows."""
    if url == DATABASE_STORE:
        return DatabaseStore(engine)
    return ObstoreStore(url, options)


class ObstoreStore:
    """Files on disk, S3, Google Cloud Storage, Azure, or memory, through obstore."""

    def __init__(self, url: str, options: dict[str, SecretStr]) -> None:
        self._url = url
        self._store = open_object_store(url, {name: value.get_secret_value() for name, value in options.items()})

    @property
    def url(self) -> str:
        """Where the objects are; credentials travel in the options, never here."""
        return self._url

    def put(self, key: str, data: bytes | Path) -> None:
        """See `ObjectStore.put`."""
        # A large file goes in pieces of 5 MiB, each of which is in memory until it is written.
        obstore.put(self._store, checked(key), data, max_concurrency=_PIECES_AT_ONCE)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """See `ObjectStore.put_if_absent`. Reads a file whole: not every store has conditional multipart."""
        try:
            obstore.put(self._store, checked(key), data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        try:
            return bytes(obstore.get(self._store, checked(key)).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise missing(key) from error

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `ObjectStore.stream`."""
        try:
            result = obstore.get(self._store, checked(key), options={"range": {"offset": start}} if start else None)
        except (NotFoundError, FileNotFoundError) as error:
            raise missing(key) from error
        return (bytes(chunk) for chunk in result.stream(min_chunk_size=_CHUNK_BYTES))

    def size(self, key: str) -> int | None:
        """See `ObjectStore.size`."""
        try:
            return obstore.head(self._store, checked(key))["size"]
        except (NotFoundError, FileNotFoundError):
            return None

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        try:
            obstore.delete(self._store, checked(key))
        except (NotFoundError, FileNotFoundError):
            return

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See `ObjectStore.list`."""
        for batch in obstore.list(self._store, prefix):
            for found in batch:
                yield StoredObject(found["path"], found["size"], found["last_modified"].timestamp())

    def clear_unfinished(self, before: float) -> int:
        """See `ObjectStore.clear_unfinished`."""
        if not isinstance(self._store, LocalStore):
            return 0
        assert self._store.prefix is not None  # it was opened by a URL, which names a folder
        cleared = 0
        for folder, _, names in os.walk(self._store.prefix):
            for path in (Path(folder, name) for name in names if _UNFINISHED.search(name)):
                try:
                    if path.stat().st_mtime < before:
                        path.unlink()
                        cleared += 1
                except FileNotFoundError:
                    continue  # it was finished, or another worker has cleared it
        return cleared
