"""The link that signs the owner of an embedded installation in to its console, once.

Who can write into the data directory may read its key anyway: a link is a secret whose hash lies there until it is
used.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

_FILE = Path("run", "console-link")


def issue(data_dir: Path, console_url: str) -> str:
    """A new link; the one before is worth nothing any more."""
    token = secrets.token_urlsafe(32)
    path = data_dir / _FILE
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.touch(mode=0o600)
    draft.write_text(_hash(token))
    draft.replace(path)
    return f"{console_url}/sign-in?once={token}"


def redeem(data_dir: Path, token: str) -> bool:
    """Whether the link with this token is good, which it is no second time."""
    path = data_dir / _FILE
    try:
        if not hmac.compare_digest(path.read_text(), _hash(token)):
            return False
        path.unlink()  # of two at once, one fails here
    except OSError:
        return False
    return True


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
