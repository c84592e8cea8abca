"""Identifiers: a prefix, a time stamp that sorts as text, and 80 random bits."""

import secrets
import threading
import time
from typing import Literal

Prefix = Literal["file-", "ftjob-", "ftckpt_", "adp-", "tenant-", "key-"]

# Crockford's base 32 in lower case: its order as text is its order as a number.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STAMP_LENGTH = 11  # microseconds since 1970 fit until the year 3100
_RANDOM_LENGTH = 16

_lock = threading.Lock()
_last_stamp = 0


def new_id(prefix: Prefix) -> str:
    """A fresh identifier such as `file-01k9…`; those made later in this process sort after earlier ones.

    Order is a convenience for listings (rows of the same second come out in the order they were made);
    uniqueness and secrecy rest on the random part alone.
    """
    stamp = _encode(_next_stamp(), _STAMP_LENGTH)
    return prefix + stamp + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))


def short(identifier: str) -> str:
    """The random part of an identifier, which ends a fine-tuned model's name."""
    return identifier[-_RANDOM_LENGTH:]


def model_name(base: str, tenant: str, suffix: str | None, adapter_id: str) -> str:
    """The public name of an adapter: `ft:<base>:<tenant>:<suffix>:<short id>`."""
    return f"ft:{base}:{tenant}:{suffix or ''}:{short(adapter_id)}"


def event_id(number: int) -> str:
    """How an event's number is shown: `ftevent-<number>`."""
    return f"ftevent-{number}"


def _next_stamp() -> int:
    global _last_stamp
    with _lock:
        _last_stamp = max(_last_stamp + 1, time.time_ns() // 1000)
        return _last_stamp


def _encode(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
