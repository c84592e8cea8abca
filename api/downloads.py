"""Answers that carry an object's bytes."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse


def attachment(
    pieces: Iterator[bytes],
    *,
    filename: str,
    bytes: int,
    media_type: str,
    headers: dict[str, str] | None = None,
) -> StreamingResponse:
    """A download under a file name, which may hold any character."""
    disposition = f"attachment; filename*=utf-8''{quote(filename, safe='')}"
    return StreamingResponse(
        pieces,
        media_type=media_type,
        headers={"content-disposition": disposition, "content-length": str(bytes), **(headers or {})},
    )


def resumable(
    stream: Callable[[int], Iterator[bytes]],
    *,
    filename: str,
    bytes: int,
    etag: str,
    range: str,
    if_range: str,
    if_none_match: str,
) -> Response:
    """A download that goes on where it was cut, of an object of so many `bytes`; `stream` gives it from a byte on.

    range, if_range, if_none_match: the request's headers. Only a range without an end, within the object, is heeded.
    """
    headers = {"etag": etag, "accept-ranges": "bytes"}
    if etag.strip('"') in if_none_match:
        return Response(status_code=304, headers=headers)
    wanted = re.fullmatch(r"bytes=(\d{1,18})-", range) if if_range in ("", etag) else None
    start = int(wanted[1]) if wanted and int(wanted[1]) < bytes else 0
    answer = attachment(
        stream(start), filename=filename, bytes=bytes - start, media_type="application/octet-stream", headers=headers
    )
    if start:
        answer.status_code = 206
        answer.headers["content-range"] = f"bytes {start}-{bytes - 1}/{bytes}"
    return answer
