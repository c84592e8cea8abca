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
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from api.schemas import RequestModel
from registry.errors import InvalidRequest

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
async def read_form(request: Request, model: type[Form], *, file: str, example: str) -> AsyncIterator[Sent[Form]]:
    """The validated form, of which the field `file` is a file; its spooled bytes are gone at exit.

    `example` is what to give to curl, for those who have sent something else.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("the body is not multipart/form-data", next_action=f"send a form: curl {example}")
    hashed = _HashedRequest(request.scope, request.receive)
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


class _HashedRequest(Request):
    """A request that hashes its body as it streams by, without the boundary: that is another one in each retry."""

    digest: bytes

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """See Starlette's."""
        _, options = parse_options_header(self.headers["content-type"])
        boundary = options.get(b"boundary", b"")
        hasher = _WithoutBoundary(boundary)
        try:
            async for chunk in super().stream():
                hasher.feed(chunk)
                yield chunk
        except ClientDisconnect as error:
            # The one error after which the parser closes its temporary files at once: any other leaves them to the
            # garbage collector.
            raise MultiPartException("the upload broke off") from error
        self.digest = hasher.digest()


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
