"""Signing secrets. None is stored: each is derived from a server secret (`OSORA_SECRET_KEY`) and a salt in the row.

So whoever reads the database, or a backup of it, can sign nothing. A salt names its server secret. When that is
rotated, the salts are *sealed* anew: they get a mask, by which what the new server secret gives is again the signing
secret that the receiver knows.
"""

import base64
import hashlib
import hmac
import secrets

from sqlalchemy.orm import Session

from registry import server_secrets

_PREFIX = "whsec_"
_PURPOSE = b"osora webhook signing secret\0"  # API keys are hashed with the same key
_BYTES = 32
_SHOWN = 4


def new_salt(session: Session) -> str:
    """A salt for an endpoint, `id of the server secret:64 hexadecimal digits`."""
    return f"{server_secrets.of_session(session).current_id}:{secrets.token_hex(_BYTES)}"


def secret_of(session: Session, salt: str) -> str:
    """The signing secret `whsec_…`, 32 bytes as Standard Webhooks writes them.

    Where the salt's server secret is not there any more it is another one than the receiver knows.
    """
    return _PREFIX + base64.b64encode(_secret(session, salt)).decode()


def sealed(session: Session, salt: str) -> str:
    """The salt of the current server secret that gives the same signing secret.

    One whose server secret is not there any more, or not known, stays as it is.
    """
    known = server_secrets.of_session(session)
    secret_id = server_secret_id(salt)
    if secret_id is None and not known.fallbacks:
        return f"{known.current_id}:{salt}"
    if secret_id == known.current_id or secret_id not in known.by_id():
        return salt
    new = new_salt(session)
    mask = bytes(a ^ b for a, b in zip(_secret(session, salt), _secret(session, new), strict=True))
    return f"{new}:{mask.hex()}"


def server_secret_id(salt: str) -> str | None:
    """Of the server secret that a salt goes with; None of a salt from before they named it."""
    return salt.split(":")[0] if ":" in salt else None


def hint(secret: str) -> str:
    """The secret, masked but for its end, to recognise it by."""
    # The very last characters of 32 bytes in base 64 are padding.
    return f"{_PREFIX}…{secret.rstrip('=')[-_SHOWN:]}"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """A signature as Standard Webhooks has it: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base 64."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _secret(session: Session, salt: str) -> bytes:
    known = server_secrets.of_session(session)
    secret_id = server_secret_id(salt)
    salt_itself, _, mask = salt.removeprefix(f"{secret_id}:").partition(":")
    server_secret = known.by_id().get(secret_id or known.current_id)
    if server_secret is None:
        server_secret, mask = known.current.encode(), ""
    derived = hmac.new(server_secret, _PURPOSE + salt_itself.encode(), hashlib.sha256).digest()
    return bytes(a ^ b for a, b in zip(derived, bytes.fromhex(mask) or bytes(_BYTES), strict=True))
