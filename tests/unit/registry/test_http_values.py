"""Settings about HTTP that are wrong are refused by name."""

import pytest
from pydantic import ValidationError

from registry.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trusted_proxies", "10.0.0.0/8,proxy", "'proxy' is no address and no network"),
        ("trusted_proxies", "*", "'\\*' is no address"),
        ("trusted_proxies", "0.0.0.0/0", "the whole internet"),
        ("internal_networks", "10.0.0.1/8", "is no address and no network"),
        ("cors_origins", "https://app.example.com/", "is no origin"),
        ("cors_origins", "app.example.com", "is no origin"),
        ("allowed_hosts", "api.example.com:443", "without a port"),
    ],
)
def test_what_cannot_be_used(name: str, value: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_what_can() -> None:
    settings = Settings(
        trusted_proxies="10.0.0.7, fd00::/8",
        cors_origins="https://a.example:8443, *",
        allowed_hosts="*.example.com, [::1]",
        internal_networks="",
    )
    assert settings.cors_origin_list == ["https://a.example:8443", "*"]
    assert settings.allowed_host_list == ["*.example.com", "[::1]"]
