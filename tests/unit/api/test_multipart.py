"""What a form is recognised by when it is sent again."""

import pytest

from api.multipart import _WithoutBoundary


def digest(body: bytes, boundary: bytes, size: int) -> bytes:
    hasher = _WithoutBoundary(boundary)
    for start in range(0, len(body), size):
        hasher.feed(body[start : start + size])
    return hasher.digest()


def form(boundary: bytes, content: bytes = b"rows") -> bytes:
    head = b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return b"--" + boundary + head + content + b"\r\n--" + boundary + b"--\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_neither_boundary_nor_pieces_matter(size: int) -> None:
    expected = digest(form(b"abcabc"), b"abcabc", 1000)
    assert digest(form(b"abcabc"), b"abcabc", size) == expected
    assert digest(form(b"0123456789"), b"0123456789", size) == expected


def test_what_is_sent_does() -> None:
    assert digest(form(b"abc"), b"abc", 5) != digest(form(b"abc", b"rowz"), b"abc", 5)
    # A part of a boundary in the content, and the body of one that never ends, are not left out.
    assert digest(form(b"abc", b"rows ab"), b"abc", 5) != digest(form(b"abc", b"rows "), b"abc", 5)
    assert digest(b"--ab", b"abc", 1) != digest(b"--a", b"abc", 1)
    assert digest(b"rows", b"", 2) == digest(b"rows", b"", 3) != digest(b"row", b"", 3)
