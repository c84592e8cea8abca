"""Identifiers: a prefix, a time stamp that sorts as text, and 80 random bits."""

import re
import secrets
import threading
import time
from typing import Literal

Prefix = Literal[
    "file-",
    "upload_",
    "part_",
    "ftjob-",
    "adp-",
    "tenant-",
    "key-",
    "cp_",
    "webhook-",
    "wh_",
    "evt_",
    "audit-",
    "base-",
]

# Crockford's base 32 in lower case: its order as text is its order as a number.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STAMP_LENGTH = 11  # microseconds since 1970 fit until the year 3100
_RANDOM_LENGTH = 16
_SHORT = f"[{_ALPHABET}]{{{_RANDOM_LENGTH}}}"
_CHECKPOINT = re.compile(
    rf"ftckpt_(?P<id>{_SHORT})_(?P<step>[0-9]{{1,18}})|ft:.*:(?P<name>{_SHORT}):ckpt-step-(?P<at>[0-9]{{1,18}})"
)
_OURS = re.compile(rf"adp-.*|{_CHECKPOINT.pattern}|ft:.*:{_SHORT}")

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


def model_name(base: str, tenant: str, suffix: str | None, identifier: str) -> str:
    """The public name of an adapter: `ft:<base>:<tenant>:<suffix>:<short id>`."""
    return f"ft:{base}:{tenant}:{suffix or ''}:{short(identifier)}"


def checkpoint_id(job_id: str, step: int) -> str:
    """A job has one checkpoint at a step: `ftckpt_<short id of the job>_<step>`."""
    return f"ftckpt_{short(job_id)}_{step}"


def checkpoint_name(base: str, tenant: str, suffix: str | None, job_id: str, step: int) -> str:
    """The public name of a checkpoint: `ft:<base>:<tenant>:<suffix>:<short id of the job>:ckpt-step-<step>`."""
    return f"{model_name(base, tenant, suffix, job_id)}:ckpt-step-{step}"


def parse_checkpoint(id_or_name: str) -> tuple[str, int] | None:
    """The short id of the job and the step that a checkpoint's id or name tells; None for what is neither."""
    found = _CHECKPOINT.fullmatch(id_or_name)
    return None if found is None else (found["id"] or found["name"], int(found["step"] or found["at"]))


def may_be_ours(id_or_name: str) -> bool:
    """Whether an adapter's or a checkpoint's id or name may look like this; what else there is does so by chance."""
    return _OURS.fullmatch(id_or_name) is not None


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
