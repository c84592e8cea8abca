"""The table of bases that were added."""

from typing import Literal

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now_seconds
from registry.models import Base, one_of

BaseState = Literal["waiting", "downloading", "converting", "checking", "basis", "ready", "failed"]
PREPARING: frozenset[BaseState] = frozenset({"waiting", "downloading", "converting", "checking", "basis"})


class AddedBase(Base):
    """A base, and how far its preparation is. Any worker may take it up; its lease says who has."""

    __tablename__ = "bases"
    __table_args__ = (one_of("state", BaseState),)

    name: Mapped[str] = mapped_column(PlainText(63), primary_key=True)
    id: Mapped[str] = mapped_column(PlainText(40), unique=True)
    """Tells it from one of the same name that was removed."""
    source: Mapped[str]
    content: Mapped[str | None] = mapped_column(PlainText(64))
    """sha256 of the GGUF file that it is converted from, once that is known."""
    state: Mapped[BaseState] = mapped_column(String(12), default="waiting")
    progress: Mapped[float | None]
    """The part of the state's work that is done, where it can be told."""
    seconds_left: Mapped[float | None]
    problem: Mapped[str | None]
    """Why it failed, for operators: it may name paths."""
    next_action: Mapped[str | None]

    family: Mapped[str | None]
    has_chat_template: Mapped[bool | None]
    parameters: Mapped[int | None]
    bytes: Mapped[int | None]
    base_fingerprint: Mapped[str | None] = mapped_column(PlainText(64))
    basis_fingerprint: Mapped[str | None] = mapped_column(PlainText(64))

    created_at: Mapped[int] = mapped_column(default=now_seconds())
    ready_at: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[str | None] = mapped_column(PlainText(40))
    lease_expires_at: Mapped[float | None]
    worker_id: Mapped[str | None]
