"""Where webhooks may go: what a URL may say, and which addresses are public."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRequest
from registry.webhooks.destination import Destination, ForbiddenAddressError, check_address, parse

PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"]
PRIVATE = ["10.1.2.3", "127.0.0.1", "127.8.9.10", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1"]
NEVER = [
    *("0.0.0.0", "169.254.169.254", "169.254.1.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("100.100.100.200", "fd00:ec2::254"),
    *("::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "2001:db8::1", "3fff::1"),
    # Each of them carries an IPv4 address, public or not: mapped, compatible, NAT64 (both), 6to4, Teredo.
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::808:808", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::1"),
]

REFUSED = {
    "http://hooks.example.com/": "does not begin with https://",
    "ftp://hooks.example.com/": "does not begin with https://",
    "file:///etc/passwd": "does not begin with https://",
    "//hooks.example.com/": "does not begin with https://",
    "hooks.example.com": "does not begin with https://",
    "": "is not a URL",
    "https://": "has no host name",
    "https:///path": "has no host name",
    "https://.example.com/": "has no host name",
    "https://a..b/": "has no host name",
    "https://-a.example.com/": "has no host name",
    "https://a%2eexample.com/": "has no host name",
    f"https://{'a' * 64}.example.com/": "has no host name",
    f"https://{'a.' * 127}example.com/": "has no host name",
    "https://user@hooks.example.com/": "a user name",
    "https://user:secret@hooks.example.com/": "a user name",
    "https://hooks.example.com:443@127.0.0.1/": "a user name",
    "https://hooks.example.com/#here": "a fragment",
    "https://hooks.example.com#@127.0.0.1/": "a fragment",
    "https://hooks.example.com:22/": "the port 22",
    "https://hooks.example.com:0/": "the port 0",
    "https://hooks.example.com:65536/": "a port that is none",
    "https://hooks.example.com:x/": "a port that is none",
    "https://hooks.example.com:-1/": "a port that is none",
    "https://[::1/": "a port that is none",
    "https://hooks.example.com\\@127.0.0.1/": "is not a URL",
    "https://hooks.example.com/a b": "is not a URL",
    "https://hooks.example.com/\r\nx: y": "is not a URL",
    "https://hooks.example.com/\0": "is not a URL",
    "https://höoks.example.com/": "is not a URL",
    "https://127。0。0。1/": "is not a URL",
    "https://①②⑦.0.0.1/": "is not a URL",
    f"https://hooks.example.com/{'a' * 2048}": "is not a URL",
    # Odd spellings that a resolver takes for 127.0.0.1.
    "https://2130706433/": "is no address",
    "https://0x7f000001/": "is no address",
    "https://0x7f.1/": "is no address",
    "https://0X7F.0.0.1/": "is no address",
    "https://017700000001/": "is no address",
    "https://0177.0.0.1/": "is no address",
    "https://127.1/": "is no address",
    "https://127.0.0.1./": "not a public one",
    "https://127.0.0.01/": "is no address",
    "https://127.0.0.256/": "is no address",
    "https://[fe80::1%25eth0]/": "is no address",
}


@pytest.mark.parametrize(("url", "reason"), REFUSED.items())
def test_urls_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(url, allow_private=False)
    assert reason in refused.value.message
    assert (refused.value.param, bool(refused.value.next_action)) == ("url", True)


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("https://hooks.example.com", ("https", "hooks.example.com", 443, "/"), "hooks.example.com"),
        ("HTTPS://Hooks.Example.COM./a?b=c", ("https", "hooks.example.com", 443, "/a?b=c"), "hooks.example.com"),
        ("https://x_1.example:8443/%20", ("https", "x_1.example", 8443, "/%20"), "x_1.example:8443"),
        ("https://xn--hoks-7qa.example/", ("https", "xn--hoks-7qa.example", 443, "/"), "xn--hoks-7qa.example"),
        ("https://8.8.8.8:443/", ("https", "8.8.8.8", 443, "/"), "8.8.8.8"),
        ("https://[2606:4700::1111]:4430/", ("https", "2606:4700::1111", 4430, "/"), "[2606:4700::1111]:4430"),
    ],
)
def test_urls_in_parts(url: str, parts: tuple[str, str, int, str], authority: str) -> None:
    where = parse(url, allow_private=False)
    assert where == Destination(*parts)
    assert where.authority == authority


def literal(address: str) -> str:
    return f"https://[{address}]/" if ":" in address else f"https://{address}/"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    for allow_private in (False, True):
        check_address(ipaddress.ip_address(address), allow_private=allow_private)
        parse(literal(address), allow_private=allow_private)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_take_the_setting(address: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        check_address(ipaddress.ip_address(address), allow_private=False)
    with pytest.raises(InvalidRequest) as refused:
        parse(literal(address), allow_private=False)
    assert "OSORA_WEBHOOKS_ALLOW_PRIVATE" in str(refused.value.next_action)
    check_address(ipaddress.ip_address(address), allow_private=True)
    parse(literal(address), allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_addresses_that_no_setting_allows(address: str) -> None:
    for allow_private in (False, True):
        with pytest.raises(ForbiddenAddressError):
            check_address(ipaddress.ip_address(address), allow_private=allow_private)
        with pytest.raises(InvalidRequest):
            parse(literal(address), allow_private=allow_private)


def test_http_takes_the_setting() -> None:
    where = parse("http://hooks.internal/a", allow_private=True)
    assert (where.scheme, where.port, where.authority) == ("http", 80, "hooks.internal")
    with pytest.raises(InvalidRequest):
        parse("ftp://hooks.internal/a", allow_private=True)


_SPECIAL = st.sampled_from([*PRIVATE, *NEVER]).filter(lambda address: "%" not in address).map(ipaddress.ip_address)
_EMBEDDING = st.builds(
    lambda prefix, address: ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address)),
    st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"]),
    st.ip_addresses(v=4),
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.ip_addresses(), _SPECIAL, _EMBEDDING))
def test_no_address_passes_that_is_not_of_the_internet(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        check_address(address, allow_private=False)
    except ForbiddenAddressError:
        return
    assert address.is_global
    assert not address.is_multicast
    if isinstance(address, ipaddress.IPv6Address):
        assert address.ipv4_mapped is address.sixtofour is address.teredo is None


def _spellings(address: ipaddress.IPv4Address) -> list[str]:
    """What resolvers take for this address."""
    a, b, c, d = address.packed
    number = int(address)
    return [
        *(str(address), str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}"),
        *(f"{a}.{b}.{number & 0xFFFF}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        *(f"[::ffff:{address}]", f"{a}.{b}.{c}.{d}.", f"%{ord(str(a)[0]):x}{str(a)[1:]}.{b}.{c}.{d}"),
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(*(st.ip_addresses(network=net) for net in ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8"))),
    st.data(),
)
def test_no_spelling_of_a_private_address_is_a_host(address: ipaddress.IPv4Address, data: st.DataObject) -> None:
    spelling = data.draw(st.sampled_from(_spellings(address)))
    with pytest.raises(InvalidRequest):
        parse(f"https://{spelling}/hook", allow_private=False)
