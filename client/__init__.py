"""Osora from outside: the Python SDK (`Osora`) and the `osora` command line. Imports nothing of ours."""

from client.errors import OsoraAPIError, OsoraConnectionError, OsoraError
from client.sdk import Osora

__all__ = ["Osora", "OsoraAPIError", "OsoraConnectionError", "OsoraError"]
