"""Reading a multipart form by hand, after authorisation.

FastAPI reads a declared form before it calls any dependency, so anybody could fill the disk without a key.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from api.schemas import RequestModel
from registry.errors import InvalidRequest, QuotaExceeded

_FORM_BYTES = 64 * 1024
"""What a form has around its file."""

Form = TypeVar("Form", bound=RequestModel)


@dataclass(frozen=True)
class Sent(Generic[Form]):
    """A form that has arrived."""

    form: Form
    digest: bytes
    """A hash of what it holds: the same if it is sent again with another boundary."""


def body_of(model: type[RequestModel]) -> dict[str, Any]:
    """What OpenAPI should know about such a request's body."""
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": model.model_json_schema()}}}
    }


@asynccontextmanager
async def read_form(
    request: Request, model: type[Form], *, file: str, example: str, room: int | None
) -> AsyncIterator[Sent[Form]]:
    """The validated form, of which the field `file` is a file; its spooled bytes are gone at exit.

    Args:
        example: what to give to curl, for those who have sent something else.
        room: bytes that the tenant may still store, if there is a limit.

    Raises `QuotaExceeded` as soon as more than that has come, or is announced.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("the body is not multipart/form-data", next_action=f"send a form: curl {example}")
    hashed = _HashedRequest(request.scope, request.receive)
    hashed.room = room
    try:
        async with hashed.form(max_files=1, max_fields=8) as sent:
            fields = dict(sent)
            if isinstance(fields.get(file), str):
                raise InvalidRequest(
                    f"{file} is a text field, not a file",
                    param=file,
                    next_action=f"with curl, put an @ before the path: {example}",
                )
            try:
                form = model.model_validate(fields)
            except ValidationError as error:
                found = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
                raise RequestValidationError(found, body=fields) from error
            yield Sent(form, hashed.digest)
    except HTTPException:
        if hashed.failure is None or isinstance(hashed.failure, ClientDisconnect):
            raise
        raise hashed.failure from None


class _HashedRequest(Request):
    """A request that hashes its body as it streams by, without the boundary: that is another one in each retry."""

    digest: bytes
    room: int | None = None
    """Bytes that the body may have, apart from what a form needs for itself."""
    failure: Exception | None = None
    """Why it was not read to its end."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """See Starlette's."""
        _, options = parse_options_header(self.headers["content-type"])
        boundary = options.get(b"boundary", b"")
        hasher = _WithoutBoundary(boundary)
        announced = self.headers.get("content-length", "")
        received = int(announced) if announced.isdigit() else 0
        try:
            self._check_room(received)
            received = 0
            async for chunk in super().stream():
                received += len(chunk)
                self._check_room(received)
                hasher.feed(chunk)
                yield chunk
        except (ClientDisconnect, HTTPException, QuotaExceeded) as error:
            # The one error after which the parser closes its temporary files at once: any other leaves them to the
            # garbage collector.
            self.failure = error
            raise MultiPartException("the upload broke off") from error
        self.digest = hasher.digest()

    def _check_room(self, size: int) -> None:
        if self.room is not None and size > self.room + _FORM_BYTES:
            raise QuotaExceeded(
                f"the upload is over the {self.room} bytes that its tenant may still store (stored_bytes)",
                code="stored_bytes",
                next_action="delete files, adapters or checkpoints that are not needed, or ask whoever runs the "
                "service for more",
            )


class _WithoutBoundary:
    """A hash of bytes that leaves out a boundary, wherever the pieces of the body begin and end."""

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._hash = hashlib.sha256()
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        data = self._rest + chunk
        if self._boundary:
            *pieces, data = data.split(self._boundary)
            for piece in pieces:
                self._hash.update(piece)
        # What is left may end with the beginning of a boundary.
        end = max(0, len(data) - len(self._boundary) + 1)
        self._hash.update(data[:end])
        self._rest = data[end:]

    def digest(self) -> bytes:
        self._hash.update(self._rest)
        self._rest = b""
        return self._hash.digest()
