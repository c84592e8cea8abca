"""That keys were used, gathered in memory and written now and then: no request waits for it."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import or_, update
from sqlalchemy.orm import Session, sessionmaker

from registry.db import now_seconds
from registry.models import ApiKey

_ENOUGH_SECONDS = 60


@dataclass(frozen=True)
class Rehash:
    """A key's hash by a fallback, or by it is not known which secret, and its hash by the current one."""

    old_digest: str
    digest: str
    secret_id: str


class KeyUses:
    """The keys that were used since the last `write`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[str, Rehash | None] = {}

    def note(self, key: ApiKey, at: int, rehash: Rehash | None) -> None:
        """A key was used, at `at` of the database's clock. What was written a moment ago is not written again."""
        if rehash is not None or key.last_used_at is None or key.last_used_at <= at - _ENOUGH_SECONDS:
            with self._lock:
                self._used[key.id] = rehash

    def write(self, sessions: sessionmaker[Session]) -> None:
        """Writes down what was noted; what cannot be written now is noted still."""
        with self._lock:
            used, self._used = self._used, {}
        if not used:
            return
        try:
            with sessions.begin() as session:
                _write(session, used)
        except BaseException:
            with self._lock:
                self._used = {**used, **self._used}
            raise


def _write(session: Session, used: Mapping[str, Rehash | None]) -> None:
    of_these = update(ApiKey).execution_options(synchronize_session=False)
    # In one order, so that two processes do not wait for each other's rows.
    for key_id, rehash in sorted(used.items()):
        is_old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now_seconds() - _ENOUGH_SECONDS)
        session.execute(of_these.where(ApiKey.id == key_id, is_old).values(last_used_at=now_seconds()))
        if rehash is not None:
            session.execute(
                of_these.where(ApiKey.id == key_id, ApiKey.digest == rehash.old_digest).values(
                    digest=rehash.digest, secret_id=rehash.secret_id
                )
            )
