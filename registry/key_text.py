"""What a key looks like: `osk-`, 43 random letters and digits, and 6 that check what comes before them.

So what scans for leaks knows one by `\\bosk-[0-9A-Za-z]{49}\\b`, and can tell a key from what only looks like one; and
one that was cut or mistyped is refused without a look into the database. Keys from before had no checksum.
"""

import re
import secrets
import string
import zlib

PREFIX = "osk-"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM = 43  # of 62 letters: 256 bits
_CHECKSUM = 6
_CHECKED = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECKSUM}}}")
_FROM_BEFORE = re.compile(rf"{PREFIX}[0-9A-Za-z_-]{{43}}")


def new_key() -> str:
    """A fresh key."""
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return body + _checksum(body)


def may_be_key(text: str) -> bool:
    """Whether it has the form of a key, its checksum included."""
    if _CHECKED.fullmatch(text):
        return _checksum(text[:-_CHECKSUM]) == text[-_CHECKSUM:]
    return _FROM_BEFORE.fullmatch(text) is not None


def _checksum(body: str) -> str:
    """The CRC-32 of the body in base 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
