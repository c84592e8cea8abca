"""Answers that carry an object's bytes."""

from collections.abc import Iterator
from urllib.parse import quote

from fastapi.responses import StreamingResponse


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
