"""Signing secrets. None is stored: each is derived from the installation's `OSORA_SECRET_KEY` and a salt in the row.

So whoever reads the database, or a backup of it, can sign nothing; and with another `OSORA_SECRET_KEY` all signing
secrets are others, as all API keys are useless then.
"""

import base64
import hashlib
import hmac
import secrets

from sqlalchemy.orm import Session

_PREFIX = "whsec_"
_PURPOSE = b"osora webhook signing secret\0"  # API keys are hashed with the same key
_SHOWN = 4


def new_salt() -> str:
    """A salt for an endpoint: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def secret_of(session: Session, salt: str) -> str:
    """The signing secret `whsec_…`, 32 bytes as Standard Webhooks writes them."""
    pepper: bytes = session.info["key_pepper"]
    return _PREFIX + base64.b64encode(hmac.new(pepper, _PURPOSE + salt.encode(), hashlib.sha256).digest()).decode()


def hint(secret: str) -> str:
    """The secret, masked but for its end, to recognise it by."""
    # The very last characters of 32 bytes in base 64 are padding.
    return f"{_PREFIX}…{secret.rstrip('=')[-_SHOWN:]}"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """A signature as Standard Webhooks has it: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base 64."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
