"""Signatures and hints."""

from registry.webhooks.secrets import hint, sign


def test_the_example_of_standard_webhooks() -> None:
    """From the reference libraries' own tests (github.com/standard-webhooks/standard-webhooks)."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_hint_gives_little_away() -> None:
    assert hint("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == "whsec_…LaSw"
