"""Reading a multipart upload by hand, after authorisation.

FastAPI reads a declared form before it calls any dependency, so anybody could fill the disk without a key.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.files.schemas import UploadForm
from registry.errors import InvalidRequest

UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": UploadForm.model_json_schema()}},
    }
}
"""What OpenAPI should know about the request's body."""


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[UploadForm]:
    """The validated form; its spooled file is gone at exit."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest(
            "the body is not multipart/form-data",
            next_action="send a form: curl -F purpose=fine-tune -F file=@train.jsonl",
        )
    async with request.form(max_files=1, max_fields=8) as form:
        fields = dict(form)
        if isinstance(fields.get("file"), str):
            raise InvalidRequest(
                "file is a text field, not a file",
                param="file",
                next_action="with curl, put an @ before the path: -F file=@train.jsonl",
            )
        try:
            yield UploadForm.model_validate(fields)
        except ValidationError as error:
            found = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
            raise RequestValidationError(found, body=fields) from error
