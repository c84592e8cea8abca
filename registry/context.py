"""What a process opens once and hands around: settings, engine, sessions, object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from osora_common.scratch import Scratch
from registry.db import BUSY_SECONDS, make_engine, read_only
from registry.key_uses import KeyUses
from registry.settings import Settings
from registry.store import ObjectStore, open_store


@dataclass(frozen=True)
class Registry:
    """An open registry. Sessions commit at the boundary, in `transaction()`; services only flush."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    readers: sessionmaker[Session]
    store: ObjectStore
    scratch: Scratch
    """For temporary files."""
    key_uses: KeyUses
    """The keys that were used through these sessions: whoever keeps this open long writes them down."""

    @classmethod
    def open(cls, settings: Settings, *, busy_seconds: float = BUSY_SECONDS) -> Self:
        """Connects lazily; the schema must be there (`registry.migrate.upgrade`).

        `busy_seconds`: how long a transaction waits for SQLite's write lock.
        """
        engine = make_engine(settings.database_url, busy_seconds)
        # What keys are hashed with rides on the session, so that services need no global settings.
        key_uses = KeyUses()
        info = {"server_secrets": settings.server_secrets, "key_uses": key_uses}
        return cls(
            settings=settings,
            engine=engine,
            sessions=sessionmaker(engine, expire_on_commit=False, info=info),
            readers=sessionmaker(read_only(engine), expire_on_commit=False, info=info),
            store=open_store(settings.object_store, settings.object_store_options, engine),
            scratch=Scratch(settings.data_dir),
            key_uses=key_uses,
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at exit and rolls back on an exception."""
        with self.sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: one snapshot on SQLite, and it never waits for a writer there."""
        with self.readers.begin() as session:
            yield session

    def close(self) -> None:
        """Closes the pooled connections, and removes the temporary files."""
        self.scratch.close()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
