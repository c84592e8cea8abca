"""Which secrets are none: what examples say, what products ship with, and what can be guessed."""

from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, SecretStr

_LEAST_CHARACTERS = 16
_LEAST_DIFFERENT = 8
_EXAMPLES = ("change", "example", "placeholder", "replace", "your-", "your_")
# Passwords that servers or their guides come with.
_SHIPPED = frozenset(
    {"admin", "guest", "minio", "minioadmin", "osora", "osora-objects", "pass", "password", "postgres", "redis", "root"}
    | {"secret", "test", "valkey", "123456", "12345678"}
)
_MAKE = "openssl rand -base64 32 makes one"


def _own_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    check_secret("it", text)
    if len(text) < _LEAST_CHARACTERS or len(set(text)) < _LEAST_DIFFERENT:
        raise ValueError(
            f"it can be guessed: take {_LEAST_CHARACTERS} characters or more, {_LEAST_DIFFERENT} of them different; "
            + _MAKE
        )
    return value


OwnSecret = Annotated[SecretStr, AfterValidator(_own_secret)]
"""A secret that the operator chose for this installation; one that others may know or guess is refused."""


def _is_placeholder(text: str) -> bool:
    lowered = text.strip().lower()
    return lowered in _SHIPPED or any(mark in lowered for mark in _EXAMPLES)


def check_secret(name: str, text: str) -> None:
    """Raises ValueError for what an example or a product's first start has in a secret's place; "" is none."""
    if text and _is_placeholder(text):
        raise ValueError(f"{name} is a placeholder, which everybody knows: {_MAKE}")


def is_local(url: str) -> bool:
    """Whether a URL leads to a server on this machine; "" leads to none."""
    try:
        return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


def check_password_in(url: str) -> str:
    """The URL, of a server that is on this machine or whose password somebody chose. Raises ValueError."""
    try:
        parts = urlsplit(url)
        password = unquote(parts.password or "")
    except ValueError:
        return url  # whoever reads the URL for what it is says what is wrong
    if parts.hostname and not is_local(url):
        check_secret(f"the password for {parts.hostname}", password)
    return url
