"""Rows that two files have in common, told without reading the files again.

A file is read once, when it is uploaded; a job is made in a request, which must not wait for two files of half a
gigabyte. So a sketch of each is kept: 16 bytes for each row, a megabyte at most.
"""

from typing import Any

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, Session, mapped_column

from osora_data.report import Sketch, overlap
from registry.columns import PlainText
from registry.models import Base


class FileSketch(Base):
    """Hashes of a training file's rows, or of a sample of them. It goes with its file."""

    __tablename__ = "file_sketches"

    file_id: Mapped[str] = mapped_column(PlainText(40), ForeignKey("files.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


def keep(session: Session, file_id: str, sketch: Sketch) -> None:
    """Keeps a new file's."""
    session.add(FileSketch(file_id=file_id, content=sketch.to_bytes()))


def warning(session: Session, training_file_id: str, validation_file_id: str) -> dict[str, Any] | None:
    """`{"code", "count", "message", "next_action", "lines"}` if rows of the validation file are trained on as well.

    None if there are none, or if a file came before sketches were kept. The caller has checked whose files they are.
    """
    kept = [session.get(FileSketch, file_id) for file_id in (validation_file_id, training_file_id)]
    found = [Sketch.from_bytes(one.content) for one in kept if one is not None]
    return overlap(*found) if len(found) == 2 else None
