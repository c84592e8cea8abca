"""What it looks like when something that we depend on is away for a while: errors that waiting mends."""

import errno
import sqlite3

from obstore.exceptions import GenericError, JoinError, PermissionDeniedError, UnauthenticatedError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

DATABASE_OUTAGES = (OperationalError, InterfaceError, PoolTimeout)
"""The database restarts, its disk is full, or its connections are used up."""

STORE_OUTAGES = (GenericError, JoinError, PermissionDeniedError, UnauthenticatedError)
"""The object store's: a full disk is a GenericError, and somebody renews expired credentials sooner or later."""

OUTAGES = (*DATABASE_OUTAGES, *STORE_OUTAGES, OSError)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM_IN_POSTGRESQL = "53100"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error's reason is a disk without room: the database's, the object store's or that of temporary files.

    Each layer tells it in its own way, and wraps what the one below said.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return True
    if getattr(error, "sqlstate", None) == _NO_ROOM_IN_POSTGRESQL:
        return True
    if isinstance(error, GenericError) and any(f"os error {number})" in str(error) for number in _NO_ROOM):
        return True
    below = getattr(error, "orig", None) or error.__cause__
    return below is not None and is_disk_full(below)


def first_line(error: Exception) -> str:
    """An error as one line of a log: drivers add whole statements, with their parameters."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
