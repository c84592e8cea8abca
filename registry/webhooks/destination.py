"""Where webhooks may go: a URL that a tenant writes must not reach what only we can reach.

The URL is read once, here, when it is stored and again whenever it is sent to; the addresses that its name stands for
are known only then, and `check_address` judges each before anything connects to it.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from registry.errors import InvalidRequest

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST = 2048
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOWEST_FREE_PORT = 1024
_DEFAULT_PORTS = {"https": 443, "http": 80}

# https://www.iana.org/assignments/iana-ipv4-special-registry, and 224/4. Written out: which ranges `is_global` knows
# depends on the version of Python.
_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's own, inside each of its machines
    )
)
# Public IPv6 lies within 2000::/3. Mapped (::ffff:0:0/96) and NAT64 addresses (64:ff9b::/96, 64:ff9b:1::/48), which
# carry any IPv4 address, do not; 6to4 (2002::/16) and Teredo (2001::/32), which do too, are taken out.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# What OSORA_WEBHOOKS_ALLOW_PRIVATE adds. Not the link-local ranges: there clouds keep their machines' credentials.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7"),
    )
)
# Metadata services that lie within those.
_NEVER = (ipaddress.ip_address("100.100.100.200"), ipaddress.ip_address("fd00:ec2::254"))


class ForbiddenAddressError(Exception):
    """An address that webhooks must not go to."""


@dataclass(frozen=True)
class Destination:
    """A URL in parts. `host` is a name or an address (an IPv6 one without brackets)."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str, *, allow_private: bool) -> Destination:
    """The parts of a URL that webhooks may go to, as far as it tells by itself. Raises `InvalidRequest`."""
    if len(url) > _LONGEST or not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise _refused(
            f"is not a URL of at most {_LONGEST} characters without spaces, backslashes and letters outside of ASCII",
            "escape them with % in the path, and write the host's name in its xn-- form",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("has a host or a port that is none", "write it as https://host/path") from None
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        raise _refused("does not begin with https://", _unless_allowed("give an address with TLS"))
    if "@" in parts.netloc:
        raise _refused("has a user name or a password in it", "leave them out: the signature says who sends")
    if "#" in url:
        raise _refused("has a fragment, which no server is sent", "leave out the # and what follows")
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in _DEFAULT_PORTS.values() and port < _LOWEST_FREE_PORT:
        raise _refused(f"has the port {port}", "use 443, or one from 1024 up")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, _host(parts.netloc, parts.hostname or "", allow_private), port, target)


def check_address(address: IpAddress, *, allow_private: bool) -> None:
    """Raises `ForbiddenAddressError` unless webhooks may go to this address."""
    # One of another family is in no network.
    if allow_private and any(address in network for network in _PRIVATE) and address not in _NEVER:
        return
    if isinstance(address, ipaddress.IPv4Address):
        public = not any(address in network for network in _NOT_PUBLIC_V4)
    else:
        public = address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
    if not public:
        raise ForbiddenAddressError(str(address))


def _host(netloc: str, host: str, allow_private: bool) -> str:
    host = host.removesuffix(".")
    labels = host.split(".")
    if netloc.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        # By the rule of browsers, a host whose last label is a number is an address. Resolvers also read odd spellings
        # of one (2130706433, 0x7f.1, 0177.0.0.1), and people do not.
        try:
            address = ipaddress.ip_address("" if "%" in host else host)
            check_address(address, allow_private=allow_private)
        except ValueError:
            raise _refused("has a number for a host that is no address", "write 192.0.2.1 or [2001:db8::1]") from None
        except ForbiddenAddressError:
            next_action = _unless_allowed("give one that can be reached from the internet")
            raise _refused("leads to an address that is not a public one", next_action) from None
        return str(address)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(f"has no host name that could be one: {host[:60]!r}", "write it as https://host/path")
    return host


def _unless_allowed(next_action: str) -> str:
    return f"{next_action}; whoever runs the service can allow others with OSORA_WEBHOOKS_ALLOW_PRIVATE=true"


def _refused(what: str, next_action: str) -> InvalidRequest:
    return InvalidRequest(f"url {what}", param="url", code="invalid_value", next_action=next_action)
