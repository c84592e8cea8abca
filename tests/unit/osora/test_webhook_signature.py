"""What comes to a webhook endpoint: checked against the one who signs, and against the standard's own example."""

import base64
import json
from collections.abc import Mapping

import pytest

from osora import OsoraUsageError, OsoraWebhookError, verify_webhook
from registry.webhooks.secrets import sign

SECRET = "whsec_" + base64.b64encode(b"secret of the tests").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret").decode()
BODY = json.dumps({"id": "evt_1", "type": "alias.changed", "data": {"id": "naïve"}}).encode()
NOW = 1_700_000_000


def headers(*secrets: str, at: int = NOW) -> dict[str, str]:
    signatures = " ".join(sign(secret, "evt_1", at, BODY) for secret in secrets)
    return {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(at), "WEBHOOK-SIGNATURE": signatures}


def verify(sent: Mapping[str, str], body: bytes | str = BODY, secret: str = SECRET) -> object:
    return verify_webhook(body, sent, secret, clock=lambda: NOW)


@pytest.mark.parametrize("secrets", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
@pytest.mark.parametrize("body", [BODY, BODY.decode()])
def test_what_osora_signed(secrets: tuple[str, ...], body: bytes | str) -> None:
    assert verify(headers(*secrets), body) == json.loads(BODY)


def test_the_example_of_the_standard() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, of its libraries' tests."""
    sent = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    event = verify_webhook(
        '{"test": 2432232314}', sent, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", clock=lambda: 1614265330
    )
    assert event == {"test": 2432232314}


@pytest.mark.parametrize(
    ("sent", "body", "secret"),
    [
        (headers(OTHER), BODY, SECRET),
        (headers(SECRET), BODY + b" ", SECRET),
        (headers(SECRET) | {"Webhook-Id": "evt_2"}, BODY, SECRET),
        (headers(SECRET) | {"WEBHOOK-SIGNATURE": "v1a," + sign(SECRET, "evt_1", NOW, BODY)[3:]}, BODY, SECRET),
        (headers(SECRET) | {"WEBHOOK-SIGNATURE": "v1,é"}, BODY, SECRET),
        (headers(SECRET) | {"Webhook-Timestamp": "soon"}, BODY, SECRET),
        (headers(SECRET, at=NOW - 301), BODY, SECRET),
        (headers(SECRET, at=NOW + 301), BODY, SECRET),
        ({}, BODY, SECRET),
    ],
    ids=["key", "body", "id", "version", "not ascii", "no time", "old", "ahead", "no headers"],
)
def test_what_it_did_not(sent: dict[str, str], body: bytes, secret: str) -> None:
    with pytest.raises(OsoraWebhookError):
        verify(sent, body, secret)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "osk-é"])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(OsoraUsageError, match="secret"):
        verify(headers(SECRET), secret=secret)
