"""The table of the audit log. Its rows outlive what they tell of, so they refer to nothing by foreign key."""

from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now_seconds
from registry.models import Base


class AuditRecord(Base):
    """What somebody did, written in the transaction that did it. Triggers refuse to change or delete it.

    The migration that made the table has the triggers; one that alters the table must make them again.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "tenant_id", "at", "id"),
        Index(None, "at", "id"),
        Index(None, "target_id"),
        Index(None, "trimmed_before"),
        CheckConstraint("trimmed_before IS NULL OR action = 'audit.trimmed'", name="trimmed_before"),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    at: Mapped[int] = mapped_column(default=now_seconds())
    tenant_id: Mapped[str | None] = mapped_column(PlainText(40))
    """Whose it is: the owner of the target. None for what concerns the whole installation."""
    actor_tenant_id: Mapped[str | None] = mapped_column(PlainText(40))
    """Whose key it was; an operator acts on other tenants. None: nobody asked, the service does so by a setting."""
    key_id: Mapped[str | None] = mapped_column(PlainText(40))
    action: Mapped[str]
    target_kind: Mapped[str]
    target_id: Mapped[str]
    address: Mapped[str | None]
    """Where the request came from."""
    request_id: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
    trimmed_before: Mapped[int | None]
    """Of a trimming: records from before that time may go, and no others."""
