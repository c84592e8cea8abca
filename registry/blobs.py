"""The `db:` object store: pieces in the `blobs` table, for deployments with nothing but a database."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from osora_common.store_url import DATABASE_STORE
from registry.db import read_only
from registry.models import Blob
from registry.object_keys import StoredObject, checked, missing

_PIECE_BYTES = 1024 * 1024
_PAGE_OBJECTS = 1000


class DatabaseStore:
    """See `registry.store.ObjectStore`. It makes its own transactions; do not call it inside one."""

    url = DATABASE_STORE

    def __init__(self, engine: Engine) -> None:
        self._writers = engine
        self._readers = read_only(engine)

    def put(self, key: str, data: bytes | Path) -> None:
        """See `ObjectStore.put`."""
        while True:
            try:
                with self._writers.begin() as connection:
                    connection.execute(delete(Blob).where(Blob.key == checked(key)))
                    _insert(connection, key, data)
                return
            except IntegrityError:
                # Another put of this key committed between our DELETE and our INSERT; now we see its rows.
                continue

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """See `ObjectStore.put_if_absent`."""
        try:
            with self._writers.begin() as connection:
                _insert(connection, checked(key), data)
        except IntegrityError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        return b"".join(self.stream(key))

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `ObjectStore.stream`."""
        if self.size(key) is None:
            raise missing(key)
        return self._pieces(key, start)

    def size(self, key: str) -> int | None:
        """See `ObjectStore.size`."""
        with self._readers.begin() as connection:
            size: int | None = connection.scalar(
                select(func.sum(func.length(Blob.data))).where(Blob.key == checked(key))
            )
        return None if size is None else int(size)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with self._writers.begin() as connection:
            connection.execute(delete(Blob).where(Blob.key == checked(key)))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See `ObjectStore.list`."""
        folder = prefix.rstrip("/") + "/" if prefix else ""
        page = (
            select(Blob.key, func.sum(func.length(Blob.data)), func.min(Blob.created_at))
            .where(Blob.key.startswith(folder, autoescape=True))
            .group_by(Blob.key)
            .order_by(Blob.key)
            .limit(_PAGE_OBJECTS)
        )
        last = ""
        while True:
            # A transaction for each page: a reader that takes its time must not keep an old snapshot alive.
            with self._readers.begin() as connection:
                rows = connection.execute(page.where(Blob.key > last)).all()
            for key, size, created_at in rows:
                yield StoredObject(key, int(size), created_at)
            if len(rows) < _PAGE_OBJECTS:
                return
            last = rows[-1].key

    def clear_unfinished(self, before: float) -> int:
        """See `ObjectStore.clear_unfinished`: a put is one transaction, and leaves nothing."""
        return 0

    def _pieces(self, key: str, start: int) -> Iterator[bytes]:
        # Every piece but the last has this size.
        first, skipped = divmod(start, _PIECE_BYTES)
        # One statement is one snapshot: an overwrite meanwhile cannot mix two objects.
        statement = select(Blob.data).where(Blob.key == key, Blob.number >= first).order_by(Blob.number)
        with (
            self._readers.connect().execution_options(yield_per=4) as connection,
            connection.begin(),
            # Closed by name: a reader that leaves early must not leave a cursor open on the server.
            connection.execute(statement) as result,
        ):
            for piece in result.scalars():
                yield piece[skipped:]
                skipped = 0


def _insert(connection: Connection, key: str, data: bytes | Path) -> None:
    for number, piece in enumerate(_split(data)):
        connection.execute(insert(Blob).values(key=key, number=number, data=piece))


def _split(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        for start in range(0, max(len(data), 1), _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]
        return
    with data.open("rb") as file:
        yield file.read(_PIECE_BYTES)  # the first piece even when empty: it is what makes the object exist
        while piece := file.read(_PIECE_BYTES):
            yield piece
