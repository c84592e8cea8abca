"""What it looks like when something that we depend on is away for a while: errors that waiting mends."""

from obstore.exceptions import GenericError, JoinError, PermissionDeniedError, UnauthenticatedError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

DATABASE_OUTAGES = (OperationalError, InterfaceError, PoolTimeout)
"""The database restarts, its disk is full, or its connections are used up."""

STORE_OUTAGES = (GenericError, JoinError, PermissionDeniedError, UnauthenticatedError)
"""The object store's: a full disk is a GenericError, and somebody renews expired credentials sooner or later."""

OUTAGES = (*DATABASE_OUTAGES, *STORE_OUTAGES, OSError)


def first_line(error: Exception) -> str:
    """An error as one line of a log: drivers add whole statements, with their parameters."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
