"""Rotation of the server secret: a new one becomes current, and the old is a fallback until nothing hangs on it.

A key is hashed anew when it is used (`tenants.authenticate`), because only then it is there to be hashed; webhooks'
signing secrets all at once, by `settle`.
"""

import os
import secrets
import tempfile
from pathlib import Path

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from registry import server_secrets, webhooks
from registry.db import now_seconds
from registry.errors import Conflict
from registry.models import ApiKey
from registry.settings import Settings


def settle(session: Session) -> None:
    """Has all hang on the current server secret that can without anybody's doing; safe to repeat."""
    known = server_secrets.of_session(session)
    webhooks.seal_anew(session)
    if not known.fallbacks:
        # Of keys from before secrets had ids: there was only this one.
        unnamed = update(ApiKey).where(ApiKey.secret_id.is_(None))
        session.execute(unnamed.values(secret_id=known.current_id).execution_options(synchronize_session=False))


def hanging(session: Session) -> int:
    """How many keys that are good still hang on a fallback, or on it is not known what."""
    known = server_secrets.of_session(session)
    fallbacks = known.by_id().keys() - {known.current_id}
    return session.scalars(
        select(func.count())
        .select_from(ApiKey)
        .where(
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now_seconds()),
            or_(ApiKey.secret_id.is_(None), ApiKey.secret_id.in_(fallbacks)),
        )
    ).one()


def begin(settings: Settings, session: Session) -> str:
    """Makes a new current secret in the secrets' file, and says what comes next. Raises `Conflict`."""
    path = _file(settings)
    settle(session)
    _write(path, (secrets.token_urlsafe(32), *path.read_text().split()))
    return (
        f"{path} begins with a new secret; the old one is heeded still. Next: restart the service. `osora key list` "
        "says which keys hang on the old one: each goes over to the new one when it is used. When none is left: "
        "python -P -m registry rotate-secret --finish"
    )


def finish(settings: Settings, session: Session) -> str:
    """Drops the old secrets from the secrets' file, and says what comes next. Raises `Conflict`."""
    path = _file(settings)
    settle(session)
    left = hanging(session)
    if left:
        raise Conflict(
            f"{left} {'key hangs' if left == 1 else 'keys hang'} on an old secret, and would be useless without it",
            code="keys_hang_on_it",
            next_action="use or revoke them: `osora key list` shows which they are",
        )
    _write(path, (settings.server_secrets.current,))
    return f"{path} holds the current secret only. Next: restart the service."


def _file(settings: Settings) -> Path:
    if settings.secret_key is not None:
        raise Conflict(
            "the server secret is set by OSORA_SECRET_KEY, not kept in a file",
            code="secret_is_configured",
            next_action="give OSORA_SECRET_KEY the new secret and OSORA_SECRET_KEY_FALLBACKS the old one, "
            "as docs/security.md says",
        )
    return settings.secret_key_path


def _write(path: Path, lines: tuple[str, ...]) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # with mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
