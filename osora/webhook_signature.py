"""What arrives at a webhook endpoint: whether Osora sent it, and not long ago."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping

from osora.errors import OsoraUsageError, OsoraWebhookError
from osora.schemas import WebhookEvent

_PREFIX = "whsec_"
TOLERANCE_SECONDS = 300.0


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    clock: Callable[[], float] = time.time,
) -> WebhookEvent:
    """The event that a webhook tells, if it is signed with this secret (`whsec_…`) as Standard Webhooks has it.

    Args:
        body: the request's, byte for byte as it came.
        headers: the request's, by their names in any case.
        tolerance_seconds: how old it may be, and how far ahead its clock.

    Raises:
        OsoraWebhookError: it is not Osora's, or it is too old: answer with 400.
        OsoraUsageError: the secret is none.
    """
    key = _key_of(secret)
    by_name = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not by_name.get(name)]
    if missing:
        raise OsoraWebhookError(f"The request has no header {missing[0]!r}: it is no webhook of Osora")
    sent, sent_at = by_name["webhook-id"], by_name["webhook-timestamp"]
    if not (sent_at.isascii() and sent_at.isdecimal()) or abs(clock() - int(sent_at)) > tolerance_seconds:
        raise OsoraWebhookError(f"The webhook's time, {sent_at[:40]!r}, is more than {tolerance_seconds:g} s away")
    content = body.encode() if isinstance(body, str) else body
    signed = f"{sent}.{sent_at}.".encode(errors="surrogateescape") + content
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # Several while a secret is being replaced.
    signatures = [said.partition(",") for said in by_name["webhook-signature"].split()]
    given = [signature.encode(errors="replace") for version, _, signature in signatures if version == "v1"]
    if not any([hmac.compare_digest(expected, signature) for signature in given]):
        raise OsoraWebhookError("The webhook is not signed with this secret")
    event: WebhookEvent = json.loads(content)
    return event


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise OsoraUsageError("The webhook's secret is none", f"give it as it was shown: {_PREFIX}…")
    return key
