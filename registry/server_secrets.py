"""The secrets of the installation that keys are hashed with: the current one, and others that are still heeded.

A rotation makes a new one the current and keeps the old among the fallbacks, for as long as anything hangs on it.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.orm import Session

SecretState = Literal["current", "fallback", "lost", "unknown"]
_NAMING = b"osora name of a server secret\0"


@dataclass(frozen=True)
class ServerSecrets:
    """The current secret and the fallbacks, each known by an id that tells nothing of it."""

    current: str = field(repr=False)
    fallbacks: tuple[str, ...] = field(default=(), repr=False)

    @property
    def current_id(self) -> str:
        """The id of the current secret."""
        return _id_of(self.current)

    def by_id(self) -> dict[str, bytes]:
        """All secrets by their ids, the current one first."""
        return {_id_of(secret): secret.encode() for secret in (self.current, *self.fallbacks)}

    def state_of(self, secret_id: str | None) -> SecretState:
        """What has become of the secret with this id; None is that of what was hashed before there were ids."""
        if secret_id is None:
            return "unknown"
        if secret_id == self.current_id:
            return "current"
        return "fallback" if secret_id in self.by_id() else "lost"

    def digests(self, plaintext: str) -> list[tuple[str, str]]:
        """For each secret, the current one first: its id, and the HMAC-SHA256 of the text by it, in hexadecimal."""
        text = plaintext.encode("utf-8", "surrogatepass")
        secrets = self.by_id().items()
        return [(secret_id, hmac.new(secret, text, hashlib.sha256).hexdigest()) for secret_id, secret in secrets]


def of_session(session: Session) -> ServerSecrets:
    """Those of the installation, which ride on its sessions."""
    secrets: ServerSecrets = session.info["server_secrets"]
    return secrets


def _id_of(secret: str) -> str:
    return hmac.new(secret.encode(), _NAMING, hashlib.sha256).hexdigest()[:16]
