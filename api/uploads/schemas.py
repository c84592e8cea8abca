"""Uploads in parts, as OpenAI shapes them."""

from typing import Annotated, Literal, Self

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.files.schemas import FileOut
from api.files.upload import ExpiresAfter, Purpose, base_name
from api.schemas import NO_NUL, AtMost, Name, RequestModel
from registry.upload_tables import UploadPart
from registry.uploads import MOST_PARTS, UploadState

UPLOAD_EXAMPLE: JsonDict = {
    "bytes": 104_857_600,
    "filename": "support-tickets.jsonl",
    "mime_type": "text/jsonl",
    "purpose": "fine-tune",
    "expires_after": {"anchor": "created_at", "seconds": 604_800},
}


class CreateUpload(RequestModel):
    """A file that will come in parts."""

    model_config = ConfigDict(json_schema_extra={"examples": [UPLOAD_EXAMPLE]})

    bytes: Annotated[int, Field(ge=1, lt=2**63, description="What the parts will come to.")]
    filename: Annotated[str, Field(min_length=1, max_length=512), NO_NUL, AfterValidator(base_name)]
    mime_type: Annotated[str, Field(max_length=255, description="Decides nothing: the content tells what the file is.")]
    purpose: Purpose
    expires_after: Annotated[
        ExpiresAfter | None, Field(description="How long the file lasts, from its completion on.")
    ] = None


class PartForm(RequestModel):
    """The field of the multipart form."""

    data: Annotated[UploadFile, Field(description="At most 64 MiB of the file.", examples=["…"])]


class CompleteUpload(RequestModel):
    """The order of the parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"part_ids": ["part_01k9v3t0w5qabcdefghjkmnpqrs", "part_01k9v3t9m2wabcdefghjkmnpqrs"]}]
        }
    )

    part_ids: Annotated[list[Name], Field(min_length=1), AtMost(MOST_PARTS)]
    md5: Annotated[
        str | None, Field(pattern=r"^[0-9a-fA-F]{32}$", description="Of the whole file; another one is an error.")
    ] = None


class PartOut(BaseModel):
    """A part that was added to an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str

    @classmethod
    def of(cls, part: UploadPart) -> Self:
        """The part's row as a client sees it."""
        return cls(id=part.id, created_at=part.created_at, upload_id=part.upload_id)


class UploadOut(BaseModel):
    """An upload; once it is completed, with its file."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    """When it can no longer be completed."""
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileOut | None

    @classmethod
    def of(cls, state: UploadState) -> Self:
        """The upload's row, and its file, as a client sees them."""
        upload = state.upload
        return cls(
            id=upload.id,
            bytes=upload.bytes,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
            filename=upload.filename,
            purpose=upload.purpose,
            status=state.status,
            file=None if state.file is None else FileOut.of(state.file),
        )
