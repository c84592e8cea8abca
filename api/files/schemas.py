"""Files as OpenAI shapes them; what is ours is under `osora`."""

from typing import Annotated, Literal, Self

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.files.upload import ExpiryAnchor, ExpirySeconds, Purpose
from api.schemas import Name, PageQuery, QueryModel, RequestModel
from registry.models import File

FILE_EXAMPLE: JsonDict = {
    "id": "file-01k9v3t0w5qabcdefghjkmnpqrs",
    "object": "file",
    "bytes": 148213,
    "created_at": 1762300000,
    "expires_at": None,
    "filename": "support-tickets.jsonl",
    "purpose": "fine-tune",
    "status": "processed",
    "osora": {"format": "chat", "rows": 1200, "sha256": "9f86d081884c7d659a2feaa0c55ad015…"},
}


class UploadForm(RequestModel):
    """The fields of the multipart form."""

    purpose: Purpose
    file: Annotated[
        UploadFile,
        Field(
            description="JSON Lines, a JSON array, CSV or Parquet, plain or compressed (gzip, Zstandard): chats, "
            "prompts and completions, preferences, or texts.",
            examples=[
                '{"messages": [{"role": "user", "content": "My parcel is three days late."}, '
                '{"role": "assistant", "content": "category: shipping, priority: high"}]}\n'
            ],
        ),
    ]
    expires_after_anchor: Annotated[
        ExpiryAnchor | None, Field(alias="expires_after[anchor]", examples=["created_at"])
    ] = None
    expires_after_seconds: Annotated[
        ExpirySeconds | None,
        Field(alias="expires_after[seconds]", strict=False, examples=[86_400]),  # a form has nothing but text
    ] = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.expires_after_anchor is None) != (self.expires_after_seconds is None):
            raise PydanticCustomError(
                "half_an_expiry", "`expires_after[anchor]` and `expires_after[seconds]` go together: send both"
            )
        return self


class FilesQuery(PageQuery):
    """Which files."""

    limit: Annotated[int, Field(ge=1, le=10_000, description="Items on a page.")] = 10_000
    purpose: Annotated[str | None, Field(description="Only files of this purpose.")] = None


class ReportQuery(QueryModel):
    """In whose tokens."""

    base: Annotated[Name | None, Field(description="A base on offer; by default all of them.")] = None


class FileDetails(BaseModel):
    """What validation found."""

    format: str | None
    rows: int | None
    sha256: str


class FileOut(BaseModel):
    """A stored file."""

    model_config = ConfigDict(json_schema_extra={"examples": [FILE_EXAMPLE]})

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    osora: FileDetails

    @classmethod
    def of(cls, file: File) -> Self:
        """The file's row as a client sees it."""
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=file.created_at,
            expires_at=file.expires_at,
            filename=file.filename,
            purpose=file.purpose,
            osora=FileDetails(format=file.format, rows=file.rows, sha256=file.sha256),
        )
