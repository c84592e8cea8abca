"""Which URLs the settings of the registry may have: each says in one sentence what it is not."""

from typing import Annotated
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES
from pydantic import AfterValidator

from osora_common.secret_values import check_password_in
from registry.db import check_database_url


def _broker_url(url: str) -> str:
    scheme = url.partition(":")[0]
    if "://" not in url or scheme.partition("+")[0] not in TRANSPORT_ALIASES:
        raise ValueError(f"{scheme[:20]!r} is no kind of broker: use redis://host:6379/0 or redis+socket:///path")
    return url


def _http_urls(value: str) -> str:
    urls = [url.strip() for url in value.split(",") if url.strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server: write it as http://host:port")
    if not urls:
        raise ValueError("it names no server: write at least one as http://host:port")
    return value


DatabaseUrl = Annotated[str, AfterValidator(check_database_url), AfterValidator(check_password_in)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url), AfterValidator(check_password_in)]
HttpUrls = Annotated[str, AfterValidator(_http_urls)]
"""Separated by commas."""
