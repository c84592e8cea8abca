"""Where a request comes from."""

import pytest

from api.middleware.request_id import address_of


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("203.0.113.9", 1), "203.0.113.9"),
        (("::ffff:203.0.113.9", 1), "203.0.113.9"),  # as proxies write it that listen on both at once
        (("2001:DB8::1", 1), "2001:db8::1"),
        (("fe80::1%eth0 200 OK", 1), "fe80::1"),
        (("::", 1), "::"),
        (("0.0.0.0", 1), "0.0.0.0"),
        (("unknown", 1), None),
        (None, None),
    ],
)
def test_an_address_is_written_in_one_way(client: tuple[str, int] | None, address: str | None) -> None:
    assert address_of({"type": "http", "client": client}) == address
