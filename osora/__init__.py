"""Osora from outside: the Python SDK (`Osora`) and the `osora` command line. Imports nothing of ours."""

from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraError, OsoraUsageError
from osora.sdk import Osora

__all__ = ["Osora", "OsoraAPIError", "OsoraConnectionError", "OsoraError", "OsoraUsageError"]
