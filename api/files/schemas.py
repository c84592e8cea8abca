"""Files as OpenAI shapes them; what is ours is under `osora`."""

from typing import Annotated, ClassVar, Literal, Self

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas import PageQuery, RequestModel
from registry.models import File

FILE_EXAMPLE: JsonDict = {
    "id": "file-01k9v3t0w5qabcdefghjkmnpqrs",
    "object": "file",
    "bytes": 148213,
    "created_at": 1762300000,
    "filename": "support-tickets.jsonl",
    "purpose": "fine-tune",
    "status": "processed",
    "osora": {"format": "chat", "rows": 1200, "sha256": "9f86d081884c7d659a2feaa0c55ad015…"},
}


class UploadForm(RequestModel):
    """The fields of the multipart form."""

    unsupported: ClassVar = dict.fromkeys(
        ("expires_after[anchor]", "expires_after[seconds]"), "files stay until they are deleted, so leave it out"
    )

    purpose: Annotated[Literal["fine-tune"], Field(examples=["fine-tune"])]
    file: Annotated[
        UploadFile,
        Field(
            description="JSON Lines: chats (`messages`), or `prompt` and `completion`.",
            examples=[
                '{"messages": [{"role": "user", "content": "My parcel is three days late."}, '
                '{"role": "assistant", "content": "category: shipping, priority: high"}]}\n'
            ],
        ),
    ]


class FilesQuery(PageQuery):
    """Which files."""

    limit: Annotated[int, Field(ge=1, le=10_000, description="Items on a page.")] = 10_000
    purpose: Annotated[str | None, Field(description="Only files of this purpose.")] = None


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
            filename=file.filename,
            purpose=file.purpose,
            osora=FileDetails(format=file.format, rows=file.rows, sha256=file.sha256),
        )
