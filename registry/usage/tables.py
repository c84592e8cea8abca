"""The tables of what was used. None of them holds a word of what was asked or answered."""

from typing import Literal

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.models import Base, one_of

Kind = Literal["generate", "chat", "completions", "responses", "messages", "training", "probe"]


class UsageDay(Base):
    """What a key of a tenant used of a model in one way on one day."""

    __tablename__ = "usage_days"
    __table_args__ = (one_of("kind", Kind),)

    tenant_id: Mapped[str] = mapped_column(PlainText(40), ForeignKey("tenants.id"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)
    """Its first second in UTC, as unix seconds."""
    key_id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    """Empty where it is not known: of jobs from before keys were noted."""
    base: Mapped[str] = mapped_column(primary_key=True)
    adapter_id: Mapped[str] = mapped_column(PlainText(60), primary_key=True)
    """An adapter's or a checkpoint's; empty for the bare base, and for training."""
    kind: Mapped[Kind] = mapped_column(String(12), primary_key=True)
    requests: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    trained_tokens: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    compute_seconds: Mapped[float] = mapped_column(default=0.0)


class UsageSegment(Base):
    """A file of an inference server's records, and the number of the last one that is in the sums.

    It moves on in the transaction that adds to the sums, so a record that comes again is known by its number.
    """

    __tablename__ = "usage_segments"

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    position: Mapped[int] = mapped_column(default=0)
    gone_at: Mapped[float | None] = mapped_column(index=True)
    """When its server had deleted it: nothing of it comes any more."""


class MeteredJob(Base):
    """Whose key a job is charged to, and how far it has been charged: what is repeated after a crash is not again.

    No foreign key to the job: a probe's row goes when it is overdue.
    """

    __tablename__ = "metered_jobs"

    job_id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(PlainText(40), ForeignKey("tenants.id"), index=True)
    key_id: Mapped[str] = mapped_column(PlainText(40))
    trained_tokens: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
