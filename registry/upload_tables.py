"""The tables of files that come in parts."""

from typing import Literal

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now_seconds
from registry.models import Base, one_of

UploadStatus = Literal["pending", "completed", "cancelled"]


class Upload(Base):
    """A file that comes in parts. It becomes a `File` when it is completed, within an hour."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "expires_at"), one_of("status", UploadStatus))

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    """What its parts must come to."""
    file_expires_after: Mapped[int | None]
    """Seconds that the file will last."""
    status: Mapped[UploadStatus] = mapped_column(String(10), default="pending")
    """A pending one that is past `expires_at` has expired: `registry.uploads.status_of`."""
    file_id: Mapped[str | None] = mapped_column(PlainText(40))
    created_at: Mapped[int]
    expires_at: Mapped[int]


class UploadPart(Base):
    """A piece of a pending upload; its bytes are in the object store."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    object_key: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int]
    created_at: Mapped[int] = mapped_column(default=now_seconds())
