"""Forms: what one is recognised by when it is sent again, and what any bytes come to."""

import asyncio
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from api.files.schemas import UploadForm
from api.files.upload import base_name
from api.multipart import _WithoutBoundary, read_form
from registry.errors import InvalidRequest


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


async def received(content_type: bytes, body: bytes, size: int) -> tuple[str, bytes] | None:
    """The name and the bytes of the file in a form that comes in pieces; None if it is refused as the client's."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", content_type)], "app": None}
    try:
        async with read_form(Request(scope, receive), UploadForm, file="file", example="-F file=@a", room=None) as sent:
            return base_name(sent.form.file.filename or ""), await sent.form.file.read()
    except (InvalidRequest, RequestValidationError):
        return None
    except HTTPException as error:
        if error.status_code != 400:
            raise
        return None


_PARTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"--b\r\n", b"--b--\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"--", b"b", b"a" * 5000,
                b'Content-Disposition: form-data; name="file"; filename="a"\r\n',
                b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n',
                b'Content-Disposition: form-data; name="file"; filename="', b"Content-Disposition:", b": x\r\n",
                b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: text/plain; charset=utf-7\r\n",
                b"filename*=utf-8''%0d%0a", b"\0", b"\xff\xfe",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(
        [b"", b"; boundary=b", b'; boundary="b"', b"; boundary=", b"; boundary=" + b"b" * 300, b";;="]
    ),
    body=_PARTS,
    size=st.sampled_from([1, 7, 1000]),
)
def test_any_bytes_are_a_form_or_refused(kind: bytes, body: bytes, size: int) -> None:
    asyncio.run(received(b"multipart/form-data" + kind, body, size))


@settings(max_examples=200, deadline=None)
@given(name=st.text(st.characters(codec="utf-8"), max_size=30), content=st.binary(max_size=50))
@example(name="../../etc/passwd", content=b"x")
@example(name="..\\..\\boot.ini", content=b"x")
def test_a_name_leads_nowhere_and_the_bytes_arrive(name: str, content: bytes) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', "%22").replace("\r", "").replace("\n", "").encode()
    purpose = b'--bnd\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    head = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n\r\n'
    body = purpose + head + content.replace(b"--bnd", b"") + b"\r\n--bnd--\r\n"
    arrived = asyncio.run(received(b"multipart/form-data; boundary=bnd", body, 1000))
    assert arrived is not None or not (name.isascii() and name.isalnum())
    if arrived is not None:
        assert not set(arrived[0]) & set("/\\")
        assert arrived[1] == content.replace(b"--bnd", b"")
