"""What a key looks like."""

import re
import secrets

from registry.key_text import may_be_key, new_key

# As docs/security.md gives it to those who scan for leaks.
SCANNED = re.compile(r"\bosk-[0-9A-Za-z]{49}\b")


def test_a_key_is_found_by_those_who_scan_for_leaks() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert may_be_key(key)
        assert SCANNED.findall(f"export OSORA_API_KEY='{key}'; curl") == [key]


def test_the_checksum_is_what_the_documentation_says() -> None:
    body = "osk-" + "0" * 43
    assert may_be_key(body + checksum(body))
    assert all(key[-6:] == checksum(key[:-6]) for key in (new_key() for _ in range(50)))


def checksum(body: str) -> str:
    """By the description: the CRC-32 in base 62, six digits of 0-9, A-Z, a-z."""
    crc = 0xFFFFFFFF
    for byte in body.encode():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    number, digits = crc ^ 0xFFFFFFFF, ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def test_a_key_that_was_mistyped_or_cut_is_none() -> None:
    key = new_key()
    for position in range(len(key)):
        other = "x" if key[position] != "x" else "y"
        assert not may_be_key(key[:position] + other + key[position + 1 :])
    assert not may_be_key(key[:-1])
    assert not may_be_key(key + "0")
    assert not may_be_key(key + "\n")
    assert not may_be_key(key.replace("osk-", "sk-"))


def test_keys_from_before_there_was_a_checksum() -> None:
    assert all(may_be_key("osk-" + secrets.token_urlsafe(32)) for _ in range(50))
