"""Training files in the tokens of bases, as inference servers have measured them."""

import json
from dataclasses import asdict

from sqlalchemy import ForeignKey, LargeBinary, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from osora_data.measures import Measure
from registry.columns import PlainText
from registry.models import Base, File

MOST_LIMITS = 8
"""Limits that jobs have set themselves, for which a file's measures are kept: they may set any."""


class FileMeasure(Base):
    """A file in the tokens of a base, kept because it takes long to make. It goes with its file."""

    __tablename__ = "file_measures"

    file_id: Mapped[str] = mapped_column(PlainText(40), ForeignKey("files.id", ondelete="CASCADE"), primary_key=True)
    base: Mapped[str] = mapped_column(primary_key=True)
    row_limit: Mapped[int] = mapped_column(primary_key=True)
    """The tokens of the longest row that was asked for; 0 stands for what the base reads."""
    base_fingerprint: Mapped[str]
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """JSON, in which there are pieces of rows: any text, as no column of text takes it."""


def find(
    session: Session, file_id: str, base: str, limit: int | None = None, *, base_fingerprint: str | None = None
) -> Measure | None:
    """What is kept of a file, whose tenant the caller has checked, for rows of at most `limit` tokens (without it, of
    what the base reads). With `base_fingerprint`, only what was measured on that very base."""
    kept = session.get(FileMeasure, (file_id, base, limit or 0))
    if kept is None or base_fingerprint not in (None, kept.base_fingerprint):
        return None
    return Measure.of(json.loads(kept.content))


def keep(
    session: Session, file_id: str, base: str, limit: int | None, measure: Measure, *, base_fingerprint: str
) -> None:
    """Keeps a measure in place of an older one; of a file that is gone meanwhile, nothing."""
    # Two processes may have measured it at once: the second one waits here.
    if session.scalars(select(File.id).where(File.id == file_id).with_for_update(key_share=True)).one_or_none() is None:
        return
    place = (FileMeasure.file_id == file_id, FileMeasure.base == base, FileMeasure.row_limit == (limit or 0))
    session.execute(delete(FileMeasure).where(*place))
    others = (FileMeasure.file_id == file_id, FileMeasure.base == base, FileMeasure.row_limit != 0)
    if limit and session.scalars(select(func.count()).where(*others)).one() >= MOST_LIMITS:
        session.execute(delete(FileMeasure).where(*others))
    session.add(
        FileMeasure(
            file_id=file_id,
            base=base,
            row_limit=limit or 0,
            base_fingerprint=base_fingerprint,
            content=json.dumps(asdict(measure)).encode(),
        )
    )
