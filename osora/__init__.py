"""Osora from outside: the Python SDK (`Osora`, `AsyncOsora`) and the `osora` command line. Imports nothing of ours."""

from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraError, OsoraUsageError, OsoraWebhookError
from osora.sdk import AsyncOsora, Osora
from osora.webhook_signature import verify_webhook

__all__ = [
    "AsyncOsora",
    "Osora",
    "OsoraAPIError",
    "OsoraConnectionError",
    "OsoraError",
    "OsoraUsageError",
    "OsoraWebhookError",
    "verify_webhook",
]
