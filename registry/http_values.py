"""Values of settings that are about HTTP; each says in one sentence what is wrong with it."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]")


def networks_of(value: str) -> tuple[Network, ...]:
    """The networks in a list that is separated by commas. Raises ValueError."""
    found = []
    for item in _items(value):
        try:
            found.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ValueError(f"{item!r} is no address and no network: write it as 10.0.0.7 or 10.0.0.0/8") from error
    return tuple(found)


def _networks(value: str) -> str:
    networks_of(value)
    return value


def _proxies(value: str) -> str:
    if any(network.prefixlen == 0 for network in networks_of(value)):
        raise ValueError("it names the whole internet, and then anybody could say where a request comes from")
    return value


def _origins(value: str) -> str:
    for item in _items(value):
        parts = urlsplit(item)
        if item != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or item != _origin(item)):
            raise ValueError(f"{item!r} is no origin: write it as https://app.example.com, with no path, or * for any")
    return value


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _hosts(value: str) -> str:
    for item in _items(value):
        if not _HOST.fullmatch(item):
            raise ValueError(f"{item!r} is no host: write it as api.example.com or *.example.com, without a port")
    return value


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


Networks = Annotated[str, AfterValidator(_networks)]
Proxies = Annotated[str, AfterValidator(_proxies)]
Origins = Annotated[str, AfterValidator(_origins)]
Hosts = Annotated[str, AfterValidator(_hosts)]
"""All separated by commas."""
