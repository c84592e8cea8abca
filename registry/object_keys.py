"""What every object store agrees on about keys."""

from dataclasses import dataclass

from registry.errors import InvalidRequest, NotFound


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    bytes: int
    modified_at: float
    """When it was put there, in unix seconds of the store's clock."""


def checked(key: str) -> str:
    """The key itself, if it is one: relative, of plain segments. Raises `InvalidRequest`."""
    # obstore's file store takes neither "\\" nor, at the end of a name, "#1"; so nobody gets to rely on them.
    plain = key.isprintable() and not set(key) & {"\\", "#"}
    if not plain or any(segment in ("", ".", "..") for segment in key.split("/")):
        raise InvalidRequest(f"{key!r} is not an object key", next_action="use segments joined by single slashes")
    return key


def missing(key: str) -> NotFound:
    """The error for a key without an object."""
    return NotFound(f"no object {key!r} in the store", code="object_not_found")
